//! onejob never acts on a process that has got the pid of another process.
//!
//! A test ends the target, closes its handles, and starts processes until the system reuses the pid for a
//! bystander outside of the job. The tests run one at a time in their own program: a pid that another process
//! gets is not free again.
#![cfg(windows)]

use std::{
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use onejob::{Error, Job, ProcessId, Signal, stop_tree};
use testkit::{Bins, Environment, Owner, Report, Sandbox, eventually, proc::Held};

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn helper(scenario: &str, report: &str) -> Command {
    let mut helper = Command::new(Bins::get().helper());
    helper.args([scenario, report]).stdin(Stdio::null()).stdout(Stdio::null());
    helper
}

/// A process with the pid of an earlier process.
struct Bystander(Child);

impl Bystander {
    #[track_caller]
    fn with_number(number: u32) -> Bystander {
        let bystander = eventually("the pid again", || {
            // Wine sometimes fails to start a process: error 1359.
            let mut next = helper("sleep", Bins::NOWHERE).spawn().ok()?;
            if next.id() == number {
                return Some(next);
            }
            next.kill().expect("ended");
            next.wait().expect("a status");
            None
        });
        Bystander(bystander)
    }

    #[track_caller]
    fn is_untouched(&mut self) {
        assert!(matches!(self.0.try_wait(), Ok(None)), "the bystander was ended");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No operation with the identity of a dead process reaches a bystander that has its pid.
#[test]
fn identity_with_a_reused_pid() {
    let _alone = alone();
    let mut dead = helper("sleep", Bins::NOWHERE).spawn().expect("a process");
    let stale = ProcessId::of(dead.id()).expect("an identity");
    dead.kill().expect("ended");
    dead.wait().expect("a status");
    // The pid is not reused as long as a handle of the dead process is open.
    drop(dead);
    let mut bystander = Bystander::with_number(stale.pid());
    assert_ne!(ProcessId::of(stale.pid()).expect("an identity"), stale, "the identities differ");
    let is_stale = |error: Error| assert!(error.is_stale(), "{error}");
    let job = Job::new().expect("a job");
    is_stale(job.adopt(&stale).expect_err("refused"));
    is_stale(stop_tree(&stale, Signal::TERM, Duration::ZERO).expect_err("refused"));
    assert!(job.is_empty().expect("observable"));
    job.kill().expect("nothing to do");
    bystander.is_untouched();
}

/// Starts an owner with a job. Returns it and the pid of a dead member, an orphan without open handles.
fn owner_of_a_dead_member(sandbox: &mut Sandbox, request: &str) -> (Owner, u32) {
    let mut owner = Owner::start(sandbox, Environment::JobObject);
    let report = Report::new();
    report.go();
    owner.ok(request);
    // A member that stays, so that a kill has an effect.
    owner.ok(&format!("spawn {} sleep {}", Bins::get().helper().display(), Bins::NOWHERE));
    owner.ok(&format!("spawn {} daemon {}", Bins::get().helper().display(), report.arg()));
    owner.ok("child-wait");
    let number = report.helper(sandbox, "escapee").pid;
    let held = Held::open(number).expect("alive");
    assert!(owner.list().contains(&number));
    held.terminate();
    eventually("its end", || (!held.lives()).then_some(()));
    (owner, number as u32)
}

/// No kill of an enclosed job ends a bystander that has the pid of a dead member.
#[test]
fn enclosed_kill_with_a_reused_pid() {
    let _alone = alone();
    let mut sandbox = Sandbox::new(Environment::JobObject);
    let (mut owner, number) = owner_of_a_dead_member(&mut sandbox, "enclose job-object");
    let mut bystander = Bystander::with_number(number);
    assert!(!owner.list().contains(&(number as i32)), "listed");
    for request in ["stop 50", "kill", "drop"] {
        let request_of_member =
            format!("outsider {} sleep {}", Bins::get().helper().display(), Bins::NOWHERE);
        let member: i32 = owner.ok(&request_of_member).parse().expect("a pid");
        owner.ok(request);
        bystander.is_untouched();
        assert!(owner.is_alive() && !Held::open(member).is_some_and(|it| it.lives()), "{request}");
    }
    owner.end();
    bystander.is_untouched();
}

/// No operation on a job reaches a bystander that has the pid of a dead member.
#[test]
fn every_operation_with_a_reused_pid() {
    let _alone = alone();
    let mut sandbox = Sandbox::new(Environment::JobObject);
    let (mut owner, number) = owner_of_a_dead_member(&mut sandbox, "new job-object");
    let mut bystander = Bystander::with_number(number);
    let held = Held::open(number as i32).expect("alive");
    for request in ["freeze", "thaw", "signal KILL", "stop 50", "kill"] {
        owner.ok(request);
        bystander.is_untouched();
    }
    assert!(held.lives());
    owner.end();
    bystander.is_untouched();
}
