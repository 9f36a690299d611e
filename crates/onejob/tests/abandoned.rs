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

const SETTING: Environment = Environment::CgroupRoot;

/// A cgroup of the v1 freezer, whose members are frozen until this is dropped.
struct Freezer(PathBuf);

impl Freezer {
    /// `None` where there is no v1 freezer, or jobs in cgroups are not to be tested.
    fn new() -> Option<Freezer> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = format!("/sys/fs/cgroup/freezer/testcell-{}-{number}", std::process::id());
        if !Environment::here().contains(&SETTING) || fs::create_dir(&dir).is_err() {
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
fn owner_of_one(cell: &mut Sandbox) -> (Owner, Helper) {
    let mut owner = Owner::start(cell, SETTING);
    owner.new_job();
    let member = member_of(&mut owner, cell);
    (owner, member)
}

fn member_of(owner: &mut Owner, cell: &Sandbox) -> Helper {
    let report = Report::new();
    owner.ok(&format!("spawn {} sleep {}", Bins::get().actor().display(), report.arg()));
    report.helper(cell, "sleeper")
}

fn guards(cell: &Sandbox) -> Vec<i32> {
    let living = cell.live().into_iter();
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
fn leave_stuck(cell: &mut Sandbox, freezer: &Freezer) -> Helper {
    let before = guards(cell);
    let (mut owner, member) = owner_of_one(cell);
    freezer.freeze(member.pid);
    let mut own = guards(cell);
    own.retain(|guard| !before.contains(guard));
    assert_eq!(own.len(), 2, "a pair of guards");
    kill_together(&mut owner, &own);
    member
}

/// The shortest of some starts.
fn shortest_start(cell: &mut Sandbox) -> Duration {
    let one = |_| {
        let mut owner = Owner::start(cell, SETTING);
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
    let mut cell = Sandbox::new(SETTING);
    let alone = shortest_start(&mut cell);
    (0..5).for_each(|_| drop(leave_stuck(&mut cell, &freezer)));
    let beside = shortest_start(&mut cell);
    eprintln!("alone {alone:?}, beside five stuck leftovers {beside:?}");
    assert!(beside < alone + Duration::from_millis(500), "{beside:?}, but alone {alone:?}");
    freezer.thaw();
    // The guards of the last owner may not have come to it.
    let mut last = Owner::start(&mut cell, SETTING);
    last.new_job();
    eventually("the removal of what was left", || (cell.nested_cgroups().len() == 1).then_some(()));
    last.end();
    cell.wait_until_empty(|_| false);
}

/// The guards of a living owner end what is left once it can be ended, without a further start.
#[test]
fn a_leftover_that_is_thawed_later_is_removed() {
    let Some(freezer) = Freezer::new() else { return };
    let mut cell = Sandbox::new(SETTING);
    let member = leave_stuck(&mut cell, &freezer);
    let (mut owner, other) = owner_of_one(&mut cell);
    let mut bystanders = Bystanders::beside(&cell, owner.group());
    // Long enough for some looks that find it stuck.
    let calls = switches(&guards(&cell));
    thread::sleep(Duration::from_secs(2));
    assert!(proc::is_alive(member.pid), "it is frozen");
    let calls = switches(&guards(&cell)) - calls;
    assert!(calls < 40, "the guards woke up {calls} times in two seconds");
    freezer.thaw();
    eventually("the end of a thawed member", || (!proc::is_alive(member.pid)).then_some(()));
    // The living owner's is one.
    eventually("the removal of what was left", || (cell.nested_cgroups().len() == 1).then_some(()));
    assert!(proc::is_alive(other.pid), "HIT a member of a living owner");
    assert_eq!(owner.list(), [other.inner], "the guards serve their owner");
    owner.end();
    cell.wait_until_empty(|_| false);
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
    let mut cell = Sandbox::new(SETTING);
    let (mut owner, member) = owner_of_one(&mut cell);
    // Its name comes before or after that of the stuck one, so both orders are played.
    owner.ok("many 3 cgroup");
    freezer.freeze(member.pid);
    let pair = guards(&cell);
    owner.kill();
    eventually("the end of the other jobs", || (cell.nested_cgroups().len() == 1).then_some(()));
    let calls = switches(&pair);
    thread::sleep(Duration::from_secs(3));
    let calls = switches(&pair) - calls;
    assert!(calls < 40, "the guards woke up {calls} times in three seconds");
    assert_eq!(guards(&cell).len(), 2, "both wait for the stuck member");
    freezer.thaw();
    cell.wait_until_empty(|_| false);
}

/// `ls` and `doctor` show what is stuck, and why.
#[test]
fn a_stuck_leftover_is_named_with_its_reason() {
    let Some(freezer) = Freezer::new() else { return };
    let mut cell = Sandbox::new(SETTING);
    let member = leave_stuck(&mut cell, &freezer);
    for words in [["ls", "--json"], ["doctor", "--json"], ["ls", "--"], ["doctor", "--"]] {
        let onejob = cell.start(&Bins::get().onejob(), |command| {
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
    let mut next = Owner::start(&mut cell, SETTING);
    next.new_job();
    eventually("the end of a thawed member", || (!proc::is_alive(member.pid)).then_some(()));
    next.end();
    cell.wait_until_empty(|_| false);
}
