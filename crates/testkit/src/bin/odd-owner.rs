//! An owner that does one unusual thing, then waits for the end of its standard input.
//!
//! It prints `ok …` once the result can be observed. MECHANISM is a word as for `--mechanism`:
//!
//! - `exec MECHANISM HELPER REPORT`: has a job with a daemon in it; at the next line of its input it
//!   executes another program.
//! - `threads MECHANISM HELPER`: the job is made, and each of its members is started, by a thread that
//!   has ended. Prints the pids of the members.
//! - `clone-into DIRECTORY COUNT`: has no job. Starts children in a cgroup with `clone3` directly, and
//!   prints how many of them were killed before their first instruction.
//! - `auto-reap HELPER`: has no job. Starts a child, which the kernel reaps automatically. Prints its
//!   pid, and stays after the end of its input.
//! - `wait-any MECHANISM HELPER`: waits for any child, which is a member of the job, before the job waits
//!   for it. Prints the result of the job's wait.
//! - `reaper MECHANISM COUNT HELPER`: a subreaper with its own dead child makes COUNT jobs, each with a
//!   member, and drops them. Prints the number of its children.
//! - `stop-tree PID`: stops the tree below PID, and prints the error.

use std::{
    fs::File,
    io::{self, Read},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use onejob::{Job, ProcessId, Signal, stop_tree};
use testkit::lifetime_limit;

fn main() {
    lifetime_limit::apply(2 * lifetime_limit::LIFETIME_SECONDS);
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["exec", mechanism, helper, report] => exec(mechanism, helper, report),
        ["threads", mechanism, helper] => threads(mechanism, helper),
        ["clone-into", dir, count] => clone_into(dir, count.parse().expect("a number")),
        ["auto-reap", helper] => auto_reap(helper),
        ["wait-any", mechanism, helper] => wait_any(mechanism, helper),
        ["reaper", mechanism, count, helper] => {
            reaper(mechanism, count.parse().expect("a number"), helper);
        }
        ["stop-tree", pid] => stop(pid.parse().expect("a pid")),
        _ => panic!("unknown: {args:?}"),
    }
}

/// Waits for the end of standard input. The process ends right after that.
fn wait_for_end_of_input() {
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

fn build(mechanism: &str) -> Job {
    let mechanism = mechanism.parse().expect("a mechanism");
    Job::builder().mechanism(mechanism).build().expect("a job")
}

fn member(helper: &str, words: &[&str]) -> onejob::Command {
    let mut command = onejob::Command::new(helper);
    command.args(words).stdin(onejob::Stdio::null()).stdout(onejob::Stdio::null());
    command
}

fn exec(mechanism: &str, helper: &str, report: &str) {
    let job = build(mechanism);
    let _child = job.spawn(member(helper, &["daemon", report])).expect("a member");
    println!("ok");
    io::stdin().read_line(&mut String::new()).expect("a line");
    let error = Command::new(helper).args(["sleep", "/dev/null"]).exec();
    panic!("failed to exec {helper}: {error}");
}

fn threads(mechanism: &str, helper: &str) {
    const MEMBERS: usize = 8;
    let in_a_thread = |work: &(dyn Fn() -> onejob::Child + Sync)| {
        thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
    };
    let mechanism = mechanism.to_owned();
    let job = thread::spawn(move || build(&mechanism)).join().expect("no panic");
    let spawn = || job.spawn(member(helper, &["sleep", "/dev/null"])).expect("a member");
    let members: Vec<_> = (0..MEMBERS).map(|_| in_a_thread(&spawn)).collect();
    let pids: Vec<_> = members.iter().map(|member| member.pid().to_string()).collect();
    println!("ok {}", pids.join(" "));
    wait_for_end_of_input();
}

/// `struct clone_args` up to the last field that is used here.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

fn clone_into(dir: &str, count: usize) {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let dir = File::open(dir).expect("a cgroup");
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: dir.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    let is_killed = |_: &usize| {
        // SAFETY: no memory is shared and no stack given, so this is a fork; the child only exits.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) } {
            -1 => panic!("failed to clone: {}", io::Error::last_os_error()),
            // SAFETY: no preconditions.
            0 => unsafe { libc::_exit(0) },
            pid => {
                let mut status = 0;
                // SAFETY: the status is a local.
                unsafe { libc::waitpid(pid as i32, &mut status, 0) };
                libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL
            }
        }
    };
    println!("ok {}", (0..count).filter(is_killed).count());
    wait_for_end_of_input();
}

fn auto_reap(helper: &str) {
    // SAFETY: ignoring a signal installs no code. From here on the kernel reaps the children.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let mut child = Command::new(helper);
    child.args(["sleep", "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::null());
    #[expect(clippy::zombie_processes, reason = "the kernel waits for it")]
    let child = child.spawn().expect("the helper starts");
    println!("ok {}", child.id());
    loop {
        thread::sleep(Duration::from_secs(1000));
    }
}

fn wait_any(mechanism: &str, helper: &str) {
    let job = build(mechanism);
    let mut child = job.spawn(member(helper, &["exit", "/dev/null", "9"])).expect("a member");
    // SAFETY: a null status is allowed.
    let reaped = unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
    assert_eq!(reaped, child.pid() as i32, "another child");
    match child.wait() {
        Ok(status) => println!("ok {status}"),
        Err(error) => println!("err {error}"),
    }
    wait_for_end_of_input();
}

fn reaper(mechanism: &str, count: usize, helper: &str) {
    // SAFETY: changes an attribute of this process.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    #[expect(clippy::zombie_processes, reason = "it must stay a zombie")]
    let own = Command::new("/bin/true").spawn().expect("a child");
    for _ in 0..count {
        let job = build(mechanism);
        let mut child = job.spawn(member(helper, &["exit", "/dev/null", "9"])).expect("a member");
        assert_eq!(child.wait().expect("its status").code(), Some(9));
    }
    let children = || {
        let of = |task: io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.expect("a task").path().join("children"))
        };
        let tasks = std::fs::read_dir("/proc/self/task").expect("a list of tasks");
        tasks.map(|task| of(task).expect("a list of children")).collect::<String>()
    };
    let listed = children();
    let mine = listed.split_whitespace().any(|pid| pid.parse() == Ok(own.id()));
    // A guard of cgroup jobs runs as long as its owner.
    let is_dead = |pid: &&str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        mechanism == "subreaper" || stat.contains(") Z ")
    };
    let count = listed.split_whitespace().filter(is_dead).count();
    println!("{} {count}", if mine { "ok" } else { "err its own child is gone," });
    wait_for_end_of_input();
}

fn stop(pid: u32) {
    println!("ok");
    io::stdin().read_line(&mut String::new()).expect("a line");
    let root = ProcessId::of(pid).expect("a process");
    match stop_tree(&root, Signal::TERM, Duration::from_secs(5)) {
        Ok(_) => println!("ok"),
        Err(error) => println!("err {error}"),
    }
    wait_for_end_of_input();
}
