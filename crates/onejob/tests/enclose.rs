//! A program encloses itself in a job. No method of the job ends the program.
#![cfg(target_os = "linux")]

mod common;

use std::{
    io::Read,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{alone, alone_below, is_alone};
use onejob::{Containment, Job, Mechanism, OwnerDeath, Signal};
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

/// Runs a test again as PID 1 of a PID namespace, or as a child of that, without capabilities and without
/// `/proc`. Returns whether this is that process.
fn alone_without_proc(name: &str, pid_1: bool) -> bool {
    let mut probe = Command::new("unshare");
    let probed = probe.args(["--user", "--keep-caps", "true"]).status();
    if !is_alone(name) && !probed.is_ok_and(|status| status.success()) {
        testkit::skip("no user namespace can be made here");
        return false;
    }
    let begin = if pid_1 { "exec" } else { "" };
    let drop = "setpriv --ambient-caps=-all --inh-caps=-all --";
    let script = format!("mount -t tmpfs none /proc; {begin} {drop} \"$@\"; exit $?");
    let user = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--keep-caps"];
    let namespaces =
        ["--mount", "--pid", "--fork", "--kill-child", "--", "sh", "-ec", &script, "sh"];
    alone_below(name, &[&user[..], &namespaces].concat(), |_| {})
}

/// A job of the caller that has no `/proc`: `wait` and `is_empty` are exact, no status of the caller's
/// other children is taken, and the members cannot be listed.
fn spawn_signal_and_wait_without_proc(job: &Job) {
    assert!(job.is_empty().expect("observable"));
    let error = job.processes().expect_err("no list");
    assert!(error.is_unsupported() && error.to_string().contains("/proc"), "{error}");
    let mut zombie = start("exit 3");
    assert!(job.wait_timeout(HANG).expect("observable"), "a zombie is no member");
    let mut child = job.spawn(onejob::Command::new("sleep").arg("300")).expect("started");
    assert!(!job.is_empty().expect("observable"));
    assert_eq!(job.signal(Signal::TERM).expect("sent"), 1);
    assert_eq!(child.wait().expect("a status").signal(), Some(15));
    assert!(job.wait_timeout(HANG).expect("observable"));
    assert_eq!(job.signal(Signal::TERM).expect("no member"), 0);
    let mut child = job.spawn(onejob::Command::new("sleep").arg("300")).expect("started");
    job.kill().expect("killed");
    assert_eq!(child.wait().expect("a status").signal(), Some(9));
    assert_eq!(zombie.wait().expect("the status is left").code(), Some(3));
}

const HANG: Duration = Duration::from_secs(180);

/// PID 1 without `/proc` ends all processes of its PID namespace.
#[test]
fn pid_1_without_proc() {
    if !alone_without_proc("pid_1_without_proc", true) {
        return;
    }
    let job = Job::builder().require(OwnerDeath::Kernel).enclose().expect("a job");
    assert_eq!(job.guarantees().containment, Containment::Tracked);
    spawn_signal_and_wait_without_proc(&job);
    let mut parent = start("(setsid sleep 300 &); exit 0");
    parent.wait().expect("a status");
    assert!(!job.is_empty().expect("observable"), "the orphan lives");
    job.kill().expect("killed");
    assert!(job.is_empty().expect("observable"));
}

/// Another caller without `/proc` reaches the processes that it has started and their groups, and reports
/// that there are others.
#[test]
fn caller_without_proc() {
    if !alone_without_proc("caller_without_proc", false) {
        return;
    }
    let refused = Job::builder().require(Containment::Tracked).enclose();
    assert!(refused.expect_err("a promise").is_unmet_requirement());
    let job = Job::builder().enclose().expect("a job");
    assert_eq!(job.guarantees().containment, Containment::Grouped);
    spawn_signal_and_wait_without_proc(&job);
    let mut group = onejob::Command::new("sh");
    group.args(["-c", "sleep 300 & sleep 300"]).process_group(0);
    let mut leader = job.spawn(group).expect("started");
    eventually("the group is killed", || job.kill().ok());
    assert_eq!(leader.wait().expect("a status").signal(), Some(9));
    let mut parent = start("(setsid sleep 300 &); exit 0");
    parent.wait().expect("a status");
    let error = job.kill().expect_err("one lives");
    assert!(error.is_unsupported() && error.to_string().contains("still alive"), "{error}");
}
