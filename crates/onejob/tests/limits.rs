//! Limits hold for the whole job, and a limit that is not available is an error.
//!
//! The tests need a hierarchy in which they can enable controllers: `scripts/test-vm` runs them in guests with
//! `ONEJOB_NO_SKIP=1`.
#![cfg(target_os = "linux")]

mod common;

use std::{
    os::unix::process::ExitStatusExt as _,
    time::{Duration, Instant},
};

use common::alone;
use onejob::{Child, Command, Job, Limits, Mechanism, OnOom, Resources, StopReason};
use testkit::{Bins, Report, eventually};

/// A job with these limits, without the swap limit if this kernel has no swap.
fn limited_but(mut limits: Limits, without: Resources) -> Option<Job> {
    if without.contains(Resources::SWAP) && !std::path::Path::new("/proc/swaps").exists() {
        limits.swap_max = None;
    }
    limited(limits)
}

/// Starts a member that uses this much memory, and waits until it does.
fn hog(job: &Job, report: &Report, bytes: u64) -> Child {
    let mut command = Command::new(Bins::get().helper());
    let child = job.spawn(command.args(["hog", report.arg(), &bytes.to_string()]));
    eventually("memory in use", || (report.count("hog") == 1).then_some(()));
    child.expect("started")
}

/// Starts a member that uses this much memory, without waiting for it.
fn start_hog(job: &Job, bytes: u64) -> Child {
    let report = Report::new();
    let mut command = Command::new(Bins::get().helper());
    job.spawn(command.args(["hog", report.arg(), &bytes.to_string()])).expect("started")
}

