//! A program encloses itself in a job. No method of the job ends the program.
#![cfg(target_os = "linux")]

mod common;

use std::{
    io::Read,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::alone;
use onejob::{Job, Mechanism, OwnerDeath, Signal};
use testkit::eventually;

/// Runs `test` in a new process for each mechanism: enclosing cannot be undone.
fn enclosed(name: &str, test: impl Fn(Job)) {
    for mechanism in ["cgroup", "subreaper"] {
        let chosen = |command: &mut Command| {
            command.env("MECHANISM", mechanism);
        };
        if !alone(name, chosen) {
            continue;
        }
        let mechanism: Mechanism =
            std::env::var("MECHANISM").expect("set above").parse().expect("a mechanism");
        match Job::builder().mechanism(mechanism).enclose() {
            Ok(job) => test(job),
            Err(error) if error.is_unsupported() => testkit::skip(&format!("{mechanism}: {error}")),
            Err(error) => panic!("{mechanism}: {error}"),
        }
        return;
    }
}

/// Starts a process with std.
fn start(script: &str) -> Child {
    Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().expect("started")
}

fn others(job: &Job) -> Vec<u32> {
    let all = job.processes().expect("a list");
    let (own, others): (Vec<_>, Vec<_>) = all.iter().partition(|process| process.is_caller);
    assert_eq!(own.len(), 1, "the caller is marked: {all:?}");
    assert_eq!(own[0].pid(), std::process::id());
    others.into_iter().map(|process| process.pid()).collect()
}

/// All processes that the program starts are members and die in a kill; the program survives.
#[test]
fn kill_ends_members_and_spares_the_caller() {
    enclosed("kill_ends_members_and_spares_the_caller", |job| {
        assert!(job.is_empty().expect("observable"), "the caller does not count");
        let mut plain = start("exec sleep 300");
        let mut parent = start("(setsid sleep 300 &); exit 0");
        parent.wait().expect("a status");
        eventually("two members", || (others(&job).len() == 2).then_some(()));
        for _ in 0..2 {
            job.kill().expect("killed");
            assert_eq!(others(&job), []);
            assert!(job.is_empty().expect("observable"));
        }
        assert_eq!(plain.wait().expect("a status").signal(), Some(9));
        let mut again = start("exit 3");
        assert_eq!(again.wait().expect("a status").code(), Some(3));
    });
}

#[test]
fn every_method_spares_the_caller() {
    enclosed("every_method_spares_the_caller", |job| {
        let mut child = start("exec sleep 300");
        assert!(!job.wait_timeout(Duration::from_millis(20)).expect("observable"));
        job.freeze().expect("frozen");
        job.thaw().expect("thawed");
        assert_eq!(job.signal(Signal::TERM).expect("sent"), 1);
        assert_eq!(child.wait().expect("a status").signal(), Some(15));
        job.wait().expect("waited");
        let mut stubborn = Command::new("sh");
        stubborn.args(["-c", "trap '' TERM; echo ready; exec sleep 300"]).stdout(Stdio::piped());
        let mut stubborn = stubborn.spawn().expect("started");
        stubborn.stdout.take().expect("piped").read_exact(&mut [0; 6]).expect("it ignores SIGTERM");
        let report = job.stop(Duration::from_millis(300)).expect("stopped");
        assert!(report.killed, "{report:?}");
        stubborn.wait().expect("reaped");
        drop(job);
        assert_eq!(start("exit 4").wait().expect("a status").code(), Some(4));
    });
}

#[test]
fn a_drop_kills_the_others() {
    enclosed("a_drop_kills_the_others", |job| {
        let mut child = start("exec sleep 300");
        drop(job);
        assert_eq!(child.wait().expect("a status").signal(), Some(9));
    });
}

#[test]
fn a_wait_ends_with_the_last_of_the_others() {
    enclosed("a_wait_ends_with_the_last_of_the_others", |job| {
        let start_time = Instant::now();
        let mut first = start("(setsid sleep 0.4 &) ; sleep 0.1");
        job.wait().expect("waited");
        assert!(start_time.elapsed() >= Duration::from_millis(400));
        first.wait().expect("reaped");
        assert_eq!(others(&job), []);
    });
}

#[test]
fn a_job_inside_the_enclosed_one_is_inside() {
    enclosed("a_job_inside_the_enclosed_one_is_inside", |outer| {
        let inner = Job::new().expect("a job inside");
        let child = inner.spawn(onejob::Command::new("sleep").arg("300")).expect("started");
        assert!(others(&outer).contains(&child.pid()), "a member of both");
        assert_eq!(inner.processes().expect("a list").len(), 1);
        outer.kill().expect("killed");
        eventually("an empty inner job", || {
            // The guards of the inner job were members of the outer one: an error that they are dead is right too.
            inner.is_empty().unwrap_or(true).then_some(())
        });
    });
}

#[test]
fn its_own_spawn_is_a_member_too() {
    enclosed("its_own_spawn_is_a_member_too", |job| {
        let mut child = job.spawn(onejob::Command::new("sleep").arg("300")).expect("started");
        assert_eq!(others(&job), [child.pid()]);
        job.kill().expect("killed");
        assert_eq!(child.wait().expect("a status").signal(), Some(9));
    });
}

#[test]
fn guarantee_of_the_owners_death() {
    enclosed("guarantee_of_the_owners_death", |job| {
        let given = job.guarantees();
        let expected = match given.mechanism {
            Mechanism::Cgroup => OwnerDeath::Guard,
            _ => OwnerDeath::None,
        };
        assert_eq!(given.owner_death, expected);
    });
}

/// The mechanism Subreaper does not enclose a process that has children.
#[test]
fn subreaper_refuses_a_caller_with_children() {
    const NAME: &str = "subreaper_refuses_a_caller_with_children";
    if !alone(NAME, |_| {}) {
        return;
    }
    let mut child = start("exec sleep 300");
    let error = Job::builder().mechanism(Mechanism::Subreaper).enclose().expect_err("refused");
    assert!(error.is_unsupported(), "{error}");
    child.kill().expect("killed");
    child.wait().expect("reaped");
    Job::builder().mechanism(Mechanism::Subreaper).enclose().expect("enclosed");
}
