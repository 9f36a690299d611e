//! onejob never acts on a process that has got the pid of another process.
//!
//! Each test runs in a PID namespace of its own. It kills the target, waits until it is reaped, and starts a
//! bystander with the same pid: between two calls, or during the call under test, which `strace` delays
//! between the check of the pid and the action. The bystander counts every signal. A plain `kill(2)` at the
//! end, which ends the bystander, proves that it has the pid.
#![cfg(target_os = "linux")]

mod bystander;
mod space;
mod window;

use std::{process::Command as StdCommand, time::Duration};

use bystander::{Bystander, await_free, kill};
use onejob::{Command, Job, Mechanism, ProcessId, Signal, Stdio, stop_tree};
use rustix::process::PidfdFlags;
use space::{inside, inside_without};
use testkit::{Bins, Environment, LineProcess, Owner, Report, Sandbox, eventually, proc};

const GRACE: Duration = Duration::from_millis(100);

fn member() -> Command {
    let mut command = Command::new(Bins::get().helper());
    command.args(["sleep", "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// No operation reaches a bystander that has the pid of a dead member.
#[test]
fn nothing_reaches_a_process_with_a_reused_pid() {
    if inside("nothing_reaches_a_process_with_a_reused_pid") {
        spares_the_bystander();
    }
}

/// Before Linux 6.9 pidfds have no inodes: a stored identity is a pid and a start time, which distinguishes
/// processes that were started in different clock ticks.
#[test]
fn nothing_reaches_a_reused_pid_without_inodes() {
    const NAME: &str = "nothing_reaches_a_reused_pid_without_inodes";
    if inside_without(NAME, Some("pidfs")) {
        assert!(!has_inodes(), "the filter does not hide the inodes");
        spares_the_bystander();
    }
}

fn has_inodes() -> bool {
    const PID_FS_MAGIC: i128 = 0x5049_4446;
    let me = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(me, PidfdFlags::empty()).expect("Linux 5.3");
    rustix::fs::fstatfs(pidfd).is_ok_and(|fs| i128::from(fs.f_type) == PID_FS_MAGIC)
}

/// Waits until a new process has another start time than this one.
fn await_another_tick(pid: i32) {
    let start = proc::stat(pid).expect("alive").start;
    eventually("another tick", || {
        let mut probe = StdCommand::new(Bins::get().helper());
        let mut probe = probe.args(["sleep", "/dev/null"]).spawn().expect("the helper starts");
        let born = proc::stat(probe.id() as i32).expect("not yet waited for").start;
        probe.kill().expect("a child of this process");
        probe.wait().expect("a child of this process");
        (born != start).then_some(())
    });
}

fn spares_the_bystander() {
    let mut mechanisms = vec![Mechanism::Cgroup, Mechanism::Subreaper];
    // This prints which mechanisms are left out.
    mechanisms.retain(|mechanism| {
        Environment::here()
            .iter()
            .any(|environment| environment.mechanism() == mechanism.to_string())
    });
    for mechanism in mechanisms {
        let job = Job::builder().mechanism(mechanism).build().expect("a job");
        let _sibling = job.spawn(member()).expect("a member");
        let target = job.spawn(member()).expect("a member");
        let number = target.pid();
        let listed = job.processes().expect("a list");
        let listed = listed.iter().find(|process| process.pid() == number).expect("listed").id;
        let id = target.id();
        if !has_inodes() {
            await_another_tick(number as i32);
        }
        kill(number as i32);
        // Reaped without the library, which does not know yet that the member has ended.
        if mechanism == Mechanism::Cgroup {
            let pid = rustix::process::Pid::from_raw(number as i32);
            rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())
                .expect("a file of this test");
        }
        let mut bystander = Bystander::with_number(number as i32);

        assert_ne!(ProcessId::of(number).expect("the bystander"), id);
        for stale in [id, listed] {
            let error = stop_tree(&stale, Signal::TERM, GRACE).expect_err("a dead root");
            assert!(error.is_stale(), "{error}");
            let error = job.adopt(&stale).expect_err("a dead process");
            assert!(error.is_stale() || mechanism == Mechanism::Subreaper, "{error}");
        }
        target.signal(Signal::KILL).expect("the target is gone");
        let members = job.processes().expect("a list");
        assert!(members.iter().all(|member| member.pid() != number), "{members:?}");
        assert_eq!(job.signal(Signal::URG).expect("a member"), 1);
        job.freeze().expect("a frozen job");
        job.thaw().expect("a thawed job");
        job.stop(GRACE).expect("an empty job");
        job.kill().expect("an empty job");
        drop(job);
        bystander.is_untouched();
        bystander.dies_by_its_number();
    }
}

/// The guards do not kill a bystander that has the pid of their owner.
#[test]
fn guards_with_a_reused_owner_pid() {
    if !inside("guards_with_a_reused_owner_pid") {
        return;
    }
    for environment in [Environment::CgroupRoot, Environment::SubreaperRoot] {
        let (mut sandbox, report) = (Sandbox::new(environment), Report::new());
        let (mut owner, number) = follower(&mut sandbox);
        let daemon =
            window::daemon(&mut |request| owner.ok(request), environment, &sandbox, &report);
        let guards = guards(&sandbox);
        proc::stop_together(&guards);
        kill(number);
        let mut bystander = Bystander::with_number(number);
        assert!(proc::is_alive(daemon), "the guards are stopped");
        guards.iter().for_each(|pid| bystander::signal(*pid, rustix::process::Signal::CONT));
        owner.end();
        sandbox.wait_until_empty(|_| false);
        bystander.is_untouched();
        bystander.dies_by_its_number();
    }
}

/// An owner that does not lead its process group: the kernel does not reuse a pid that is also the id of an
/// existing process group, and the inner guard is in the group of its owner. A shell leads the group until its
/// input ends: in an orphaned group the kernel would continue stopped processes.
fn follower(sandbox: &mut Sandbox) -> (LineProcess, i32) {
    let owner = Bins::get().owner();
    let mut shell = LineProcess::start(sandbox, "/bin/sh".as_ref(), |shell| {
        shell.args(["-c", "\"$0\"; read line; true"]).arg(owner);
    });
    let number = shell.receive("the start").expect("a greeting").parse().expect("a pid");
    (shell, number)
}

/// Both guards, in any order.
fn guards(sandbox: &Sandbox) -> Vec<i32> {
    eventually("two guards", || {
        let living = sandbox
            .live()
            .into_iter()
            .filter(|living| living.stat.as_ref().is_some_and(|stat| stat.comm == "onejob-guard"));
        let guards: Vec<_> = living.map(|living| living.pid).collect();
        (guards.len() == 2).then_some(guards)
    })
}

/// The cleanup of an abandoned job does not kill bystanders that have the pids of its processes.
#[test]
fn abandoned_job_with_all_pids_reused() {
    if !inside("abandoned_job_with_all_pids_reused") {
        return;
    }
    let environment = Environment::CgroupRoot;
    let (mut sandbox, report) = (Sandbox::new(environment), Report::new());
    let (mut owner, number) = follower(&mut sandbox);
    let member = window::daemon(&mut |request| owner.ok(request), environment, &sandbox, &report);
    owner.ok(&format!("spawn {} sleep {}", Bins::get().helper().display(), report.arg()));
    let abandoned = report.helper(&sandbox, "sleeper").pid;
    let mut numbers = guards(&sandbox);
    numbers.extend([number, member]);
    proc::stop_together(&numbers);
    numbers.iter().for_each(|pid| kill(*pid));
    let mut bystanders: Vec<_> = numbers.into_iter().map(Bystander::with_number).collect();
    assert!(proc::is_alive(abandoned));
    let mut next = Owner::start(&mut sandbox, environment);
    next.new_job();
    await_free(abandoned);
    owner.end();
    next.end();
    sandbox.wait_until_empty(|_| false);
    bystanders.iter_mut().for_each(Bystander::is_untouched);
    bystanders.into_iter().for_each(Bystander::dies_by_its_number);
}

/// `onejob kill` does not kill a bystander that gets the pid of the root before the root's pidfd is open.
#[test]
fn onejob_kill_with_a_reused_root_pid() {
    if !inside("onejob_kill_with_a_reused_root_pid") {
        return;
    }
    window::in_time(|| {
        let mut root = StdCommand::new(Bins::get().helper());
        let mut root = root.args(["sleep", "/dev/null"]).spawn().expect("the helper starts");
        let number = root.id() as i32;
        let command = window::Slow::start(
            &[&Bins::get().onejob().display().to_string(), "kill", &number.to_string()],
            "pidfd_open",
        );
        // The first call identifies the process, the second one opens the pidfd that is used.
        command.awaits(&format!("pidfd_open({number},"), 2);
        kill(number);
        root.wait().expect("a child of this process");
        let mut bystander = Bystander::with_number(number);
        let in_time = !command.is_past(&format!("pidfd_open({number},"), 2);
        command.ends();
        bystander.is_untouched();
        bystander.dies_by_its_number();
        in_time
    });
}

/// `onejob kill` does not kill a bystander that gets the pid of a descendant.
#[test]
fn onejob_kill_with_a_reused_descendant_pid() {
    if !inside("onejob_kill_with_a_reused_descendant_pid") {
        return;
    }
    window::in_time(|| {
        let (mut root, child) = window::auto_reaping_parent();
        let command = window::Slow::start(
            &[&Bins::get().onejob().display().to_string(), "kill", &root.id().to_string()],
            "pidfd_open",
        );
        let look = format!("pidfd_open({child},");
        command.awaits(&look, 1);
        kill(child);
        let mut bystander = Bystander::with_number(child);
        let in_time = !command.is_past(&look, 1);
        command.ends();
        assert!(!root.wait().expect("a child of this process").success(), "the root was ended");
        bystander.is_untouched();
        bystander.dies_by_its_number();
        in_time
    });
}
