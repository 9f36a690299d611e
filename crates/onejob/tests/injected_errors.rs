//! An error of the kernel is never read as an empty job: if any single system call fails, the answer about a job
//! is true or an error.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/injector.rs"]
mod injector;

use std::{collections::BTreeSet, fs, time::Duration};

use common::for_each_mechanism;
use onejob::{Command, Job, Mechanism, Signal};
use testkit::{cgroup, eventually};

/// The injected errors: no descriptors left, and a missing permission.
const ERRORS: [i32; 2] = [libc::EMFILE, libc::EACCES];

/// A job with three members: one in its own session, and with Cgroup one in a nested cgroup.
struct Fixture {
    job: Job,
    name: String,
    members: BTreeSet<u32>,
}

impl Fixture {
    fn new(mechanism: Mechanism, name: &str) -> Fixture {
        let name = format!("{name}-{mechanism}-{}", std::process::id());
        let job = Job::builder().mechanism(mechanism).name(&name).build().expect("a job");
        let script = "setsid sleep 300 & exec sleep 300";
        job.spawn(Command::new("sh").args(["-c", script])).expect("started");
        let last = job.spawn(Command::new("sleep").arg("300")).expect("started");
        let members = eventually("three sleepers", || {
            let pids: BTreeSet<_> = job.pids().expect("a list").into_iter().collect();
            let sleeps = |pid: &u32| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm"));
                name.is_ok_and(|name| name == "sleep\n")
            };
            (pids.len() == 3 && pids.iter().all(sleeps)).then_some(pids)
        });
        if mechanism == Mechanism::Cgroup {
            let below = cgroup::of(last.pid()).expect("a cgroup").join("below");
            fs::create_dir(&below).expect("a cgroup below the job's");
            fs::write(below.join("cgroup.procs"), last.pid().to_string()).expect("moved");
        }
        Fixture { job, name, members }
    }

    /// Waits until no member runs: a stopped process stops a moment after the signal.
    fn is_frozen(&self, mechanism: Mechanism) -> bool {
        let frozen = |pid: &u32| match mechanism {
            Mechanism::Cgroup => is_frozen_by_kernel(*pid),
            _ => is_stopped(*pid),
        };
        let all = || self.members.iter().all(frozen).then_some(());
        eventually("the members are frozen", all);
        true
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("alive");
    stat.rsplit_once(") ").expect("a name").1.starts_with('T')
}

fn is_frozen_by_kernel(pid: u32) -> bool {
    let dir = cgroup::of(pid).expect("alive");
    // The root of the hierarchy has no such file.
    let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
    events.contains("frozen 1")
}

/// Makes each call of `act` fail with each error. `lie` returns the false part of an answer.
#[track_caller]
fn never_lies<T: Send>(
    what: &str,
    act: impl Fn() -> onejob::Result<T> + Sync,
    lie: impl Fn(T, &str) -> Option<String>,
) {
    let mut lies = Vec::new();
    let mut calls = 0;
    for errno in ERRORS {
        for index in 0.. {
            let run = injector::run(index, errno, &act);
            if let Some(failed) = run.failed {
                let answer = run.result.ok().and_then(|answer| lie(answer, failed));
                lies.extend(
                    answer.map(|lie| format!("{failed} #{index} fails with {errno}: {lie}")),
                );
                continue;
            }
            let truth = run.result.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(lie(truth, ""), None, "{what}, without any error");
            calls = run.calls;
            break;
        }
    }
    eprintln!("{what}: each of {calls} calls");
    assert!(lies.is_empty(), "{what}:\n{}", lies.join("\n"));
}

fn lie<T: PartialEq + std::fmt::Debug>(is: T, truth: T) -> Option<String> {
    (is != truth).then(|| format!("{is:?}, not {truth:?}"))
}

fn owners_answers(mechanism: Mechanism) {
    let fixture = Fixture::new(mechanism, "owner");
    let (job, members) = (&fixture.job, &fixture.members);
    let what = |of: &str| format!("{mechanism}: {of}");
    never_lies(
        &what("processes"),
        || job.processes(),
        |is, _| lie(is.iter().map(onejob::Process::pid).collect(), members.clone()),
    );
    never_lies(
        &what("pids"),
        || job.pids(),
        |is, _| lie(is.into_iter().collect(), members.clone()),
    );
    never_lies(&what("is_empty"), || job.is_empty(), |is, _| lie(is, false));
    let moment = Duration::from_millis(1);
    never_lies(&what("wait_timeout"), || job.wait_timeout(moment), |is, _| lie(is, false));
    never_lies(
        &what("signal"),
        || job.signal(Signal::CONT),
        |is, failed| {
            // The library also uses this call to check that a process exists.
            let refused = usize::from(failed == "pidfd_send_signal" && is < members.len());
            lie(is, members.len() - refused)
        },
    );
    never_lies(
        &what("stats"),
        || job.stats(),
        |is, _| lie((is.processes, is.cpu_user.is_some()), (members.len(), true)),
    );
    never_lies(&what("limits"), || job.limits(), |is, _| lie(is, onejob::Limits::default()));
    job.kill().expect("killed");
}