fn limited(limits: Limits) -> Option<Job> {
    let job = Job::builder().mechanism(Mechanism::Cgroup).limits(limits).build();
    match job {
        Ok(job) => Some(job),
        Err(error) if error.is_unmet_requirement() || error.is_unsupported() => {
            let names_limits = error.to_string().contains("limits=");
            assert!(
                names_limits || error.is_unsupported(),
                "the error names the missing guarantee: {error}"
            );
            // On a host with cgroup v1 no test can have them. Elsewhere a skip may be a failure.
            match testkit::cgroup::controllers_are_elsewhere() {
                true => eprintln!("SKIPPED: the controllers of this host are in another hierarchy"),
                false => testkit::skip(&error.to_string()),
            }
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn shell(job: &Job, script: &str) -> onejob::Child {
    job.spawn(Command::new("sh").args(["-c", script])).expect("started")
}

/// All members of a job that exceeds its memory limit end, and another job lives.
#[test]
fn memory_limit_ends_the_job_and_no_other() {
    let Some(job) = limited(Limits::new().memory_max(48 << 20)) else { return };
    let neighbour =
        limited(Limits::new().memory_max(48 << 20)).expect("limits as for the first job");
    let mut beside = shell(&neighbour, "exec sleep 300");
    let mut sibling = shell(&job, "exec setsid sleep 300");
    // Each of them is below the limit; together they exceed it.
    let (helper, report) = (Bins::get().helper(), Report::new());
    let hog = format!("{} hog {} {}", helper.display(), report.arg(), 8 << 20);
    let mut hogs = shell(&job, &format!("for i in 1 2 3 4 5 6 7 8 9 10; do {hog} & done; wait"));
    for child in [&mut hogs, &mut sibling] {
        let status = child.wait_timeout(testkit::DEADLINE).expect("a status").expect("it ended");
        assert_eq!(status.signal(), Some(9));
    }
    assert!(job.wait_timeout(testkit::DEADLINE).expect("observable"), "all members have ended");
    assert_eq!(job.limit_reached().expect("readable"), Some(StopReason::Memory));
    let peak = job.stats().expect("stats").memory_peak.expect("accounted");
    assert!(((40 << 20)..=(48 << 20)).contains(&peak), "{peak}");
    assert!(beside.try_wait().expect("a status").is_none(), "a member of the other job has ended");
    assert_eq!(neighbour.limit_reached().expect("readable"), None);
}

/// `onejob run` whose job exceeds its memory limit ends all members and prints the reason.
#[test]
fn onejob_run_over_its_memory_reports_it() {
    if limited(Limits::new().memory_max(48 << 20)).is_none() {
        return;
    }
    let (helper, report) = (Bins::get().helper(), Report::new());
    let (helper, report) = (helper.display(), report.arg());
    let script = format!("{helper} sleep {report} & exec {helper} hog {report} {}", 100 << 20);
    let mut run = std::process::Command::new(Bins::get().onejob());
    run.args(["run", "--memory", "48M", "--stats=json", "--", "sh", "-c", &script]);
    let output = run.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(9), "the status of CMD: {said}");
    assert!(said.contains("the --memory limit was reached"), "{said}");
    assert!(said.contains(r#""reason":"memory""#), "{said}");
}

/// A spawn above the process limit is an error, and the job continues.
#[test]
fn a_process_too_many_is_refused() {
    let Some(job) = limited(Limits::new().processes_max(3)) else { return };
    let mut three: Vec<_> = (0..3).map(|_| shell(&job, "exec sleep 300")).collect();
    let error = job.spawn(Command::new("true")).expect_err("a fourth");
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
    assert!(error.is_limit_reached() && error.to_string().contains("3 processes"), "{error}");
    assert_eq!(job.processes().expect("a list").len(), 3, "the job continues");
    three[0].kill().expect("killed");
    three[0].wait().expect("a status");
    let mut next = eventually("room for the next", || job.spawn(Command::new("true")).ok());
    assert!(next.wait().expect("a status").success());
}

/// A fork of a member above the process limit fails, and the job continues.
#[test]
fn a_process_too_many_is_refused_inside_too() {
    let Some(job) = limited(Limits::new().processes_max(5)) else { return };
    let report = Report::new();
    let mut forker = Command::new(Bins::get().helper());
    let mut forker = job.spawn(forker.args(["fork-until-error", report.arg()])).expect("started");
    let refused = format!("refused-{}", libc::EAGAIN);
    eventually("a refusal", || (report.count(&refused) == 1).then_some(()));
    assert_eq!(job.processes().expect("a list").len(), 5, "exactly as many as allowed");
    assert_eq!(job.limit_reached().expect("readable"), Some(StopReason::Processes));
    assert!(forker.try_wait().expect("a status").is_none(), "the job continues");
    job.spawn(Command::new("true")).expect_err("nor by the owner");
    report.go();
    assert!(forker.wait().expect("a status").success());
    let mut next = eventually("room for the next", || job.spawn(Command::new("true")).ok());
    assert!(next.wait().expect("a status").success());
}

#[test]
fn two_busy_loops_in_half_a_cpu_use_half_a_cpu() {
    let Some(job) = limited(Limits::new().cpu_max(0.5)) else { return };
    let used = || used(&job);
    for _ in 0..2 {
        shell(&job, "while :; do :; done");
    }
    eventually("two running members", || (used() > 0.2).then_some(()));
    let (start, before) = (Instant::now(), used());
    std::thread::sleep(Duration::from_secs(5));
    let share = (used() - before) / start.elapsed().as_secs_f64();
    assert!((0.45..=0.55).contains(&share), "{share}");
}

/// Limits can be changed while the job runs, and still apply after a kill.
#[test]
fn limits_changed_at_run_time_outlive_a_kill() {
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

/// A memory limit below the current use is an error, and no member dies.
#[test]
fn less_memory_than_in_use_is_an_error() {
    let Some(job) = limited(Limits::new().memory_max(256 << 20)) else { return };
    let report = Report::new();
    let mut hog = hog(&job, &report, 64 << 20);
    let error = job.set_limits(&Limits::new().memory_max(16 << 20)).expect_err("too little");
    assert!(error.is_limit_reached(), "{error}");
    assert!(error.to_string().contains("16.0 MiB"), "{error}");
    assert_eq!(job.limits().expect("limits").memory_max, Some(256 << 20), "nothing has changed");
    assert!(hog.try_wait().expect("a status").is_none(), "the member has died");
    assert_eq!(job.limit_reached().expect("readable"), None);
    // The old limit applies.
    let more = self::hog(&job, &Report::new(), 64 << 20);
    drop(more);
    job.set_limits(&Limits::new().memory_max(200 << 20)).expect("enough");
    assert!(hog.try_wait().expect("a status").is_none(), "the member has died");
}

/// With `OnOom::KillOne` only one process ends when the memory limit is reached.
#[test]
fn only_one_process_ends_on_oom_if_set() {
    let limits = Limits::new().memory_max(48 << 20).swap_max(0).on_oom(OnOom::KillOne);
    let Some(job) = limited_but(limits, Resources::SWAP) else { return };
    let mut sibling = shell(&job, "exec sleep 300");
    let mut hog = start_hog(&job, 100 << 20);
    let status = hog.wait_timeout(testkit::DEADLINE).expect("a status").expect("it ended");
    assert_eq!(status.signal(), Some(9));
    assert!(sibling.try_wait().expect("a status").is_none(), "the other member died");
    assert_eq!(job.limit_reached().expect("readable"), Some(StopReason::Memory));
    assert_eq!(job.stats().expect("stats").oom_kills, Some(1));
}

/// The kernel kills all processes that share memory with an OOM-killed process, and a child shares the memory of
/// its parent until `execve`. The owner must survive nevertheless.
#[test]
fn the_owner_survives_oom_of_its_job() {
    const NAME: &str = "the_owner_survives_oom_of_its_job";
    // In a new process: a failure kills it.
    if !alone(NAME, |_| {}) {
        return;
    }
    const TIMES: usize = 8;
    let name = format!("oom-{}", std::process::id());
    let limits = Limits::new().memory_max(24 << 20);
    let Some(job) = limited(limits) else { return };
    let listed = Job::builder().mechanism(Mechanism::Cgroup).name(&name).build().expect("a job");
    let view = Job::open(&name).expect("it is listed");
    listed.set_limits(&limits).expect("limits as for the first job");
    for job in [&job, &listed, &view] {
        for _ in 0..TIMES {
            let mut hog = start_hog(job, 300 << 20);
            // These may be killed too.
            while hog.try_wait().expect("a status").is_none() {
                let _ = job.spawn(Command::new("true"));
            }
        }
    }
    assert!(job.stats().expect("stats").oom_kills.expect("accounted") >= TIMES as u64);
}

#[test]
fn the_reason_why_a_job_ended() {
    let requested = Job::new().expect("a job");
    shell(&requested, "exec sleep 300");
    assert_eq!(requested.kill().expect("killed").reason, Some(StopReason::Requested));
    shell(&requested, "exec sleep 300");
    let report = requested.stop_after(Duration::from_millis(50), Duration::from_secs(60));
    let report = report.expect("stopped");
    assert_eq!((report.reason, report.killed), (Some(StopReason::Timeout), false));
    shell(&requested, "exit 3");
    let report = requested.stop_after(testkit::DEADLINE, Duration::ZERO).expect("ended");
    assert_eq!((report.reason, report.killed), (None, false));

    let Some(memory) = limited(Limits::new().memory_max(32 << 20)) else { return };
    start_hog(&memory, 300 << 20);
    let report = memory.stop_after(testkit::DEADLINE, Duration::ZERO).expect("ended");
    assert_eq!(report.reason, Some(StopReason::Memory));
    let stats = memory.stats().expect("stats");
    assert!(stats.oom_kills.expect("accounted") >= 1, "also of an ended cgroup: {stats:?}");

    let processes = limited(Limits::new().processes_max(2)).expect("limits as for the first job");
    let mut forks = shell(&processes, "sleep 300 & sleep 300 & exit 0");
    forks.wait().expect("a status");
    eventually("a refusal", || {
        (processes.limit_reached().expect("readable") == Some(StopReason::Processes)).then_some(())
    });
    assert_eq!(processes.kill().expect("killed").reason, Some(StopReason::Processes));
    assert!(processes.stats().expect("stats").processes_refused.expect("accounted") >= 1);
}

/// The CPU time of the job, in seconds.
fn used(job: &Job) -> f64 {
    let stats = job.stats().expect("stats");
    (stats.cpu_user.unwrap() + stats.cpu_system.unwrap()).as_secs_f64()
}

/// A job of the only mechanism that can limit CPU time.
fn timed(time: Duration) -> Option<Job> {
    let job = Job::builder().mechanism(Mechanism::Cgroup);
    match job.limits(Limits::new().cpu_time_max(time)).build() {
        Ok(job) => Some(job),
        Err(error) => {
            testkit::skip(&error.to_string());
            None
        }
    }
}

#[test]
fn a_job_ends_when_its_cpu_time_is_used_up() {
    let Some(job) = timed(Duration::from_secs(2)) else { return };
    let neighbour = timed(Duration::from_secs(3600)).expect("limits as for the first job");
    let mut beside = shell(&neighbour, "while :; do :; done");
    // The CPU time of an ended member counts; a sleeping member uses none.
    let mut short = shell(&job, "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done");
    shell(&job, "exec setsid sleep 300");
    short.wait().expect("a status");
    for _ in 0..2 {
        shell(&job, "while :; do :; done");
    }
    assert!(job.wait_timeout(testkit::DEADLINE).expect("observable"), "all members have ended");
    let used = used(&job);
    assert!((1.8..=2.2).contains(&used), "{used}");
    assert_eq!(job.limit_reached().expect("readable"), Some(StopReason::CpuTime));
    let error = job.spawn(Command::new("true")).expect_err("no CPU time left");
    assert!(error.is_limit_reached(), "{error}");
    assert_eq!(job.kill().expect("killed").reason, Some(StopReason::CpuTime));
    assert!(job.spawn(Command::new("true")).is_err(), "a kill does not reset the CPU time");
    assert!(beside.try_wait().expect("a status").is_none(), "a member of the other job has ended");
    job.set_limits(&Limits::new().cpu_time_max(Duration::from_secs(60))).expect("more");
    let mut again = job.spawn(Command::new("true")).expect("started");
    assert!(again.wait().expect("a status").success());
}

/// A kill does not reset the CPU time, and the limit can be changed.
#[test]
fn cpu_time_counts_on_after_a_kill() {
    let Some(job) = timed(Duration::from_secs(3600)) else { return };
    shell(&job, "while :; do :; done");
    eventually("some use", || (used(&job) > 0.5).then_some(()));
    job.kill().expect("killed");
    let so_far = used(&job);
    shell(&job, "while :; do :; done");
    let most = Duration::from_secs_f64(so_far + 1.0);
    job.set_limits(&Limits::new().cpu_time_max(most)).expect("changed");
    assert!(job.wait_timeout(testkit::DEADLINE).expect("observable"), "it ended");
    let (used, most) = (used(&job), most.as_secs_f64());
    assert!((most * 0.9..=most * 1.1).contains(&used), "{used} of {most}");
}

/// All processes of a fork bomb end when the CPU time is used up.
#[test]
fn cpu_time_limit_ends_a_fork_bomb() {
    let Some(job) = timed(Duration::from_millis(400)) else { return };
    let report = Report::new();
    let mut bomb = Command::new(Bins::get().helper());
    job.spawn(bomb.args(["hoppers", report.arg()])).expect("started");
    assert!(job.wait_timeout(testkit::DEADLINE).expect("observable"), "no member is left");
    assert_eq!(job.limit_reached().expect("readable"), Some(StopReason::CpuTime));
}

/// Another process of the user can change the limits of a listed job.
#[test]
fn view_changes_limits_of_a_listed_job() {
    let limits = Limits::new().processes_max(4).cpu_max(2.0);
    let name = format!("limits-{}", std::process::id());
    if limited(limits).is_none() {
        return;
    }
    let job = Job::builder().mechanism(Mechanism::Cgroup).limits(limits).name(&name);
    let job = job.build().expect("as before");
    let view = Job::open(&name).expect("it is listed");
    assert_eq!(view.limits().expect("limits"), limits);
    let error = view.set_limits(&Limits::new().cpu_time_max(Duration::from_secs(9)));
    assert!(error.expect_err("only the owner can limit CPU time").is_unsupported());
    view.set_limits(&Limits::new().processes_max(1).cpu_max(0.5)).expect("changed");
    assert_eq!(job.limits().expect("limits"), Limits::new().processes_max(1).cpu_max(0.5));
    let _first = shell(&job, "exec sleep 300");
    job.spawn(Command::new("true")).expect_err("a second");
    job.kill().expect("killed");
    let _first = shell(&job, "exec sleep 300");
    job.spawn(Command::new("true")).expect_err("a second, in a new cgroup");
}

/// A job without limits does not prevent a job with limits, and the reverse.
#[test]
fn unlimited_job_beside_a_limited_one() {
    let plain = Job::builder().mechanism(Mechanism::Cgroup).build();
    let Some(job) = limited(Limits::new().processes_max(1)) else { return };
    let _first = shell(&job, "exec sleep 300");
    job.spawn(Command::new("true")).expect_err("a second");
    let plain = plain.expect("a limited job was possible");
    let mut free = [shell(&plain, "exec sleep 300"), shell(&plain, "exec sleep 300")];
    assert!(free.iter_mut().all(|child| child.try_wait().expect("a status").is_none()));
    let next = Job::builder().mechanism(Mechanism::Cgroup).build().expect("as before");
    assert!(shell(&next, "exit 0").wait().expect("a status").success());
}

#[test]
fn weights_share_a_busy_cpu() {
    let Some(light) = limited(Limits::new().cpu_weight(100)) else { return };
    let heavy = limited(Limits::new().cpu_weight(400)).expect("limits as for the first job");
    let one_cpu = "exec taskset -c 0 sh -c 'while :; do :; done' || exit 9";
    let mut loops = [shell(&light, one_cpu), shell(&heavy, one_cpu)];
    eventually("two running members", || (used(&light) > 0.1 && used(&heavy) > 0.1).then_some(()));
    let before = [used(&light), used(&heavy)];
    std::thread::sleep(Duration::from_secs(3));
    let after = [used(&light), used(&heavy)];
    let ratio = (after[1] - before[1]) / (after[0] - before[0]);
    assert!((2.5..6.0).contains(&ratio), "{ratio}");
    assert!(loops.iter_mut().all(|child| child.try_wait().expect("a status").is_none()));
}

/// A limit that is not available is an error and changes nothing.
#[test]
fn unsupported_limits_are_refused() {
    let cpu_time = Limits::new().cpu_time_max(Duration::from_secs(1));
    let subreaper = Job::builder().mechanism(Mechanism::Subreaper);
    let error = subreaper.limits(cpu_time).build().expect_err("no CPU time limit");
    assert!(error.is_unmet_requirement(), "{error}");
    // The end of a job that encloses the caller would end the caller.
    let error = Job::builder().limits(cpu_time).enclose().expect_err("no CPU time limit");
    assert!(error.is_unmet_requirement(), "{error}");
    let weight = Job::builder().limits(Limits::new().io_weight(50)).build();
    if let Err(error) = weight {
        assert!(error.is_unmet_requirement() && error.to_string().contains("io-weight"), "{error}");
    }
    let job = Job::builder().mechanism(Mechanism::Subreaper).build().expect("always there");
    let error = job.set_limits(&Limits::new().memory_max(1 << 30)).expect_err("no controllers");
    assert!(error.is_unsupported(), "{error}");
    assert_eq!(job.guarantees().limits, Resources::NONE);
    assert_eq!(job.limits().expect("limits"), Limits::default());
}
