//! Cgroups of owners that were killed together with their guards, with members that cannot be killed.
//!
//! The tests use members that a v1 freezer has frozen instead of members that are stuck in the kernel: SIGKILL
//! does not end them before they are thawed.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use testkit::{
    Bins, Bystanders, Environment, GUARD, Helper, Owner, Report, Sandbox, eventually, proc,
};

const ENVIRONMENT: Environment = Environment::CgroupRoot;

/// A cgroup of the v1 freezer. Its members are frozen until this is dropped.
struct Freezer(PathBuf);

impl Freezer {
    /// `None` if this host has no v1 freezer, or the tests cannot use cgroups as root.
    fn new() -> Option<Freezer> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = format!("/sys/fs/cgroup/freezer/testkit-{}-{number}", std::process::id());
        if !Environment::here().contains(&ENVIRONMENT) || fs::create_dir(&dir).is_err() {
            eprintln!("SKIPPED: no v1 freezer here, or no Cgroup jobs as root");
            return None;
        }
        Some(Freezer(dir.into()))
    }

    /// Adds a process to the frozen ones.
    fn freeze(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("a living process");
        fs::write(self.0.join("freezer.state"), "FROZEN").expect("a freezer");
        eventually("a frozen process", || {
            let state = fs::read_to_string(self.0.join("freezer.state")).ok()?;
            (state.trim() == "FROZEN").then_some(())
        });
    }

    fn thaw(&self) {
        fs::write(self.0.join("freezer.state"), "THAWED").expect("a freezer");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        eventually("an empty freezer", || fs::remove_dir(&self.0).ok());
    }
}

/// An owner of a job with one member.
fn owner_of_one(sandbox: &mut Sandbox) -> (Owner, Helper) {
    let mut owner = Owner::start(sandbox, ENVIRONMENT);
    owner.new_job();
    let member = member_of(&mut owner, sandbox);
    (owner, member)
}

fn member_of(owner: &mut Owner, sandbox: &Sandbox) -> Helper {
    let report = Report::new();
    owner.ok(&format!("spawn {} sleep {}", Bins::get().helper().display(), report.arg()));
    report.helper(sandbox, "sleeper")
}

fn guards(sandbox: &Sandbox) -> Vec<i32> {
    sandbox.named(GUARD)
}

/// Makes a job with a frozen member, and kills its owner and its guards.
fn abandon_frozen_job(sandbox: &mut Sandbox, freezer: &Freezer) -> Helper {
    let before = guards(sandbox);
    let (owner, member) = owner_of_one(sandbox);
    freezer.freeze(member.pid);
    let mut own = guards(sandbox);
    own.retain(|guard| !before.contains(guard));
    assert_eq!(own.len(), 2, "a pair of guards");
    // The owner last, as `kill_together` demands.
    own.push(owner.pid);
    proc::kill_together(&own);
    member
}

/// The shortest time of five in which an owner makes its first job.
fn shortest_creation(sandbox: &mut Sandbox) -> Duration {
    let one = |_| {
        let mut owner = Owner::start(sandbox, ENVIRONMENT);
        let start = Instant::now();
        owner.ok("new cgroup");
        let time = start.elapsed();
        owner.end();
        time
    };
    (0..5).map(one).min().expect("some")
}

/// Creating a job does not wait for members of abandoned jobs that cannot be killed.
#[test]
fn a_start_beside_stuck_leftovers_is_not_delayed() {
    let Some(freezer) = Freezer::new() else { return };
    let mut sandbox = Sandbox::new(ENVIRONMENT);
    let alone = shortest_creation(&mut sandbox);
    (0..5).for_each(|_| drop(abandon_frozen_job(&mut sandbox, &freezer)));
    let beside = shortest_creation(&mut sandbox);
    eprintln!("alone {alone:?}, beside five stuck leftovers {beside:?}");
    assert!(beside < alone + Duration::from_millis(500), "{beside:?}, but alone {alone:?}");
    freezer.thaw();
    // The guards of the last owner may have ended before they removed the abandoned jobs.
    let mut last = Owner::start(&mut sandbox, ENVIRONMENT);
    last.new_job();
    eventually("the removal of the abandoned cgroups", || {
        (sandbox.nested_cgroups().len() == 1).then_some(())
    });
    last.end();
    sandbox.wait_until_empty(|_| false);
}

