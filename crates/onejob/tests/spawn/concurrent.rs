//! Spawns at the same time, and beside programs that hang in `execve`.

use std::os::unix::process::ExitStatusExt;

use onejob::{Command, Job, Stdio};
use testkit::{Hanging, eventually};

use crate::common::{for_each_mechanism, job};

/// Several threads start children of one job at once.
#[test]
fn concurrent_spawns_into_one_job() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let job = &job;
                scope.spawn(move || {
                    for round in 0..20 {
                        let code = thread * 20 + round;
                        let exit = format!("exit {code}");
                        let mut child = job.spawn(Command::new("sh").args(["-c", &exit])).unwrap();
                        assert_eq!(child.wait().unwrap().code(), Some(code));
                    }
                });
            }
        });
        assert!(job.is_empty().expect("observable"));
    });
}

/// Programs that hang in `execve` do not block other spawns, and die with the job.
#[test]
fn hanging_exec_does_not_block_other_spawns() {
    for_each_mechanism(|mechanism| {
        // On a stalled machine their `execve` can continue before the others have ended.
        const TRIES: usize = 3;
        let in_time = (0..TRIES).any(|_| start_beside_hanging_programs(&job(mechanism)));
        assert!(in_time, "{mechanism}: other spawns wait for the hanging ones");
    });
}

/// Whether the hanging programs were still hanging when the other children had ended.
fn start_beside_hanging_programs(job: &Job) -> bool {
    const COUNT: usize = 12;
    let hanging = Hanging::new();
    let start = || {
        let mut command = Command::new(hanging.program());
        job.spawn(command.args(["sleep", "/dev/null"]).stdin(Stdio::null()))
    };
    let in_time = std::thread::scope(|scope| {
        let all: Vec<_> = (0..COUNT).map(|_| scope.spawn(start)).collect();
        eventually("all hanging processes", || {
            (job.pids().expect("a list").len() == COUNT).then_some(())
        });
        for code in 0..20 {
            let exit = format!("exit {code}");
            let mut other = job.spawn(Command::new("sh").args(["-c", &exit])).expect("started");
            assert_eq!(other.wait().expect("a status").code(), Some(code));
        }
        let in_time = all.iter().all(|one| !one.is_finished());
        job.kill().expect("killed");
        for one in all {
            let mut one = one.join().expect("no panic").expect("a process");
            assert_eq!(one.wait().expect("a status").signal(), Some(libc::SIGKILL));
        }
        in_time
    });
    assert!(job.is_empty().expect("observable"));
    in_time
}
