//! Waits end at the right time, and no process wakes up while nothing happens.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use common::{alone, await_guards, for_each_mechanism, job};
use onejob::{Command, Signal, Stdio};
use testkit::eventually;

/// Only a hang takes longer.
const LONG: Duration = Duration::from_secs(120);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// A wait for a job ends with its last member.
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

/// A wait for a child ends with the child although a grandchild holds its pipes.
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
        // Without SIGINT, SIGQUIT and SIGHUP: these are ignored if the tests run in the background or under nohup.
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
fn a_core_dump_is_reported() {
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
        // The shortest delay of ten, since the machine may stall.
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

/// The number of context switches of all threads of a process.
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
            let mut watched = await_guards();
            let me = std::process::id() as i32;
            watched.push(me);
            // All threads sleep when their counts do not change any more. Each sleep of this thread adds one to
            // the count of this process.
            let all = || watched.iter().map(|pid| switches(*pid)).sum::<u64>();
            let nap = |time| {
                let before = all();
                std::thread::sleep(time);
                all() - before
            };
            eventually("all threads to sleep", || {
                (nap(Duration::from_millis(100)) <= 1).then_some(())
            });
            // The lowest of three counts, since a stalled machine can add switches.
            let woken = || nap(Duration::from_secs(5));
            let quiet = (0..3).any(|_| woken() <= 1);
            assert!(quiet, "a process wakes up within five seconds without an event");
            job.kill().expect("killed");
            for waiter in waiters {
                waiter.join().expect("no panic");
            }
        });
    });
}

/// If other code has taken the status of a child, a wait returns it or an error, and does not hang.
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
        // SAFETY: writes a status. A program that waits for any child does this.
        let reaped = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        let waited = child.wait();
        if reaped == child.pid() as i32 {
            match waited {
                Ok(status) => assert_eq!(status.code(), Some(9)),
                Err(error) => assert!(error.to_string().contains("waited for it"), "{error}"),
            }
        } else {
            assert_eq!(reaped, -1, "guards are not children of the owner");
            assert_eq!(waited.expect("only the guard can reap its child").code(), Some(9));
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

/// Children that are dropped without a wait leave no zombies.
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
fn other_children_of_the_owner() {
    const NAME: &str = "other_children_of_the_owner";
    if !alone(NAME, |_| {}) {
        return;
    }
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let mut mine = std::process::Command::new("sh")
            .args(["-c", "(sleep 1 &) ; exit 5"])
            .spawn()
            .expect("started");
        // A wait for any child never returns a guard.
        assert_eq!(mine.wait().expect("a status").code(), Some(5));
        // SAFETY: a null status is allowed.
        let next = unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
        assert_eq!(next, -1, "this process has a guard or an orphan as a child");
        drop(job);
    });
}
