//! The worker for the peers that are crates, each used as documented, and for `Command` of std.
//!
//! One request a line on standard input, one answer a line: `ok NUMBERS…` or `err TEXT`. Times are
//! in nanoseconds.

use std::{
    io::{self, BufRead, Write},
    process::{Command, ExitStatus},
    thread,
    time::Instant,
};

use command_group::{CommandGroup, GroupChild};
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessGroup, ProcessSession};
use tokio::runtime::Runtime;

type Answer = Result<Vec<u64>, Box<dyn std::error::Error>>;

/// The handle of the tree that is listed or killed.
enum Held {
    Std(std::process::Child),
    Processkit(processkit::ProcessGroup),
    Wrap(Box<dyn ChildWrapper>),
    Group(GroupChild),
}

struct Peers {
    runtime: Runtime,
    /// The group of processkit that exists between requests.
    group: Option<processkit::ProcessGroup>,
    held: Option<Held>,
    ballast: Vec<u8>,
}

fn main() {
    // This process adopts and reaps orphans. SAFETY: a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut peers = Peers { runtime, group: None, held: None, ballast: Vec::new() };
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match peers.answer(&words) {
            Ok(numbers) => {
                let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
                println!("ok {}", numbers.join(" "));
            }
            Err(error) => println!("err {}", error.to_string().replace('\n', " ")),
        }
        io::stdout().flush().expect("a reader");
    }
}

impl Peers {
    fn answer(&mut self, words: &[&str]) -> Answer {
        match *words {
            ["ballast", megabytes] => {
                self.take_memory(number(megabytes));
                Ok(vec![])
            }
            ["job"] => {
                let _inside = self.runtime.enter();
                let group = processkit::ProcessGroup::new()?;
                let is_cgroup = group.mechanism() == processkit::Mechanism::CgroupV2;
                self.group = Some(group);
                Ok(vec![u64::from(is_cgroup)])
            }
            ["spawn", peer, count, program] => self.spawn(peer, number(count), program),
            ["threads", threads, count, program] => {
                let (threads, count) = (number(threads), number(count));
                let begin = Instant::now();
                thread::scope(|scope| {
                    for _ in 0..threads {
                        scope.spawn(|| {
                            for _ in 0..count {
                                check(Command::new(program).status().expect("it starts"));
                            }
                        });
                    }
                });
                Ok(vec![nanoseconds(begin) / (threads * count)])
            }
            ["tree", peer, ref command @ ..] => self.start(peer, command),
            ["pids"] => match &self.held {
                Some(Held::Processkit(group)) => {
                    let begin = Instant::now();
                    let members = group.members()?;
                    Ok(vec![nanoseconds(begin), members.len() as u64])
                }
                _ => Err("only processkit lists".into()),
            },
            ["kill", then] => self.kill(then),
            _ => Err(format!("unknown: {words:?}").into()),
        }
    }

    fn spawn(&mut self, peer: &str, count: u64, program: &str) -> Answer {
        let begin = Instant::now();
        for _ in 0..count {
            check(match peer {
                "std" => Command::new(program).spawn()?.wait()?,
                "processkit" => {
                    let group = self.group.as_ref().ok_or("`job` comes first")?;
                    wait_in(&self.runtime, group, program)?
                }
                "processkit-new" => {
                    let _inside = self.runtime.enter();
                    let group = processkit::ProcessGroup::new()?;
                    wait_in(&self.runtime, &group, program)?
                }
                "process-wrap" => wrapped(program, &[]).spawn()?.wait()?,
                "command-group" => Command::new(program).group_spawn()?.wait()?,
                _ => return Err(format!("unknown: {peer}").into()),
            });
        }
        Ok(vec![nanoseconds(begin) / count])
    }

    fn start(&mut self, peer: &str, command: &[&str]) -> Answer {
        let (program, args) = command.split_first().ok_or("nothing to start")?;
        let (held, pid) = match peer {
            "processkit" => {
                let _inside = self.runtime.enter();
                let group = processkit::ProcessGroup::new()?;
                let mut command = tokio::process::Command::new(program);
                command.args(args);
                let child = group.spawn(command)?;
                let pid = child.id().unwrap_or(0);
                (Held::Processkit(group), pid)
            }
            "process-wrap" => {
                let child = wrapped(program, args).spawn()?;
                let pid = child.id();
                (Held::Wrap(child), pid)
            }
            "process-wrap-session" => {
                let child = CommandWrap::with_new(program, |command| {
                    command.args(args);
                })
                .wrap(ProcessSession)
                .spawn()?;
                let pid = child.id();
                (Held::Wrap(child), pid)
            }
            "command-group" => {
                let child = Command::new(program).args(args).group_spawn()?;
                let pid = child.id();
                (Held::Group(child), pid)
            }
            "kill_tree" => {
                let child = Command::new(program).args(args).spawn()?;
                let pid = child.id();
                (Held::Std(child), pid)
            }
            _ => return Err(format!("unknown: {peer}").into()),
        };
        self.held = Some(held);
        Ok(vec![u64::from(pid)])
    }

    /// Kills; `and-reap` also waits until all are reaped, which never ends if a peer leaves a process alive.
    fn kill(&mut self, then: &str) -> Answer {
        let mut group = None;
        let begin = Instant::now();
        match self.held.take().ok_or("`tree` comes first")? {
            Held::Processkit(held) => {
                held.kill_all()?;
                group = Some(held);
            }
            Held::Wrap(mut child) => child.kill()?,
            Held::Group(mut child) => child.kill()?,
            Held::Std(child) => {
                let config =
                    kill_tree::Config { signal: "SIGKILL".to_owned(), ..Default::default() };
                kill_tree::blocking::kill_tree_with_config(child.id(), &config)?;
            }
        }
        if then == "and-reap" {
            reap_children();
        }
        let ended = nanoseconds(begin);
        let _inside = self.runtime.enter();
        drop(group);
        Ok(vec![ended])
    }

    /// In pages of the usual size: a fork must copy their page tables.
    fn take_memory(&mut self, megabytes: u64) {
        let size = (megabytes as usize) << 20;
        self.ballast = Vec::with_capacity(size);
        // SAFETY: new memory of this process; the advice does not change it.
        unsafe {
            let at = self.ballast.as_mut_ptr();
            let aligned = at.wrapping_add(at.align_offset(4096));
            libc::madvise(aligned.cast(), size - 4096, libc::MADV_NOHUGEPAGE);
        }
        self.ballast.resize(size, 1);
    }
}

fn wrapped(program: &str, args: &[&str]) -> CommandWrap {
    let mut command = CommandWrap::with_new(program, |command| {
        command.args(args);
    });
    command.wrap(ProcessGroup::leader());
    command
}

fn wait_in(
    runtime: &Runtime,
    group: &processkit::ProcessGroup,
    program: &str,
) -> Result<ExitStatus, Box<dyn std::error::Error>> {
    let _inside = runtime.enter();
    let mut child = group.spawn(tokio::process::Command::new(program))?;
    Ok(runtime.block_on(child.wait())?)
}

fn check(status: ExitStatus) {
    assert!(status.success(), "the program has failed: {status}");
}

fn nanoseconds(begin: Instant) -> u64 {
    begin.elapsed().as_nanos() as u64
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

fn reap_children() {
    loop {
        // SAFETY: the pointer to the status is null, which `waitpid` permits.
        let pid = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL) };
        if pid < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}
