//! Limits hold for the whole job, and where they cannot be had that is said.
//!
//! Real ones need a hierarchy whose controllers are ours to enable: `scripts/test-vm` runs these
//! tests in guests with `ONEJOB_NO_SKIP=1`.
#![cfg(target_os = "linux")]

use std::{
    os::unix::process::ExitStatusExt as _,
    time::{Duration, Instant},
};

use onejob::{Command, Job, Limits, Mechanism, Resources};
use testkit::eventually;

fn limited(limits: Limits) -> Option<Job> {
    let job = Job::builder().mechanism(Mechanism::Cgroup).limits(limits).build();
    match job {
        Ok(job) => Some(job),
        Err(error) if error.is_unmet_requirement() || error.is_unsupported() => {
            assert!(error.to_string().contains("limits="), "it names what is lacking: {error}");
            // Where they are to be had by nobody, the guests are where nothing may be skipped.
            let controllers = testkit::cgroup::controllers();
            let has = |name: &&str| controllers.split_whitespace().any(|word| word == *name);
            if !["memory", "cpu", "pids"].iter().all(has) {
                eprintln!("SKIPPED: the controllers of this host are in another hierarchy");
            } else {
                testkit::skip(&error.to_string());
            }
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn shell(job: &Job, script: &str) -> onejob::Child {
    job.spawn(Command::new("sh").args(["-c", script])).expect("started")
}

#[test]
fn a_job_over_its_memory_ends_as_one_and_its_neighbour_lives() {
    let Some(job) = limited(Limits::new().memory_max(48 << 20)) else { return };
    let neighbour = limited(Limits::new().memory_max(48 << 20)).expect("as the first");
    let mut beside = shell(&neighbour, "exec sleep 300");
    let mut mate = shell(&job, "exec setsid sleep 300");
    let mut glutton = shell(&job, "x=$(head -c 300000000 /dev/zero | tr '\\0' x); sleep 300");
    for child in [&mut glutton, &mut mate] {
        let status = child.wait_timeout(testkit::DEADLINE).expect("a status").expect("it ended");
        assert_eq!(status.signal(), Some(9));
    }
    assert!(job.wait_timeout(testkit::DEADLINE).expect("observable"), "ended as one");
    let peak = job.stats().expect("stats").memory_peak.expect("accounted");
    assert!(((40 << 20)..=(48 << 20)).contains(&peak), "{peak}");
    assert!(beside.try_wait().expect("a status").is_none(), "HIT the neighbour");
}

#[test]
fn a_process_too_many_is_refused_and_the_job_goes_on() {
    let Some(job) = limited(Limits::new().processes_max(3)) else { return };
    let mut three: Vec<_> = (0..3).map(|_| shell(&job, "exec sleep 300")).collect();
    let error = job.spawn(Command::new("true")).expect_err("a fourth");
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
    assert_eq!(job.processes().expect("a list").len(), 3, "the job goes on");
    three[0].kill().expect("killed");
    three[0].wait().expect("a status");
    let mut next = eventually("room for the next", || job.spawn(Command::new("true")).ok());
    assert!(next.wait().expect("a status").success());
}

#[test]
fn two_busy_loops_in_half_a_cpu_use_half_a_cpu() {
    let Some(job) = limited(Limits::new().cpu_max(0.5)) else { return };
    let used = || {
        let stats = job.stats().expect("stats");
        (stats.cpu_user.unwrap() + stats.cpu_system.unwrap()).as_secs_f64()
    };
    for _ in 0..2 {
        shell(&job, "while :; do :; done");
    }
    eventually("both run", || (used() > 0.2).then_some(()));
    let (start, before) = (Instant::now(), used());
    std::thread::sleep(Duration::from_secs(5));
    let share = (used() - before) / start.elapsed().as_secs_f64();
    assert!((0.45..=0.55).contains(&share), "{share}");
}

#[test]
fn limits_change_while_the_job_runs_and_outlive_a_kill() {
    let Some(job) = limited(Limits::new().processes_max(1)) else { return };
    let _first = shell(&job, "exec sleep 300");
    job.spawn(Command::new("true")).expect_err("a second");
    job.set_limits(&Limits::new().processes_max(2)).expect("changed");
    assert_eq!(job.limits().expect("limits").processes_max, Some(2));
    let _second = shell(&job, "exec sleep 300");
    job.spawn(Command::new("true")).expect_err("a third");
    job.kill().expect("killed");
    let _again = [shell(&job, "exec sleep 300"), shell(&job, "exec sleep 300")];
    job.spawn(Command::new("true")).expect_err("a third after the kill");
}

#[test]
fn what_cannot_be_limited_is_refused_and_nothing_changes() {
    let cpu_time = Limits::new().cpu_time_max(Duration::from_secs(1));
    for mechanism in [Mechanism::Cgroup, Mechanism::Subreaper] {
        let error = Job::builder().mechanism(mechanism).limits(cpu_time).build().expect_err("none");
        assert!(error.is_unmet_requirement(), "{error}");
    }
    let job = Job::builder().mechanism(Mechanism::Subreaper).build().expect("always there");
    let error = job.set_limits(&Limits::new().memory_max(1 << 30)).expect_err("no controllers");
    assert!(error.is_unsupported(), "{error}");
    assert_eq!(job.guarantees().limits, Resources::NONE);
    assert_eq!(job.limits().expect("limits"), Limits::default());
}
