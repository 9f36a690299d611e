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
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use testkit::{Bins, Report, cgroup, eventually, proc};

const USER: u32 = 1000;

/// In the guest there is all that is needed. Nowhere else is it tried: somebody's service manager is
/// stopped and restarted here, with all that it runs. One test at a time.
fn guest() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    if std::env::var_os("ONEJOB_GUEST").is_none() {
        eprintln!(
            "SKIPPED: not in the guest with systemd, whose service managers are the tests' own"
        );
        return None;
    }
    assert!(Path::new("/run/systemd/system").exists(), "systemd");
    assert!(rustix::process::geteuid().is_root(), "root");
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    eventually("the user's bus", || Path::new("/run/user/1000/bus").exists().then_some(()));
    Some(alone)
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
        self.ok(&format!("spawn {} setsid {}", Bins::get().helper().display(), report.arg()));
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

/// The scope goes with its owner however that ends.
#[test]
fn scope_is_removed_with_its_owner() {
    let Some(_alone) = guest() else { return };
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

/// The two of an owner, in their own place.
fn guards(scope: &Path) -> Vec<i32> {
    let pids = cgroup::pids(&scope.join("guards"));
    assert_eq!(pids.len(), 2, "the guards' own place: {pids:?}");
    pids
}

/// None of them gets to do anything once the first is dead.
fn kill_together(pids: &[i32]) {
    proc::stop_together(pids);
    for pid in pids {
        signal(*pid, rustix::process::Signal::KILL);
    }
}

#[test]
fn a_killed_guard_leaves_nothing_behind() {
    let Some(_alone) = guest() else { return };
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
    kill_together(&[guards(&scope), vec![owner.process.id() as i32]].concat());
    drop(owner);
    assert!(proc::is_alive(escapee), "nobody was left to end it");
    let mut next = Owner::start();
    next.job();
    eventually("the end of what was left", || is_gone(escapee));
    scope_is_gone(&scope);
}

/// A scope whose guards are dead goes every time whoever ends its members.
#[test]
fn scope_with_dead_guards_is_removed() {
    let Some(_alone) = guest() else { return };
    for _ in 0..10 {
        // Its owner does, …
        let mut owner = Owner::start();
        let (escapee, scope) = owner.job();
        kill_together(&guards(&scope));
        owner.ok("stop 1");
        assert!(!proc::is_alive(escapee));
        scope_is_gone(&scope);
        // … or another one, when the owner is dead, too.
        let (escapee, scope) = owner.job();
        kill_together(&[guards(&scope), vec![owner.process.id() as i32]].concat());
        drop(owner);
        let mut next = Owner::start();
        let (_, other) = next.job();
        eventually("the end of what was left", || is_gone(escapee));
        scope_is_gone(&scope);
        drop(next);
        scope_is_gone(&other);
    }
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("alive");
}

/// A user manager that is restarted takes the job along and the owner sees it.
#[test]
fn restarted_user_manager_ends_the_job() {
    let Some(_alone) = guest() else { return };
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

/// Stopped until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn the_user_manager() -> Stopped {
        let show = ["show", "--property=MainPID", "--value", "user@1000.service"];
        let said = Command::new("systemctl").args(show).output().expect("systemctl").stdout;
        let pid = String::from_utf8_lossy(&said).trim().parse().expect("a pid");
        signal(pid, rustix::process::Signal::STOP);
        eventually("a stopped manager", || (proc::stat(pid)?.state == 'T').then_some(()));
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, rustix::process::Signal::CONT);
    }
}

/// The scopes of ours that there are.
fn scopes() -> Vec<PathBuf> {
    let all = cgroup::with_descendants(Path::new("/sys/fs/cgroup"));
    let is_ours = |dir: &PathBuf| {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("onejob-") && name.ends_with(".scope")
    };
    all.into_iter().filter(is_ours).collect()
}

/// Has `kill` do so at a hundred moments of the making of an owner's first job, with its scope.
fn at_any_moment_of_the_making_of_a_scope(mut kill: impl FnMut(Owner)) {
    eventually("no scope", || scopes().is_empty().then_some(()));
    let mut owner = Owner::start();
    let start = Instant::now();
    owner.ok("new cgroup");
    let whole = start.elapsed();
    drop(owner);
    const MOMENTS: u32 = 100;
    for moment in 0..MOMENTS {
        let mut owner = Owner::start();
        writeln!(owner.requests, "new cgroup").expect("it listens");
        std::thread::sleep(whole * moment / MOMENTS);
        kill(owner);
    }
    eventually("no scope", || scopes().is_empty().then_some(()));
}

/// An owner killed at any moment of the making of its scope leaves none.
#[test]
fn owner_killed_while_its_scope_is_made() {
    let Some(_alone) = guest() else { return };
    at_any_moment_of_the_making_of_a_scope(drop);
}

/// A guard killed at any moment of the making of its scope leaves none.
#[test]
fn guard_killed_while_its_scope_is_made() {
    let Some(_alone) = guest() else { return };
    at_any_moment_of_the_making_of_a_scope(|mut owner| {
        let is_guard = |pid: &i32| proc::stat(*pid).is_some_and(|stat| stat.comm == "onejob-guard");
        proc::all().into_iter().filter(is_guard).for_each(proc::kill);
        // A job, or the reason why there is none.
        owner.answers.next().expect("an answer").expect("text");
    });
}

/// A manager that hangs is passed over in two seconds and leaves no scope later.
#[test]
fn hanging_manager_is_skipped_in_two_seconds() {
    let Some(_alone) = guest() else { return };
    eventually("no scope", || scopes().is_empty().then_some(()));
    let stopped = Stopped::the_user_manager();
    let mut owner = Owner::start();
    // The machine may stall: the best of three.
    let tries = (0..3).map(|_| {
        let start = Instant::now();
        owner.ok("new");
        start.elapsed()
    });
    let best = tries.min().expect("three");
    assert!((Duration::from_secs(1)..Duration::from_millis(2500)).contains(&best), "{best:?}");
    let given = owner.ok("guarantees");
    assert!(given.contains("kill=converging"), "the next mechanism: {given}");
    let mut doctor = Command::new(Bins::get().onejob());
    doctor.arg("doctor").uid(USER).gid(USER).env_clear().env("XDG_RUNTIME_DIR", "/run/user/1000");
    let said = String::from_utf8(doctor.output().expect("it starts").stdout).expect("text");
    assert!(said.contains("systemd makes no scope") && said.contains("does not answer"), "{said}");
    drop(stopped);
    // Answered in turn: when there is one for this owner, all that was asked before has been done.
    let mut next = Owner::start();
    let (_, scope) = next.job();
    eventually("no other scope", || (scopes() == [scope.clone()]).then_some(()));
    drop(next);
    eventually("no scope", || scopes().is_empty().then_some(()));
}
