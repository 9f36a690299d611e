//! Several threads that use one job at the same time.
#![cfg(target_os = "linux")]

mod common;

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{for_each_mechanism, job};
use onejob::{Child, Command, Job, Signal};

/// Starts members from several threads while another thread calls `act` without a pause.
#[track_caller]
fn spawns_while(job: &Job, act: impl Fn() + Sync) {
    const SPAWNERS: usize = 4;
    const SPAWNS: usize = 150;
    let over = AtomicBool::new(false);
    // A user may have 1,024 descriptors, and a child under Subreaper takes some.
    const AT_ONCE: usize = 15;
    let spawn = || {
        let (mut children, mut failed) = (Vec::new(), Vec::new());
        for _ in 0..SPAWNS {
            match job.spawn(Command::new("true")) {
                Ok(child) => children.push(child),
                Err(error) => failed.push(format!("{error:?}")),
            }
            if children.len() == AT_ONCE {
                children.drain(..).for_each(reap);
            }
        }
        children.into_iter().for_each(reap);
        failed
    };
    let failed: Vec<String> = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                act();
            }
        });
        let spawners: Vec<_> = (0..SPAWNERS).map(|_| scope.spawn(spawn)).collect();
        let joined = spawners.into_iter().map(|spawner| spawner.join().expect("no panic"));
        let failed = joined.flatten().collect();
        over.store(true, Ordering::Relaxed);
        failed
    });
    assert!(failed.is_empty(), "{} of {}: {}", failed.len(), SPAWNERS * SPAWNS, failed[0]);
    assert!(job.is_empty().expect("observable"));
}

/// Waits for a child, which may have been killed.
fn reap(mut child: Child) {
    child.wait().expect("a status");
}

/// A spawn succeeds, in a new cgroup, if another thread kills the job meanwhile.
#[test]
fn a_spawn_during_a_kill_starts_a_process() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        spawns_while(&job, || _ = job.kill().expect("killed"));
    });
}

/// The same if a view kills the job.
#[test]
fn a_spawn_during_a_kill_by_a_view() {
    for_each_mechanism(|mechanism| {
        let name = format!("race-{mechanism}-{}", std::process::id());
        let job = Job::builder().mechanism(mechanism).name(&name).build().expect("a job");
        let view = Job::open(&name).expect("it is listed");
        spawns_while(&job, || _ = view.kill().expect("killed"));
    });
}

/// A freeze does not suspend a thread that is in a spawn: the spawn ends, with a member or an error.
#[test]
fn a_spawn_during_a_freeze_returns() {
    spawns_return_after(|job| job.freeze().expect("frozen"), |job| job.thaw().expect("thawed"));
}

/// A SIGSTOP to all members does not suspend a thread that is in a spawn.
#[test]
fn a_spawn_during_a_stop_signal_returns() {
    let send = |signal| move |job: &Job| _ = job.signal(signal).expect("sent");
    spawns_return_after(send(Signal::STOP), send(Signal::CONT));
}

/// Between `stop` and `go`, spawns of another thread return.
fn spawns_return_after(stop: impl Fn(&Job), go: impl Fn(&Job)) {
    const ROUNDS: usize = 200;
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let (spawns, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // A member ends after the next thaw only.
                    drop(job.spawn(Command::new("true")));
                    spawns.fetch_add(1, Ordering::Relaxed);
                }
            });
            let mut returned = true;
            for round in 0..ROUNDS {
                thread::sleep(Duration::from_micros(37 * (round as u64 % 23)));
                stop(&job);
                let before = spawns.load(Ordering::Relaxed);
                let start = Instant::now();
                // The first can be one that began before, the second is refused.
                while returned && spawns.load(Ordering::Relaxed) < before + 2 {
                    returned = start.elapsed() < testkit::DEADLINE;
                    thread::yield_now();
                }
                go(&job);
            }
            is_over.store(true, Ordering::Relaxed);
            assert!(
                returned,
                "{mechanism}: a spawn did not return before the members were continued"
            );
        });
    });
}

/// A freeze and a thaw at the same time both end at once.
#[test]
fn a_freeze_during_a_thaw_returns() {
    const ROUNDS: usize = 300;
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let mut member = job.spawn(Command::new("sleep").arg("300")).expect("started");
        let timed = |act: &dyn Fn() -> onejob::Result<()>| {
            let start = Instant::now();
            act().expect("done");
            start.elapsed()
        };
        for _ in 0..ROUNDS {
            let longest = thread::scope(|scope| {
                let freeze = scope.spawn(|| timed(&|| job.freeze()));
                let thaw = timed(&|| job.thaw());
                freeze.join().expect("no panic").max(thaw)
            });
            // It is ten seconds after which a freeze fails.
            assert!(longest < Duration::from_secs(8), "{mechanism}: {longest:?}");
        }
        job.kill().expect("killed");
        member.wait().expect("a status");
    });
}

/// A spawn by a forked copy of the owner, as `daemon(3)` makes it, is the same error with every mechanism.
#[test]
fn a_forked_copy_starts_nothing() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        // SAFETY: the copy tries to start a process, and ends without running anything else.
        let copy = unsafe { libc::fork() };
        assert!(copy >= 0, "forked");
        if copy == 0 {
            let refused = job.spawn(Command::new("true")).err();
            let is_clear = refused.is_some_and(|error| {
                error.is_unsupported() && error.to_string().contains("forked copy")
            });
            // SAFETY: no preconditions.
            unsafe { libc::_exit(i32::from(!is_clear)) };
        }
        let mut status = -1;
        // SAFETY: the status is a local.
        assert_eq!(unsafe { libc::waitpid(copy, &mut status, 0) }, copy);
        assert_eq!(status, 0, "{mechanism}: the error of the copy");
        let mut child = job.spawn(Command::new("true")).expect("started");
        assert!(child.wait().expect("a status").success());
    });
}
