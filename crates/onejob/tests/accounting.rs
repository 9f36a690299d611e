//! The statistics of a job are those of the kernel, and include ended members.
#![cfg(target_os = "linux")]

mod common;

use std::{fs, path::PathBuf, time::Duration};

use common::alone;
use onejob::{Accounting, Command, Job, Limits, Mechanism, Stdio};
use testkit::{Bins, Report, eventually};

fn cgroup_job() -> Option<Job> {
    match Job::builder().mechanism(Mechanism::Cgroup).accounting().build() {
        Ok(job) => Some(job),
        Err(error) => {
            testkit::skip(&error.to_string());
            None
        }
    }
}

/// The directory of the cgroup that a process is in, found without the library.
fn cgroup_of(pid: u32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("alive");
    let name = text.lines().find_map(|line| line.strip_prefix("0::/")).expect("v2").to_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("mounted");
    PathBuf::from(mount.split(' ').nth(4).expect("a mount point")).join(name)
}

/// The value of `key` in a file of lines `key value`.
fn value(dir: &std::path::Path, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

fn number(dir: &std::path::Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

/// The CPU time of the reaped children of this process (`getrusage(2)`).
fn children() -> Duration {
    // SAFETY: a structure of numbers, which the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage), 0);
        usage
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The CPU time of a job is the sum of the CPU times of a thousand short processes.
#[test]
fn a_thousand_short_processes_add_up() {
    const NAME: &str = "a_thousand_short_processes_add_up";
    if !alone(NAME, |_| {}) {
        return;
    }
    let Some(job) = cgroup_job() else { return };
    let before = children();
    let mut running = Vec::new();
    for _ in 0..1000 {
        let script = "i=0; while [ $i -lt 1500 ]; do i=$((i+1)); done";
        running.push(job.spawn(Command::new("sh").args(["-c", script])).expect("started"));
        if running.len() == 4 {
            running.remove(0).wait().expect("a status");
        }
    }
    running.into_iter().for_each(|mut child| assert!(child.wait().expect("a status").success()));
    let by_kernel = (children() - before).as_secs_f64();
    let stats = job.stats().expect("stats");
    let ours = (stats.cpu_user.unwrap() + stats.cpu_system.unwrap()).as_secs_f64();
    assert!(by_kernel > 0.5, "too little CPU time: {by_kernel}");
    assert!((ours / by_kernel - 1.0).abs() < 0.02, "{ours}, but {by_kernel} by getrusage");
    assert_eq!(stats.processes, 0);
    job.kill().expect("killed");
    let after = job.stats().expect("stats");
    assert!(after.cpu_user >= stats.cpu_user, "the CPU time of an ended cgroup is included");
}

#[test]
fn the_numbers_are_the_kernels() {
    let Some(job) = cgroup_job() else { return };
    let sleeper = job.spawn(Command::new("sleep").arg("300")).expect("started");
    let dir = cgroup_of(sleeper.pid());
    let busy = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; (exit 0); (exit 0)";
    let mut child = job.spawn(Command::new("sh").args(["-c", busy])).expect("started");
    child.wait().expect("a status");
    job.freeze().expect("frozen, so that nothing changes");
    let stats = job.stats().expect("stats");
    let user = Duration::from_micros(value(&dir, "cpu.stat", "user_usec").expect("always there"));
    let system = value(&dir, "cpu.stat", "system_usec").map(Duration::from_micros);
    assert_eq!((stats.cpu_user, stats.cpu_system), (Some(user), system));
    assert_eq!(stats.memory_peak, number(&dir, "memory.peak"));
    assert_eq!(stats.processes_peak, number(&dir, "pids.peak"));
    assert_eq!(stats.oom_kills, value(&dir, "memory.events", "oom_kill"));
    assert_eq!(stats.io_read.is_some(), dir.join("io.stat").exists());
    assert_eq!(stats.processes, 1);
    let given = job.guarantees();
    let memory = if stats.memory.is_some() { Accounting::All } else { Accounting::None };
    assert_eq!(given.memory_accounting, memory, "{given}");
    job.thaw().expect("thawed");
    job.kill().expect("killed");
    let after = job.stats().expect("stats");
    assert!(after.cpu_user >= Some(user) && after.memory_peak >= stats.memory_peak, "{after:?}");
}

/// The peak of memory includes memory that is free again.
#[test]
fn the_peak_of_memory_survives_its_release() {
    const TOUCHED: u64 = 160 << 20;
    let Some(mut job) = cgroup_job() else { return };
    if job.guarantees().memory_accounting != Accounting::All {
        // The parent cgroup does not provide the memory controller. A limit moves the job to a cgroup that does, if
        // this hierarchy has the controller.
        let limited = Job::builder().mechanism(Mechanism::Cgroup);
        job = match limited.limits(Limits::new().memory_max(4 * TOUCHED)).build() {
            Ok(job) => job,
            Err(error) if testkit::cgroup::controllers_are_elsewhere() => {
                return eprintln!("SKIPPED: {error}");
            }
            Err(error) => return testkit::skip(&error.to_string()),
        };
        assert_eq!(job.guarantees().memory_accounting, Accounting::All);
    }
    let report = Report::new();
    let mut hog = Command::new(Bins::get().helper());
    let mut hog =
        job.spawn(hog.args(["hog", report.arg(), &TOUCHED.to_string()])).expect("started");
    eventually("memory in use", || (report.count("hog") == 1).then_some(()));
    let now = job.stats().expect("stats").memory.expect("accounted");
    hog.kill().expect("killed");
    hog.wait().expect("a status");
    let stats = job.stats().expect("stats");
    let Some(peak) = stats.memory_peak else {
        return eprintln!("SKIPPED: this kernel keeps no peak (Linux 5.19)");
    };
    for bytes in [now, peak] {
        let error = bytes as f64 / TOUCHED as f64 - 1.0;
        assert!(error.abs() < 0.05, "{bytes} for {TOUCHED}");
    }
    assert!(
        stats.memory.expect("accounted") < TOUCHED / 2,
        "the memory is still in use: {stats:?}"
    );
}

/// The bytes from and to devices are the sum of all members.
#[test]
fn io_bytes_add_up_over_members() {
    let Some(job) = cgroup_job() else { return };
    let stats = job.stats().expect("stats");
    let given = job.guarantees().io_accounting;
    assert_eq!(stats.io_read.is_some(), given == Accounting::All);
    if stats.io_read.is_none() {
        assert_eq!(job.stats().expect("stats").io_written, None, "an unknown value must not be 0");
        return;
    }
    let mut sync = job.spawn(Command::new("sync").stdout(Stdio::null())).expect("started");
    assert!(sync.wait().expect("a status").success());
    assert!(job.stats().expect("stats").io_written.is_some());
}

/// A snapshot has the members and the CPU time of the job, and tells whether it is frozen, for its owner and
/// for another view.
#[test]
fn a_snapshot_agrees_with_members_and_stats() {
    common::for_each_mechanism(|mechanism| {
        let job = Job::builder().mechanism(mechanism).listed().build().expect("a job");
        let work = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 300; true";
        let _child = job.spawn(Command::new("sh").args(["-c", work])).expect("started");
        eventually("CPU time and a second member", || {
            let stats = job.stats().expect("statistics");
            let used = stats.cpu_user? + stats.cpu_system?;
            (stats.processes == 2 && used > Duration::ZERO).then_some(())
        });
        let view = Job::open(job.id().expect("listed")).expect("a view");
        for job in [&job, &view] {
            let stats = job.stats().expect("statistics");
            let snapshot = job.snapshot().expect("a snapshot");
            // Without the names: a member can be between fork and exec.
            let ids =
                |members: &[onejob::Process]| members.iter().map(|one| one.id).collect::<Vec<_>>();
            let listed = job.processes().expect("members");
            assert_eq!(ids(&snapshot.processes), ids(&listed), "{mechanism}");
            let used = stats.cpu_user.zip(stats.cpu_system).map(|(user, system)| user + system);
            assert!(
                snapshot.cpu_time >= used && used.is_some(),
                "{mechanism}: {snapshot:?}, {stats:?}"
            );
            assert!(snapshot.resident_memory > Some(4096), "{mechanism}: {snapshot:?}");
            assert_ne!(snapshot.is_frozen, Some(true), "{mechanism}");
            job.freeze().expect("frozen");
            let snapshot = job.snapshot().expect("a snapshot");
            assert_eq!(snapshot.is_frozen, Some(true), "{mechanism}: {snapshot:?}");
            job.thaw().expect("thawed");
        }
    });
}