/// The answers of the owner.
#[test]
fn an_answer_of_an_owner_is_true_or_an_error() {
    for_each_mechanism(owners_answers);
}

/// The answers of a view, including the search for the job.
#[test]
fn an_answer_of_a_view_is_true_or_an_error() {
    for_each_mechanism(|mechanism| {
        let fixture = Fixture::new(mechanism, "view");
        let (name, members) = (&*fixture.name, &fixture.members);
        let what = |of: &str| format!("{mechanism}: {of}");
        let moment = Duration::from_millis(1);
        never_lies(
            &what("view, pids"),
            || Job::open(name)?.pids(),
            |is, _| lie(is.into_iter().collect(), members.clone()),
        );
        never_lies(
            &what("view, processes"),
            || Job::open(name)?.processes(),
            |is, _| lie(is.iter().map(onejob::Process::pid).collect(), members.clone()),
        );
        never_lies(
            &what("view, wait"),
            || Job::open(name)?.wait_timeout(moment),
            |is, _| lie(is, false),
        );
        never_lies(
            &what("view, over"),
            || Job::open(name)?.wait_closed(Some(moment)),
            |is, _| lie(is, false),
        );
        never_lies(
            &what("view, stats"),
            || Job::open(name)?.stats(),
            |is, _| lie((is.processes, is.cpu_user.is_some()), (members.len(), true)),
        );
        never_lies(
            &what("jobs"),
            || Ok(onejob::jobs()?.collect::<Vec<_>>()),
            |is, _| {
                let named = is.iter().any(|job| job.name.as_deref() == Some(name));
                lie(named, true)
            },
        );
        assert!(!fixture.job.is_empty().expect("observable"), "the job is empty after the reads");
        fixture.job.kill().expect("killed");
    });
}

/// After a freeze that succeeds, all members are frozen.
#[test]
fn a_freeze_has_frozen_all_or_is_an_error() {
    for_each_mechanism(|mechanism| {
        let fixture = Fixture::new(mechanism, "freeze");
        never_lies(
            &format!("{mechanism}: freeze"),
            || fixture.job.freeze(),
            |(), _| {
                let frozen = fixture.is_frozen(mechanism);
                fixture.job.thaw().expect("thawed");
                lie(frozen, true)
            },
        );
        fixture.job.kill().expect("killed");
    });
}

/// After a thaw that succeeds, all members run.
#[test]
fn a_thaw_has_thawed_all_or_is_an_error() {
    for_each_mechanism(|mechanism| {
        let fixture = Fixture::new(mechanism, "thaw");
        let mut lies = Vec::new();
        for errno in ERRORS {
            for index in 0.. {
                fixture.job.freeze().expect("frozen");
                assert!(fixture.is_frozen(mechanism));
                let run = injector::run(index, errno, || fixture.job.thaw());
                // SIGCONT has its effect before the call returns, and the library waits for a thaw of the kernel.
                let stopped = |pid: &&u32| is_stopped(**pid) || is_frozen_by_kernel(**pid);
                if run.result.is_ok() && fixture.members.iter().any(|pid| stopped(&pid)) {
                    lies.push(format!("{:?} #{index} fails with {errno}", run.failed));
                }
                fixture.job.thaw().expect("thawed");
                if run.failed.is_none() {
                    break;
                }
            }
        }
        assert!(lies.is_empty(), "{mechanism}: {lies:?}");
        fixture.job.kill().expect("killed");
    });
}

/// After a kill that succeeds, no member lives.
#[test]
fn a_kill_has_killed_all_or_is_an_error() {
    for_each_mechanism(|mechanism| {
        for errno in ERRORS {
            for index in 0.. {
                let fixture = Fixture::new(mechanism, "kill");
                let run = injector::run(index, errno, || fixture.job.kill());
                if run.result.is_ok() {
                    let alive = |pid: &&u32| testkit::proc::is_alive(**pid as i32);
                    let left: Vec<_> = fixture.members.iter().filter(alive).collect();
                    assert!(left.is_empty(), "{mechanism}: {:?} #{index}: {left:?}", run.failed);
                }
                drop(fixture);
                if run.failed.is_none() {
                    break;
                }
            }
        }
    });
}
