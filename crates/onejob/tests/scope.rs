//! A scope exists as long as its owner has jobs, also if the service manager is restarted or hangs.
//!
//! These tests need systemd, root, and an ordinary user with a service manager: the guest of
//! `scripts/test-vm systemd` has them.
#![cfg(target_os = "linux")]

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use testkit::{Bins, GUARD, LineProcess, Report, cgroup, eventually, proc};

const USER: u32 = 1000;

/// `None` outside of the guest: these tests stop and restart the service manager of a user, with all of its
/// services. The tests run one at a time.
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

/// The program `owner` as the ordinary user, in the cgroup of root, which is not delegated to that user.
struct Owner(LineProcess);

impl Owner {
    fn start() -> Owner {
        let mut owner = Command::new(Bins::get().owner());
        owner.uid(USER).gid(USER).env_clear().env("XDG_RUNTIME_DIR", "/run/user/1000");
        owner.env("PATH", "/usr/bin:/bin").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut owner = LineProcess::of(owner.spawn().expect("started"));
        owner.receive("the start").expect("a greeting");
        Owner(owner)
    }

    /// Makes a job with a member that has left the session. Returns the member and its scope.
    fn job(&mut self) -> (i32, PathBuf) {
        let report = Report::new();
        self.0.ok("new cgroup");
        self.0.ok(&format!("spawn {} setsid {}", Bins::get().helper().display(), report.arg()));
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

fn is_gone(pid: i32) -> Option<()> {
    (!proc::is_alive(pid)).then_some(())
}

#[track_caller]
fn scope_is_gone(scope: &Path) {
    eventually("the end of the scope", || (!scope.exists()).then_some(()));
}

/// The scope is removed when its owner drops the job or is killed.
#[test]
fn scope_is_removed_with_its_owner() {
    let Some(_alone) = guest() else { return };
    for killed in [false, true] {
        let mut owner = Owner::start();
        let (escapee, scope) = owner.job();
        match killed {
            true => owner.0.kill(),
            false => drop(owner.0.ok("drop")),
        }
        drop(owner);
        eventually("the end of the members", || is_gone(escapee));
        scope_is_gone(&scope);
    }
}

/// The two guards of an owner, in their own cgroup of the scope.
fn guards(scope: &Path) -> Vec<i32> {
    let pids = cgroup::pids(&scope.join("guards"));
    assert_eq!(pids.len(), 2, "the cgroup of the guards: {pids:?}");
    pids
}

#[test]
fn a_killed_guard_leaves_nothing_behind() {
    let Some(_alone) = guest() else { return };
    // One guard is killed, then the owner.
    for which in [0, 1] {
        let mut owner = Owner::start();
        let (escapee, scope) = owner.job();
        let guard = guards(&scope)[which];
        proc::kill(guard);
        eventually("the end of the guard", || is_gone(guard));
        assert!(proc::is_alive(escapee), "the job continues");
        owner.0.kill();
        eventually("the end of the members", || is_gone(escapee));
        scope_is_gone(&scope);
    }
    // Both guards and the owner are killed together: the next owner of this user ends the job.
    let mut owner = Owner::start();
    let (escapee, scope) = owner.job();
    proc::kill_together(&[guards(&scope), vec![owner.0.pid()]].concat());
    drop(owner);
    assert!(proc::is_alive(escapee), "no process was left that could end it");
    let mut next = Owner::start();
    next.job();
    eventually("the end of the abandoned member", || is_gone(escapee));
    scope_is_gone(&scope);
}

/// A scope whose guards are dead is removed when its owner or another owner ends its members.
#[test]
fn scope_with_dead_guards_is_removed() {
    let Some(_alone) = guest() else { return };
    for _ in 0..10 {
        // The owner ends them, …
        let mut owner = Owner::start();
        let (escapee, scope) = owner.job();
        proc::kill_together(&guards(&scope));
        owner.0.ok("stop 1");
        assert!(!proc::is_alive(escapee));
        scope_is_gone(&scope);
        // … or another owner, if the owner is dead too.
        let (escapee, scope) = owner.job();
        proc::kill_together(&[guards(&scope), vec![owner.0.pid()]].concat());
        drop(owner);
        let mut next = Owner::start();
        let (_, other) = next.job();
        eventually("the end of the abandoned member", || is_gone(escapee));
        scope_is_gone(&scope);
        drop(next);
        scope_is_gone(&other);
    }
}

/// A restart of the user's service manager ends the job, and the owner sees an empty job.
#[test]
fn restarted_user_manager_ends_the_job() {
    let Some(_alone) = guest() else { return };
    let mut owner = Owner::start();
    let (escapee, scope) = owner.job();
    let restarted = Command::new("systemctl").args(["restart", "user@1000.service"]).status();
    assert!(restarted.expect("systemctl").success());
    eventually("the end of the members", || is_gone(escapee));
    scope_is_gone(&scope);
    assert_eq!(owner.0.ok("empty"), "true");
    owner.0.ok("wait");
    owner.0.ok("kill");
    assert_eq!(owner.0.ok("list"), "");
    owner.0.ok("drop");
    eventually("the user manager", || Path::new("/run/user/1000/bus").exists().then_some(()));
    let (_, another) = owner.job();
    assert_ne!(scope, another, "a new scope");
}

/// A process that is stopped until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn the_user_manager() -> Stopped {
        let show = ["show", "--property=MainPID", "--value", "user@1000.service"];
        let said = Command::new("systemctl").args(show).output().expect("systemctl").stdout;
        let pid = String::from_utf8_lossy(&said).trim().parse().expect("a pid");
        proc::signal(pid, rustix::process::Signal::STOP);
        eventually("a stopped manager", || (proc::stat(pid)?.state == 'T').then_some(()));
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        proc::signal(self.0, rustix::process::Signal::CONT);
    }
}

