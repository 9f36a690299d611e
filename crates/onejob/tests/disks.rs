//! Limits of swap space and of disk bandwidth.
//!
//! The tests need swap space and a disk with an I/O scheduler that supports weights. The guest of
//! `scripts/vm/in-disks` has both, and sets `ONEJOB_DISK`.
#![cfg(target_os = "linux")]

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    time::{Duration, Instant},
};

use onejob::{Child, Command, Job, Limits, Mechanism, StopReason};
use testkit::{Bins, DEADLINE, Report, cgroup, eventually};

const MIB: u64 = 1 << 20;

/// The disk for the test with weights.
fn disk() -> Option<String> {
    let disk = std::env::var("ONEJOB_DISK").ok();
    if disk.is_none() {
        eprintln!("SKIPPED: this host is not prepared with swap space and a disk with weights");
    }
    disk
}

fn limited(limits: Limits) -> Job {
    let job = Job::builder().mechanism(Mechanism::Cgroup).limits(limits).build();
    let job = job.expect("a guest with all controllers");
    assert_eq!(job.limits().expect("limits"), limits);
    job
}

/// Starts a member that uses this much memory.
fn hog(job: &Job, report: &Report, bytes: u64) -> Child {
    let mut command = Command::new(Bins::get().helper());
    job.spawn(command.args(["hog", report.arg(), &bytes.to_string()])).expect("started")
}

/// A value from a file of the member's cgroup, read without the library.
fn number(child: &Child, file: &str) -> String {
    let dir = cgroup::of(child.pid()).expect("a cgroup");
    fs::read_to_string(dir.join(file)).expect("a file of the cgroup").trim().to_owned()
}

/// A job without swap ends with an amount of memory that a job with swap can use.
#[test]
fn swap_limit_decides_what_fits() {
    if disk().is_none() {
        return;
    }
    let memory = Limits::new().memory_max(32 * MIB);
    let with = limited(memory.swap_max(160 * MIB));
    let without = limited(memory.swap_max(0));
    let little = limited(memory.swap_max(16 * MIB));
    let report = Report::new();
    let mut swapped = hog(&with, &report, 96 * MIB);
    eventually("all of it touched", || (report.count("hog") == 1).then_some(()));
    assert_eq!(number(&swapped, "memory.swap.max"), (160 * MIB).to_string());
    let in_swap: u64 = number(&swapped, "memory.swap.current").parse().expect("a number");
    assert!((60 * MIB..=160 * MIB).contains(&in_swap), "{in_swap}");
    for job in [&without, &little] {
        let mut ended = hog(job, &Report::new(), 96 * MIB);
        let status = ended.wait_timeout(DEADLINE).expect("a status").expect("it ended");
        assert_eq!(status.signal(), Some(9));
        assert_eq!(job.limit_reached().expect("readable"), Some(StopReason::Memory));
    }
    assert!(swapped.try_wait().expect("a status").is_none(), "a member of another job has ended");
    assert_eq!(with.limit_reached().expect("readable"), None);

    // Without further swap: swapped pages stay swapped, and the next allocation exceeds the limit.
    with.set_limits(&memory.swap_max(0)).expect("changed");
    assert_eq!(number(&swapped, "memory.swap.max"), "0");
    assert!(
        swapped.try_wait().expect("a status").is_none(),
        "the changed limit has ended a member"
    );
    hog(&with, &Report::new(), 96 * MIB);
    assert!(with.wait_timeout(DEADLINE).expect("observable"), "all members have ended");
    assert_eq!(with.limit_reached().expect("readable"), Some(StopReason::Memory));
}

#[test]
fn weights_share_a_busy_disk() {
    let Some(disk) = disk() else { return };
    let light = limited(Limits::new().io_weight(100));
    let heavy = limited(Limits::new().io_weight(800));
    // Each writes to its own part of the disk.
    let writer = |job: &Job, part: u32| {
        let write = format!("dd if=/dev/zero of={disk} bs=64k count=64 seek={}", part * 64);
        let script = format!("while {write} oflag=direct conv=notrunc 2>/dev/null; do :; done");
        job.spawn(Command::new("sh").args(["-c", &script])).expect("started")
    };
    let mut writers = [writer(&light, 0), writer(&heavy, 1)];
    assert_eq!(number(&writers[0], "io.weight"), "default 100");
    assert_eq!(number(&writers[1], "io.weight"), "default 800");
    let written = |job: &Job| job.stats().expect("stats").io_written.expect("accounted");
    eventually("two writers", || (written(&light).min(written(&heavy)) > MIB).then_some(()));
    let (start, before) = (Instant::now(), [written(&light), written(&heavy)]);
    eventually("enough to compare", || (written(&heavy) - before[1] > 32 * MIB).then_some(()));
    let share = [written(&light) - before[0], written(&heavy) - before[1]];
    let ratio = share[1] as f64 / share[0] as f64;
    eprintln!("{share:?} bytes in {:?}: {ratio:.1} : 1", start.elapsed());
    assert!((5.0..12.0).contains(&ratio), "{ratio}");

    // The weights are swapped while both write.
    light.set_limits(&Limits::new().io_weight(800)).expect("changed");
    heavy.set_limits(&Limits::new().io_weight(100)).expect("changed");
    let before = [written(&light), written(&heavy)];
    eventually("enough to compare", || (written(&light) - before[0] > 32 * MIB).then_some(()));
    let ratio = (written(&light) - before[0]) as f64 / (written(&heavy) - before[1]) as f64;
    assert!(ratio > 3.0, "{ratio}");
    assert!(writers.iter_mut().all(|child| child.try_wait().expect("a status").is_none()));
    for job in [light, heavy] {
        job.stop(Duration::ZERO).expect("ended");
    }
}