/// The guards of a live owner end an abandoned job as soon as its member is thawed, without a new job.
#[test]
fn a_leftover_that_is_thawed_later_is_removed() {
    let Some(freezer) = Freezer::new() else { return };
    let mut sandbox = Sandbox::new(ENVIRONMENT);
    let member = abandon_frozen_job(&mut sandbox, &freezer);
    let (mut owner, other) = owner_of_one(&mut sandbox);
    let mut bystanders = Bystanders::beside(&sandbox, owner.group());
    // Long enough for several attempts.
    let calls = switches(&guards(&sandbox));
    thread::sleep(Duration::from_secs(2));
    assert!(proc::is_alive(member.pid), "it is frozen");
    let calls = switches(&guards(&sandbox)) - calls;
    assert!(calls < 40, "the guards woke up {calls} times in two seconds");
    freezer.thaw();
    eventually("the end of a thawed member", || (!proc::is_alive(member.pid)).then_some(()));
    // One is left: that of the live owner.
    eventually("the removal of the abandoned cgroups", || {
        (sandbox.nested_cgroups().len() == 1).then_some(())
    });
    assert!(proc::is_alive(other.pid), "a member of a live owner's job died");
    assert_eq!(owner.list(), [other.inner], "the owner can still list its job");
    owner.end();
    sandbox.wait_until_empty(|_| false);
    bystanders.assert_alive();
}

/// How often these processes have blocked.
fn switches(pids: &[i32]) -> usize {
    let of = |pid: &i32| proc::status(*pid, "voluntary_ctxt_switches")?.parse::<usize>().ok();
    pids.iter().filter_map(of).sum()
}

/// Guards of a dead owner end its other jobs at once, sleep while one job cannot be ended, and end it later.
#[test]
fn guards_sleep_while_a_member_is_stuck() {
    let Some(freezer) = Freezer::new() else { return };
    let mut sandbox = Sandbox::new(ENVIRONMENT);
    let (mut owner, member) = owner_of_one(&mut sandbox);
    // Their names sort before and after that of the frozen job, so both orders occur.
    owner.ok("many 3 cgroup");
    freezer.freeze(member.pid);
    let pair = guards(&sandbox);
    owner.kill();
    eventually("the end of the other jobs", || (sandbox.nested_cgroups().len() == 1).then_some(()));
    let calls = switches(&pair);
    thread::sleep(Duration::from_secs(3));
    let calls = switches(&pair) - calls;
    assert!(calls < 40, "the guards woke up {calls} times in three seconds");
    assert_eq!(guards(&sandbox).len(), 2, "both guards wait for the frozen member");
    freezer.thaw();
    sandbox.wait_until_empty(|_| false);
}

/// `onejob ls` and `onejob doctor` name the member that cannot be killed, and the reason.
#[test]
fn a_stuck_leftover_is_named_with_its_reason() {
    let Some(freezer) = Freezer::new() else { return };
    let mut sandbox = Sandbox::new(ENVIRONMENT);
    let member = abandon_frozen_job(&mut sandbox, &freezer);
    for words in [["ls", "--json"], ["doctor", "--json"], ["ls", "--"], ["doctor", "--"]] {
        let onejob = sandbox.start(&Bins::get().onejob(), |command| {
            let words = words.into_iter().filter(|word| *word != "--");
            command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        });
        let start = Instant::now();
        let output = onejob.wait_with_output().expect("a child of this process");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(text.contains(&format!("process {}", member.pid)), "{words:?}: {text}");
        assert!(text.contains("frozen by the cgroup v1 freezer"), "{words:?}: {text}");
        eprintln!("{words:?} took {:?}", start.elapsed());
    }
    freezer.thaw();
    let mut next = Owner::start(&mut sandbox, ENVIRONMENT);
    next.new_job();
    eventually("the end of a thawed member", || (!proc::is_alive(member.pid)).then_some(()));
    next.end();
    sandbox.wait_until_empty(|_| false);
}
