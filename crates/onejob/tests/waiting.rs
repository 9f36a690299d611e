//! Waits end exactly when they should, and nothing wakes while there is nothing to do.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use common::{alone, for_each_mechanism, job, standing_guards};
use onejob::{Command, Signal, Stdio};
use testkit::eventually;

/// Long enough for anything but a hang.
const LONG: Duration = Duration::from_secs(120);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// A job is waited for until the last member is gone and not longer.
#[test]
fn wait_ends_with_the_last_member() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let dir = testkit::scratch_dir();
        let ended = dir.join("ended");
        let script = format!("(setsid sh -c 'sleep 0.3; echo x > {}' &)", ended.display());
        let mut leader = job.spawn(shell(&script)).expect("started");
        leader.wait().expect("a status");
        assert!(!job.is_empty().expect("observable"), "the daemon lives");
        job.wait().expect("waited");
        assert!(ended.exists(), "waited until the daemon had ended");
        assert!(job.is_empty().expect("observable"));
        job.wait().expect("an empty job is not waited for");
    });
}

/// A child is waited for exactly while a grandchild holds its pipes.
#[test]
fn wait_ignores_a_grandchild_that_holds_pipes() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let mut child = job
            .spawn(shell("sleep 300 & echo said; exit 42").stdout(Stdio::piped()))
            .expect("started");
        let status = child.wait_timeout(LONG).expect("a status").expect("it has ended");
        assert_eq!(status.code(), Some(42));
        let mut said = [0; 5];
        child.stdout.as_mut().expect("piped").read_exact(&mut said).expect("what it said");
        assert_eq!(&said, b"said\n");
        job.kill().expect("killed");
    });
}

#[test]
fn every_status_is_exact() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        for code in [0, 1, 2, 100, 127, 255] {
            let mut child = job.spawn(shell(&format!("exit {code}"))).expect("started");
            assert_eq!(child.wait().expect("a status").code(), Some(code));
            assert_eq!(child.wait().expect("again").code(), Some(code));
        }
        // None that a background job or nohup ignores, as the tests may be one of either.
        for signal in [Signal::TERM, Signal::KILL, Signal::USR1, Signal::USR2, Signal::ABRT] {
            let script = format!("ulimit -c 0; kill -{} $$; sleep 300", signal.as_raw());
            let mut child = job.spawn(shell(&script)).expect("started");
            let ours = child.wait().expect("a status");
            let stds = common::std_status("sh", &["-c", &script]);
            assert_eq!(ours, stds, "{signal}");
            assert_eq!(ours.signal(), Some(signal.as_raw()));
            assert_eq!(ours.core_dumped(), stds.core_dumped());
        }
    });
}

#[test]
fn a_core_dump_is_told() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let dir = testkit::scratch_dir();
        let script = "ulimit -c unlimited 2>/dev/null; kill -ABRT $$; sleep 300";
        let stds = std::process::Command::new("sh")
            .args(["-c", script])
            .current_dir(&dir)
            .status()
            .expect("std starts it");
        let mut child = job.spawn(shell(script).current_dir(&dir)).expect("started");
        let ours = child.wait().expect("a status");
        assert_eq!((ours, ours.core_dumped()), (stds, stds.core_dumped()));
    });
}

#[test]
fn a_timeout_is_exact() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let mut child = job.spawn(Command::new("sleep").arg("300")).expect("started");
        let mut best = Duration::MAX;
        // The machine may stall: the best of some is the product's own.
        for _ in 0..10 {
            let timeout = Duration::from_millis(30);
            let start = Instant::now();
            assert!(!job.wait_timeout(timeout).expect("observable"));
            let job_took = start.elapsed();
            let start = Instant::now();
            assert_eq!(child.wait_timeout(timeout).expect("observable"), None);
            let child_took = start.elapsed();
            assert!(job_took >= timeout && child_took >= timeout, "never early");
            best = best.min(job_took.max(child_took) - timeout);
        }
        assert!(best < Duration::from_millis(5), "late by {best:?}");
        assert_eq!(child.try_wait().expect("observable"), None);
        child.kill().expect("killed");
        assert_eq!(child.wait().expect("a status").signal(), Some(9));
    });
}

#[test]
fn an_end_is_noticed_at_once() {
    for_each_mechanism(|mechanism| {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let job = job(mechanism);
            let child = job.spawn(Command::new("sleep").arg("300")).expect("started");
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    job.wait().expect("waited");
                    Instant::now()
                });
                eventually("the waiter waits", || (!waiter.is_finished()).then_some(()));
                let killed = Instant::now();
                child.kill().expect("killed");
                best = best.min(waiter.join().expect("no panic") - killed);
            });
        }
        assert!(best < Duration::from_millis(50), "noticed after {best:?}");
    });
}

