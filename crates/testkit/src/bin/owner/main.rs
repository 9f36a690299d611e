//! A program that uses onejob as requested: one request per line on standard input, one answer per
//! line (`ok …` or `err …`) on standard output. Words are separated by blanks.
//!
//! `owner -f SCRIPT --linger FILE` takes the requests from the file SCRIPT instead, then stays
//! until FILE exists and exits without dropping anything. `owner run-killpg PROGRAM ARGS…` is
//! `onejob run` with the usual substitute for a job.
//!
//! With `ONEJOB_TEST_CONTAINMENT=killpg` in the environment it uses that substitute, too: its members
//! are only a process group, on Windows only its children. The tests must detect this.

mod job;
#[cfg(target_os = "linux")]
mod killpg;
#[cfg(windows)]
#[path = "children.rs"]
mod killpg;
#[cfg(target_os = "linux")]
mod slots;
mod soak;

use std::{
    io::{self, BufRead, Read, Write},
    path::Path,
    process::ExitStatus,
    thread,
    time::Duration,
};

use job::{act, builder, command, reply, std_command};
use killpg::Group;
use onejob::{Child, Job, JobEntry, Stdio};
use testkit::lifetime_limit;

use testkit::Reply as Answer;

#[derive(Default)]
struct Owner {
    job: Option<Job>,
    /// Other jobs, each with a name.
    many: Vec<Job>,
    group: Option<Group>,
    children: Vec<Child>,
    /// Members that std started.
    others: Vec<std::process::Child>,
    /// Children outside of the job.
    outsiders: Vec<std::process::Child>,
}

fn main() {
    // A soak is as long as its user wants.
    let lifetimes = if std::env::var_os("SOAK_N").is_some() { 50 } else { 2 };
    lifetime_limit::apply(lifetimes * lifetime_limit::LIFETIME_SECONDS);
    let args: Vec<_> = std::env::args().skip(1).collect();
    let mut owner = Owner::default();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => owner.serve(),
        ["-f", script, "--linger", file] => {
            for request in std::fs::read_to_string(script).expect("a script").lines() {
                owner.answer(request).unwrap_or_else(|error| panic!("{request}: {error}"));
            }
            while !Path::new(file).exists() {
                thread::sleep(Duration::from_millis(2));
            }
            // SAFETY: no preconditions; the destructors are left out on purpose.
            unsafe { libc::_exit(0) };
        }
        #[cfg(target_os = "linux")]
        ["--slots"] => slots::serve(),
        ["run-killpg", ref command @ ..] => killpg::run(command),
        _ => panic!("usage: owner [-f SCRIPT --linger FILE | --slots | run-killpg PROGRAM ARGS…]"),
    }
}

