//! An owner that changes from root to an ordinary user after it has made a job.
#![cfg(target_os = "linux")]

mod common;

use std::time::Duration;

use common::{alone, is_alone};
use onejob::{Command, Freeze, Job, Kill, Mechanism};
use testkit::{Environment, proc};

const ORDINARY: u32 = 54_321;

/// Makes a job in a cgroup with two members as root, then changes to an ordinary user.
fn job_of_former_root(name: &str) -> Option<(Job, Vec<i32>)> {
    if !Environment::here().contains(&Environment::CgroupRoot) {
        eprintln!("SKIPPED: only root can make cgroups here");
        return None;
    }
    if !alone(name, |_| {}) {
        return None;
    }
    Some(make(Mechanism::Cgroup))
}

/// Runs the test with the job of each mechanism, in a process of its own.
fn for_each_former_root(name: &str, test: impl Fn(Mechanism, Job, &[i32])) {
    const MECHANISM: &str = "ONEJOB_TEST_MECHANISM";
    if is_alone(name) {
        let mechanism = std::env::var(MECHANISM).expect("a mechanism").parse().expect("its name");
        let (job, members) = make(mechanism);
        return test(mechanism, job, &members);
    }
    let here = Environment::here();
    for (environment, mechanism) in [
        (Environment::CgroupRoot, Mechanism::Cgroup),
        (Environment::SubreaperRoot, Mechanism::Subreaper),
    ] {
        match here.contains(&environment) {
            true => _ = alone(name, |test| _ = test.env(MECHANISM, mechanism.to_string())),
            false => eprintln!("SKIPPED: {mechanism}: not as root here"),
        }
    }
}

fn make(mechanism: Mechanism) -> (Job, Vec<i32>) {
    let job = Job::builder().mechanism(mechanism).build().expect("a job");
    let start = || job.spawn(Command::new("sleep").arg("300")).expect("started").pid() as i32;
    let members = vec![start(), start()];
    // SAFETY: the calls take numbers. The C library makes them for all threads.
    unsafe {
        assert_eq!(libc::setresgid(ORDINARY, ORDINARY, ORDINARY), 0);
        assert_eq!(libc::setresuid(ORDINARY, ORDINARY, ORDINARY), 0);
    }
    (job, members)
}

fn alive(members: &[i32]) -> Vec<i32> {
    members.iter().copied().filter(|pid| proc::is_alive(*pid)).collect()
}

/// An operation for which the owner lacks the permission is an error, not an empty job. The guarantees are
/// true.
#[test]
fn what_may_not_be_seen_is_an_error() {
    let Some((job, members)) = job_of_former_root("what_may_not_be_seen_is_an_error") else {
        return;
    };
    for (what, error) in [
        ("processes", job.processes().err()),
        ("pids", job.pids().err()),
        ("is_empty", job.is_empty().err()),
        ("signal", job.signal(onejob::Signal::TERM).err()),
        ("stats", job.stats().err()),
        ("freeze", job.freeze().err()),
    ] {
        let error = error.unwrap_or_else(|| panic!("{what} succeeds"));
        assert!(error.is_permission_denied(), "{what}: {error}");
    }
    let given = job.guarantees();
    assert_eq!((given.kill, given.freeze), (Kill::Atomic, Freeze::None), "{given}");
    assert_eq!(alive(&members), members);
}

/// The guards still run as root: they kill and stop the members.
#[test]
fn the_guards_kill_what_the_owner_may_not() {
    for_each_former_root("the_guards_kill_what_the_owner_may_not", |mechanism, job, members| {
        assert_eq!(job.guarantees().freeze, Freeze::None);
        assert!(job.guarantees().kill > Kill::BestEffort, "{mechanism}: {}", job.guarantees());
        job.kill().expect("killed");
        assert_eq!(alive(members), [0; 0], "{mechanism}");
        assert!(mechanism == Mechanism::Cgroup || job.is_empty().expect("observable"));
    });
}

#[test]
fn the_guards_stop_what_the_owner_may_not() {
    for_each_former_root("the_guards_stop_what_the_owner_may_not", |mechanism, job, members| {
        job.stop(Duration::from_millis(50)).expect("stopped");
        assert_eq!(alive(members), [0; 0], "{mechanism}");
    });
}

#[test]
fn a_drop_leaves_no_member() {
    for_each_former_root("a_drop_leaves_no_member", |mechanism, job, members| {
        drop(job);
        assert_eq!(alive(members), [0; 0], "{mechanism}");
    });
}

/// A new job uses a mechanism that is available to the ordinary user.
#[test]
fn a_new_job_uses_the_next_mechanism() {
    let Some((job, _)) = job_of_former_root("a_new_job_uses_the_next_mechanism") else { return };
    let next = Job::new().expect("a job");
    assert_eq!(next.guarantees().mechanism, Mechanism::Subreaper);
    let mut child = next.spawn(Command::new("true")).expect("started");
    assert!(child.wait().expect("a status").success());
    drop((next, job));
}
