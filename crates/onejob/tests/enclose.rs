//! A program encloses itself, and every method spares it.
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

/// Runs `test` in a process of its own for each mechanism: enclosing changes a process for good.
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

/// Through code that knows nothing of jobs.
fn start(script: &str) -> Child {
    Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().expect("started")
}

fn others(job: &Job) -> Vec<u32> {
    let all = job.processes().expect("a list");
    let (us, others): (Vec<_>, Vec<_>) = all.iter().partition(|process| process.is_caller);
    assert_eq!(us.len(), 1, "we are listed, marked: {all:?}");
    assert_eq!(us[0].pid(), std::process::id());
    others.into_iter().map(|process| process.pid()).collect()
}

/// Whatever the program starts is a member and dies and the program lives.
#[test]
fn kill_ends_members_and_spares_the_caller() {
    enclosed("kill_ends_members_and_spares_the_caller", |job| {
        assert!(job.is_empty().expect("observable"), "empty is about the others");
        let mut plain = start("exec sleep 300");
        let mut parent = start("(setsid sleep 300 &); exit 0");
        parent.wait().expect("a status");
        eventually("both are members", || (others(&job).len() == 2).then_some(()));
        for _ in 0..2 {
            job.kill().expect("killed");
            assert_eq!(others(&job), []);
            assert!(job.is_empty().expect("observable"));
        }
        assert_eq!(plain.wait().expect("our library's own status").signal(), Some(9));
        let mut again = start("exit 3");
        assert_eq!(again.wait().expect("life goes on").code(), Some(3));
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
        job.wait().expect("nobody else is left");
        let mut deaf = Command::new("sh");
        deaf.args(["-c", "trap '' TERM; echo deaf; exec sleep 300"]).stdout(Stdio::piped());
        let mut deaf = deaf.spawn().expect("started");
        deaf.stdout.take().expect("piped").read_exact(&mut [0; 5]).expect("it is deaf now");
        let report = job.stop(Duration::from_millis(300)).expect("stopped");
        assert!(report.killed, "{report:?}");
        deaf.wait().expect("reaped");
        drop(job);
        assert_eq!(start("exit 4").wait().expect("after the job too").code(), Some(4));
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
        eventually("the inner one is empty", || {
            // Its guards were members of the outer one too, so it may only say that they are gone.
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
fn its_guarantees_say_what_owner_death_means() {
    enclosed("its_guarantees_say_what_owner_death_means", |job| {
        let given = job.guarantees();
        let expected = match given.mechanism {
            Mechanism::Cgroup => OwnerDeath::Guard,
            _ => OwnerDeath::None,
        };
        assert_eq!(given.owner_death, expected);
    });
}

/// A subreaper refuses to enclose a process that has children.
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