impl Owner {
    fn serve(&mut self) {
        println!("ok {}", std::process::id());
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let (word, text) = match self.answer(&line) {
                Ok(text) => ("ok", text),
                Err(text) => ("err", text),
            };
            let text = text.replace('\n', "; ");
            println!("{}", format!("{word} {text}").trim_end());
            let _ = io::stdout().flush();
            if line == "exit" {
                break;
            }
        }
    }

    fn answer(&mut self, line: &str) -> Answer {
        let words: Vec<_> = line.split_whitespace().collect();
        let (request, args) = words.split_first().ok_or("an empty request")?;
        match *request {
            "new" | "enclose" | "open" | "many" | "drop" | "release" | "exit" => {
                self.hold(request, args)
            }
            "jobs" => list_jobs(),
            "cycle" => soak::cycle(args),
            "churn" => soak::churn(args),
            "drop-many" => {
                self.many.clear();
                Ok(String::new())
            }
            "touch" => {
                let file = args.first().ok_or("which file?")?;
                std::fs::write(file, "").map_err(|error| error.to_string()).map(|()| String::new())
            }
            "spawn" | "spawn-piped" | "spawn-std" | "spawn-in-thread" => self.start(request, args),
            "outsider" | "outsiders-alive" | "outsiders-kill" => self.outsiders(request, args),
            "child-wait" | "others-wait" => self.child_wait(request, args),
            "child-pipe" => self.child_pipe(),
            _ if self.group.is_some() => {
                self.group.as_mut().expect("checked").answer(request, args)
            }
            #[cfg(target_os = "linux")]
            "forked-copy" | "forked-drop" => self.fork_copy(request),
            _ => {
                let job = self.job.as_ref().ok_or_else(|| format!("no job to {request}"))?;
                act(job, request, args)
            }
        }
    }

    /// Requests that make, open, drop and release a job.
    fn hold(&mut self, request: &str, args: &[&str]) -> Answer {
        if killpg::is_wanted() && request != "exit" {
            self.group = (request == "new").then(Group::default);
            return Ok(String::new());
        }
        match request {
            "drop" => drop(self.job.take()),
            "release" => reply(self.job.take().ok_or("no job")?.release())?,
            "exit" => *self = Owner::default(),
            "open" => self.job = Some(reply(Job::open(args.first().ok_or("which job?")?))?),
            "many" => {
                let [count, mechanism] = *args else { return Err("many COUNT MECHANISM".into()) };
                let count: usize = count.parse().map_err(|_| "no number")?;
                for number in 0..count {
                    let builder = Job::builder().mechanism(reply(mechanism.parse())?);
                    self.many.push(reply(builder.name(format!("many-{number}")).build())?);
                }
            }
            _ => {
                let builder = builder(args)?;
                let made = if request == "new" { builder.build() } else { builder.enclose() };
                self.job = Some(reply(made)?);
            }
        }
        Ok(String::new())
    }

    /// Requests that start members. The answer is their pid.
    fn start(&mut self, request: &str, args: &[&str]) -> Answer {
        if self.group.is_some() || request == "spawn-std" {
            let mut command = std_command(args)?;
            let child = match &mut self.group {
                Some(group) => group.spawn(&mut command, request == "spawn-piped")?,
                None => reply(self.job.as_ref().ok_or("no job")?.spawn_std(&mut command))?,
            };
            self.others.push(child);
            return Ok(self.others.last().expect("just pushed").id().to_string());
        }
        let job = self.job.as_ref().ok_or("no job")?;
        let mut command = command(args)?;
        if request == "spawn-piped" {
            command.stdout(Stdio::piped());
        }
        let child = if request == "spawn-in-thread" {
            thread::scope(|scope| scope.spawn(|| job.spawn(&mut command)).join().expect("no panic"))
        } else {
            job.spawn(&mut command)
        };
        self.children.push(reply(child)?);
        Ok(self.children.last().expect("just pushed").pid().to_string())
    }

    /// Requests about children of this process outside of the job.
    fn outsiders(&mut self, request: &str, args: &[&str]) -> Answer {
        match request {
            "outsider" => {
                let child = std_command(args)?.spawn();
                self.outsiders.push(child.map_err(|error| error.to_string())?);
                Ok(self.outsiders.last().expect("just pushed").id().to_string())
            }
            "outsiders-alive" => {
                let mut all = self.outsiders.iter_mut();
                Ok(all.all(|child| matches!(child.try_wait(), Ok(None))).to_string())
            }
            _ => {
                for mut child in self.outsiders.drain(..) {
                    let ended = child.kill().and_then(|()| child.wait());
                    ended.map_err(|error| error.to_string())?;
                }
                Ok(String::new())
            }
        }
    }

    /// `child-wait [PID]`, by default of the latest child: `code N` or `signal N [core]`.
    fn child_wait(&mut self, request: &str, args: &[&str]) -> Answer {
        let wanted: Option<u32> = args.first().and_then(|pid| pid.parse().ok());
        let is_it = |pid: u32| wanted.is_none_or(|wanted| wanted == pid);
        if request == "others-wait" || self.group.is_some() {
            let child = self.others.iter_mut().rev().find(|child| is_it(child.id()));
            let status = child.ok_or("no such child")?.wait();
            return status.map(describe).map_err(|error| error.to_string());
        }
        let child = self.children.iter_mut().rev().find(|child| is_it(child.pid()));
        reply(child.ok_or("no such child")?.wait()).map(describe)
    }

    /// Reads the pipe of the latest child until its end.
    fn child_pipe(&mut self) -> Answer {
        let mut text = String::new();
        let of_job = self.children.last_mut().and_then(|child| child.stdout.take());
        let of_group = || self.others.last_mut().and_then(|child| child.stdout.take());
        let mut pipe = of_job.or_else(of_group).ok_or("the latest child has no pipe")?;
        pipe.read_to_string(&mut text).map_err(|error| error.to_string())?;
        Ok(text)
    }

    #[cfg(target_os = "linux")]
    /// A copy of this whole process, by `fork` alone: one that stays, or one that drops its copy
    /// of the job and ends.
    fn fork_copy(&mut self, request: &str) -> Answer {
        // SAFETY: the copy only drops a job, which is the subject of the test, or sleeps.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error().to_string()),
            0 => {
                lifetime_limit::apply(lifetime_limit::LIFETIME_SECONDS);
                if request == "forked-drop" {
                    drop(self.job.take());
                    // SAFETY: no preconditions.
                    unsafe { libc::_exit(0) };
                }
                // SAFETY: the client must see the end of this process in the pipe, not that of the copy.
                unsafe {
                    libc::close(0);
                    libc::close(1);
                }
                loop {
                    thread::sleep(Duration::from_secs(1000));
                }
            }
            copy if request == "forked-drop" => {
                // SAFETY: a null status is allowed.
                unsafe { libc::waitpid(copy, std::ptr::null_mut(), 0) };
                Ok(copy.to_string())
            }
            copy => Ok(copy.to_string()),
        }
    }
}

/// A word for each job of this user: `ID/NAME/MECHANISM/OWNER`, with `-` for missing parts.
fn list_jobs() -> Answer {
    let word = |job: JobEntry| {
        let owner = job.owner.map_or("-".to_owned(), |owner| owner.pid().to_string());
        let name = job.name.unwrap_or_else(|| "-".to_owned());
        format!("{}/{name}/{}/{owner}", job.id, job.mechanism)
    };
    reply(onejob::jobs()).map(|jobs| jobs.map(word).collect::<Vec<_>>().join(" "))
}

#[cfg(windows)]
fn describe(status: ExitStatus) -> String {
    format!("code {}", status.code().unwrap_or_default())
}

#[cfg(unix)]
fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    let core = if status.core_dumped() { " core" } else { "" };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("code {code}"),
        (_, Some(signal)) => format!("signal {signal}{core}"),
        _ => format!("{status:?}"),
    }
}
