//! Cgroups whose owners and guards were killed together, with members that cannot be killed.
//!
//! A member that a v1 freezer holds stands for one that is stuck in the kernel: not even SIGKILL reaches
//! it before it is thawed.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use testkit::{Bins, Bystanders, Environment, Helper, Owner, Report, Sandbox, eventually, proc};

const ENVIRONMENT: Environment = Environment::CgroupRoot;

/// A cgroup of the v1 freezer, whose members are frozen until this is dropped.
struct Freezer(PathBuf);

impl Freezer {
    /// `None` where there is no v1 freezer, or jobs in cgroups are not to be tested.
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

    /// Freezes a process, among those that are frozen already.
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
    let living = sandbox.live().into_iter();
    let is_guard = |living: &testkit::LiveProcess| {
        living.stat.as_ref().is_some_and(|stat| stat.comm == "onejob-guard")
    };
    living.filter(is_guard).map(|living| living.pid).collect()
}

/// Kills an owner and its guards at one moment.
fn kill_together(owner: &mut Owner, guards: &[i32]) {
    let pids: Vec<_> = guards.iter().copied().chain([owner.pid]).collect();
    let open = |pid: &i32| pidfd_open(Pid::from_raw(*pid).expect("a pid"), PidfdFlags::empty());
    let held: Vec<_> = pids.iter().map(|pid| open(pid).expect("a living process")).collect();
    proc::stop_together(&pids);
    held.iter().for_each(|held| pidfd_send_signal(held, Signal::KILL).expect("it lives"));
    for pid in &pids {
        eventually("a dead process", || (!proc::is_alive(*pid)).then_some(()));
    }
}

/// Leaves a job whose member is frozen behind.
fn leave_stuck(sandbox: &mut Sandbox, freezer: &Freezer) -> Helper {
    let before = guards(sandbox);
    let (mut owner, member) = owner_of_one(sandbox);
    freezer.freeze(member.pid);
    let mut own = guards(sandbox);
    own.retain(|guard| !before.contains(guard));
    assert_eq!(own.len(), 2, "a pair of guards");
    kill_together(&mut owner, &own);
    member
}

/// The shortest of some starts.
fn shortest_start(sandbox: &mut Sandbox) -> Duration {
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

/// A start does not wait for members of other owners that cannot die.
#[test]
fn a_start_beside_stuck_leftovers_is_not_delayed() {
    let Some(freezer) = Freezer::new() else { return };
    let mut sandbox = Sandbox::new(ENVIRONMENT);
    let alone = shortest_start(&mut sandbox);
    (0..5).for_each(|_| drop(leave_stuck(&mut sandbox, &freezer)));
    let beside = shortest_start(&mut sandbox);
    eprintln!("alone {alone:?}, beside five stuck leftovers {beside:?}");
    assert!(beside < alone + Duration::from_millis(500), "{beside:?}, but alone {alone:?}");
    freezer.thaw();
    // The guards of the last owner may not have come to it.
    let mut last = Owner::start(&mut sandbox, ENVIRONMENT);
    last.new_job();
    eventually("the removal of what was left", || {
        (sandbox.nested_cgroups().len() == 1).then_some(())
    });
    last.end();
    sandbox.wait_until_empty(|_| false);
}

/// The guards of a living owner end what is left once it can be ended, without a further start.
#[test]
fn a_leftover_that_is_thawed_later_is_removed() {
    let Some(freezer) = Freezer::new() else { return };
    let mut sandbox = Sandbox::new(ENVIRONMENT);
    let member = leave_stuck(&mut sandbox, &freezer);
    let (mut owner, other) = owner_of_one(&mut sandbox);
    let mut bystanders = Bystanders::beside(&sandbox, owner.group());
    // Long enough for some looks that find it stuck.
    let calls = switches(&guards(&sandbox));
    thread::sleep(Duration::from_secs(2));
    assert!(proc::is_alive(member.pid), "it is frozen");
    let calls = switches(&guards(&sandbox)) - calls;
    assert!(calls < 40, "the guards woke up {calls} times in two seconds");
    freezer.thaw();
    eventually("the end of a thawed member", || (!proc::is_alive(member.pid)).then_some(()));
    // The living owner's is one.
    eventually("the removal of what was left", || {
        (sandbox.nested_cgroups().len() == 1).then_some(())
    });
    assert!(proc::is_alive(other.pid), "HIT a member of a living owner");
    assert_eq!(owner.list(), [other.inner], "the guards serve their owner");
    owner.end();
    sandbox.wait_until_empty(|_| false);
    bystanders.assert_alive();
}

/// How often these processes have gone to sleep.
fn switches(pids: &[i32]) -> usize {
    let of = |pid: &i32| proc::status(*pid, "voluntary_ctxt_switches")?.parse::<usize>().ok();
    pids.iter().filter_map(of).sum()
}

/// Guards end every other job of a dead owner at once, sleep while one cannot be ended, and end it then.
#[test]
fn guards_sleep_while_a_member_is_stuck() {
    let Some(freezer) = Freezer::new() else { return };
    let mut sandbox = Sandbox::new(ENVIRONMENT);
    let (mut owner, member) = owner_of_one(&mut sandbox);
    // Its name comes before or after that of the stuck one, so both orders are played.
    owner.ok("many 3 cgroup");
    freezer.freeze(member.pid);
    let pair = guards(&sandbox);
    owner.kill();
    eventually("the end of the other jobs", || (sandbox.nested_cgroups().len() == 1).then_some(()));
    let calls = switches(&pair);
    thread::sleep(Duration::from_secs(3));
    let calls = switches(&pair) - calls;
    assert!(calls < 40, "the guards woke up {calls} times in three seconds");
    assert_eq!(guards(&sandbox).len(), 2, "both wait for the stuck member");
    freezer.thaw();
    sandbox.wait_until_empty(|_| false);
}

/// `ls` and `doctor` show what is stuck, and why.
#[test]
fn a_stuck_leftover_is_named_with_its_reason() {
    let Some(freezer) = Freezer::new() else { return };
    let mut sandbox = Sandbox::new(ENVIRONMENT);
    let member = leave_stuck(&mut sandbox, &freezer);
    for words in [["ls", "--json"], ["doctor", "--json"], ["ls", "--"], ["doctor", "--"]] {
        let onejob = sandbox.start(&Bins::get().onejob(), |command| {
            let words = words.into_iter().filter(|word| *word != "--");
            command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        });
        let start = Instant::now();
        let output = onejob.wait_with_output().expect("our child");
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