/// The scopes of onejob on this host.
fn scopes() -> Vec<PathBuf> {
    let all = cgroup::with_descendants(Path::new("/sys/fs/cgroup"));
    let is_ours = |dir: &PathBuf| {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("onejob-") && name.ends_with(".scope")
    };
    all.into_iter().filter(is_ours).collect()
}

/// Calls `kill` at a hundred moments while an owner makes its first job with its scope.
fn at_moments_of_scope_creation(mut kill: impl FnMut(Owner)) {
    eventually("no scope", || scopes().is_empty().then_some(()));
    let mut owner = Owner::start();
    let start = Instant::now();
    owner.0.ok("new cgroup");
    let total = start.elapsed();
    drop(owner);
    const MOMENTS: u32 = 100;
    for moment in 0..MOMENTS {
        let mut owner = Owner::start();
        owner.0.send("new cgroup");
        std::thread::sleep(total * moment / MOMENTS);
        kill(owner);
    }
    eventually("no scope", || scopes().is_empty().then_some(()));
}

/// No scope is left if the owner is killed while its scope is made.
#[test]
fn owner_killed_while_its_scope_is_made() {
    let Some(_alone) = guest() else { return };
    at_moments_of_scope_creation(drop);
}

/// No scope is left if a guard is killed while the scope is made.
#[test]
fn guard_killed_while_its_scope_is_made() {
    let Some(_alone) = guest() else { return };
    at_moments_of_scope_creation(|mut owner| {
        let is_guard = |pid: &i32| proc::stat(*pid).is_some_and(|stat| stat.comm == GUARD);
        proc::all().into_iter().filter(is_guard).for_each(proc::kill);
        // A job or an error.
        let _ = owner.0.receive("new cgroup");
    });
}

/// If the service manager hangs, another mechanism is used after two seconds, and no scope appears later.
#[test]
fn hanging_manager_is_skipped_in_two_seconds() {
    let Some(_alone) = guest() else { return };
    eventually("no scope", || scopes().is_empty().then_some(()));
    let stopped = Stopped::the_user_manager();
    let mut owner = Owner::start();
    // The shortest of three, since the machine may stall.
    let tries = (0..3).map(|_| {
        let start = Instant::now();
        owner.0.ok("new");
        start.elapsed()
    });
    let best = tries.min().expect("three");
    assert!((Duration::from_secs(1)..Duration::from_millis(2500)).contains(&best), "{best:?}");
    let given = owner.0.ok("guarantees");
    assert!(given.contains("kill=converging"), "the next mechanism: {given}");
    let mut doctor = Command::new(Bins::get().onejob());
    doctor.arg("doctor").uid(USER).gid(USER).env_clear().env("XDG_RUNTIME_DIR", "/run/user/1000");
    let said = String::from_utf8(doctor.output().expect("it starts").stdout).expect("text");
    assert!(said.contains("systemd makes no scope") && said.contains("does not answer"), "{said}");
    drop(stopped);
    // The manager handles requests in order: once it has made this scope, it has handled the earlier ones.
    let mut next = Owner::start();
    let (_, scope) = next.job();
    eventually("no other scope", || (scopes() == [scope.clone()]).then_some(()));
    drop(next);
    eventually("no scope", || scopes().is_empty().then_some(()));
}