/// How often the threads of a process have been switched to, wanted or not.
fn switches(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let status =
        |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap_or_default();
    let count = |text: String| -> u64 {
        let lines = text.lines().filter(|line| line.contains("ctxt_switches"));
        lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum()
    };
    tasks.flatten().map(|task| count(status(task))).sum()
}

#[test]
fn nothing_wakes_while_there_is_nothing_to_do() {
    const NAME: &str = "nothing_wakes_while_there_is_nothing_to_do";
    if !alone(NAME, |_| {}) {
        return;
    }
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let mut child = job.spawn(Command::new("sleep").arg("300")).expect("started");
        std::thread::scope(|scope| {
            let waiters = [
                scope.spawn(|| assert!(job.wait().is_ok())),
                scope.spawn(|| assert!(child.wait().is_ok())),
            ];
            let mut watched = standing_guards();
            let me = std::process::id() as i32;
            watched.push(me);
            // All have gone to sleep once their counts stand still; then watch for a while. This
            // thread's own naps are what it adds to the process' count: one each.
            let all = || watched.iter().map(|pid| switches(*pid)).sum::<u64>();
            let nap = |time| {
                let before = all();
                std::thread::sleep(time);
                all() - before
            };
            eventually("everybody sleeps", || (nap(Duration::from_millis(100)) <= 1).then_some(()));
            // A machine that stalls switches once more than it must: the best of three counts.
            let woken = || nap(Duration::from_secs(5));
            let quiet = (0..3).any(|_| woken() <= 1);
            assert!(quiet, "somebody wakes up within five seconds of doing nothing");
            job.kill().expect("killed");
            for waiter in waiters {
                waiter.join().expect("no panic");
            }
        });
    });
}

/// A stolen status is recovered or an error and never a hang.
#[test]
fn status_taken_by_another_waiter() {
    const NAME: &str = "status_taken_by_another_waiter";
    if !alone(NAME, |_| {}) {
        return;
    }
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let mut child = job.spawn(shell("exit 9")).expect("started");
        let mut status = 0;
        // SAFETY: writes a status. Elsewhere in a program this steals whoever ends first.
        let stolen = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        let told = child.wait();
        if stolen == child.pid() as i32 {
            match told {
                Ok(status) => assert_eq!(status.code(), Some(9)),
                Err(error) => assert!(error.to_string().contains("waited for it"), "{error}"),
            }
        } else {
            assert_eq!(stolen, -1, "guards are nobody's children");
            assert_eq!(told.expect("the guard's child cannot be stolen").code(), Some(9));
        }
    });
}

#[test]
fn an_ignored_sigchld_is_no_hang() {
    const NAME: &str = "an_ignored_sigchld_is_no_hang";
    if !alone(NAME, |_| {}) {
        return;
    }
    // SAFETY: changes a disposition of this process.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let mut child = job.spawn(shell("exit 9")).expect("started");
        match child.wait() {
            Ok(status) => assert_eq!(status.code(), Some(9)),
            Err(error) => assert!(error.to_string().contains("waited for it"), "{error}"),
        }
        job.wait().expect("waited");
    });
}

/// Children that nobody waits for leave no zombies.
#[test]
fn dropped_children_leave_no_zombies() {
    const NAME: &str = "dropped_children_leave_no_zombies";
    if !alone(NAME, |_| {}) {
        return;
    }
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        for _ in 0..20 {
            drop(job.spawn(Command::new("true")).expect("started"));
        }
        job.wait().expect("waited");
        eventually("no zombies", || {
            job.is_empty().expect("observable");
            let childless =
                fs::read_dir("/proc/self/task").expect("threads").flatten().all(|task| {
                    let children = fs::read_to_string(task.path().join("children"));
                    children.unwrap_or_default().trim().is_empty()
                });
            childless.then_some(())
        });
    });
}

#[test]
fn the_owner_s_other_children_are_its_own_affair() {
    const NAME: &str = "the_owner_s_other_children_are_its_own_affair";
    if !alone(NAME, |_| {}) {
        return;
    }
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let mut mine = std::process::Command::new("sh")
            .args(["-c", "(sleep 1 &) ; exit 5"])
            .spawn()
            .expect("started");
        // A wait for any child ends with ours and never meets a guard.
        assert_eq!(mine.wait().expect("a status").code(), Some(5));
        // SAFETY: asks without a place for the status.
        let next = unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
        assert_eq!(next, -1, "neither the guard nor the orphan of our child is a child of ours");
        drop(job);
    });
}
