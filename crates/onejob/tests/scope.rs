//! A scope lives as long as its owner's jobs, and no longer; and whoever would make one can be gone.
//!
//! These tests need systemd, root, and an ordinary user with a service manager: `scripts/test-vm
//! systemd` has them.
#![cfg(target_os = "linux")]

use std::{
    fs,
    io::{BufRead, BufReader, Lines, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use testkit::{Bins, Report, cgroup, eventually, proc};

const USER: u32 = 1000;

/// Whether there is all that is needed; only in the guest it must be.
fn has_user_manager() -> bool {
    let has = Path::new("/run/systemd/system").exists()
        && Path::new("/run/user/1000/bus").exists()
        && rustix::process::geteuid().is_root();
    if !has {
        eprintln!("SKIPPED: there is no systemd, or no user with a service manager");
        assert!(std::env::var_os("ONEJOB_SCOPE").is_none(), "here there must be one");
    }
    has
}

/// The program `owner`, as the ordinary user and where root is: in nobody's part of the hierarchy
/// that is delegated.
struct Owner {
    process: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Owner {
    fn start() -> Owner {
        let mut owner = Command::new(Bins::get().owner());
        owner.uid(USER).gid(USER).env_clear().env("XDG_RUNTIME_DIR", "/run/user/1000");
        owner.env("PATH", "/usr/bin:/bin").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = owner.spawn().expect("started");
        let requests = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut owner = Owner { process, requests, answers };
        owner.answer();
        owner
    }

    fn answer(&mut self) -> String {
        let line = self.answers.next().expect("an answer").expect("text");
        line.strip_prefix("ok").unwrap_or_else(|| panic!("{line}")).trim().to_owned()
    }

    fn ok(&mut self, request: &str) -> String {
        writeln!(self.requests, "{request}").expect("it listens");
        self.answer()
    }

    /// Makes a job with a member that has left the session; the member, and its scope.
    fn job(&mut self) -> (i32, PathBuf) {
        let report = Report::new();
        self.ok("new cgroup");
        self.ok(&format!("spawn {} setsid {}", Bins::get().actor().display(), report.arg()));
        let escapee = eventually("the escapee", || {
            let text = fs::read_to_string(report.arg()).ok()?;
            let line = text.lines().find(|line| line.starts_with("escapee "))?.to_owned();
            line.split(' ').find_map(|word| word.strip_prefix("pid=")?.parse::<i32>().ok())
        });
        let text = fs::read_to_string(format!("/proc/{escapee}/cgroup")).expect("alive");
        let path = text.lines().find_map(|line| line.strip_prefix("0::")).expect("v2");
        let scope = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
        let scope = scope.parent().expect("a scope").to_owned();
        assert!(scope.ends_with(scope.file_name().expect("a name")));
        assert_eq!(scope.extension().and_then(|e| e.to_str()), Some("scope"), "{scope:?}");
        (escapee, scope)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_gone(pid: i32) -> Option<()> {
    (!proc::is_alive(pid)).then_some(())
}

#[track_caller]
fn scope_is_gone(scope: &Path) {
    eventually("the end of the scope", || (!scope.exists()).then_some(()));
}

#[test]
fn the_scope_goes_with_its_owner_however_that_ends() {
    if !has_user_manager() {
        return;
    }
    for killed in [false, true] {
        let mut owner = Owner::start();
        let (escapee, scope) = owner.job();
        match killed {
            true => owner.process.kill().expect("killed"),
            false => drop(owner.ok("drop")),
        }
        drop(owner);
        eventually("the end of the members", || is_gone(escapee));
        scope_is_gone(&scope);
    }
}

#[test]
fn a_killed_guard_leaves_nothing_behind() {
    if !has_user_manager() {
        return;
    }
    let guards = |scope: &Path| {
        let pids = cgroup::pids(&scope.join("guards"));
        assert_eq!(pids.len(), 2, "the guards' own place: {pids:?}");
        pids
    };
    // One of them, and the owner after it.
    for which in [0, 1] {
        let mut owner = Owner::start();
        let (escapee, scope) = owner.job();
        let guard = guards(&scope)[which];
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(guard).expect("a pid"),
            rustix::process::Signal::KILL,
        )
        .expect("killed");
        eventually("the end of the guard", || is_gone(guard));
        assert!(proc::is_alive(escapee), "the job goes on");
        owner.process.kill().expect("killed");
        eventually("the end of the members", || is_gone(escapee));
        scope_is_gone(&scope);
    }
    // All of them at once: the next owner of this user ends what they leave.
    let mut owner = Owner::start();
    let (escapee, scope) = owner.job();
    for pid in guards(&scope).into_iter().chain([owner.process.id() as i32]) {
        signal(pid, rustix::process::Signal::STOP);
    }
    for pid in guards(&scope).into_iter().chain([owner.process.id() as i32]) {
        signal(pid, rustix::process::Signal::KILL);
    }
    drop(owner);
    assert!(proc::is_alive(escapee), "nobody was left to end it");
    let mut next = Owner::start();
    next.job();
    eventually("the end of what was left", || is_gone(escapee));
    scope_is_gone(&scope);
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("alive");
}

#[test]
fn a_user_manager_that_is_restarted_takes_the_job_along_and_the_owner_sees_it() {
    if !has_user_manager() {
        return;
    }
    let mut owner = Owner::start();
    let (escapee, scope) = owner.job();
    let restarted = Command::new("systemctl").args(["restart", "user@1000.service"]).status();
    assert!(restarted.expect("systemctl").success());
    eventually("the end of the members", || is_gone(escapee));
    scope_is_gone(&scope);
    assert_eq!(owner.ok("empty"), "true");
    owner.ok("wait");
    owner.ok("kill");
    assert_eq!(owner.ok("list"), "");
    owner.ok("drop");
    eventually("the user manager", || Path::new("/run/user/1000/bus").exists().then_some(()));
    let (_, another) = owner.job();
    assert_ne!(scope, another, "a new one");
}
