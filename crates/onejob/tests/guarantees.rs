//! The guarantees of a job are true: freezing, accounting and release.
#![cfg(target_os = "linux")]

mod common;

use std::{fs, time::Duration};

use common::{for_each_mechanism, job};
use onejob::{Accounting, Command, Freeze, Job, ProcessId, Signal, Stdio};
use testkit::eventually;

/// The state letter and the CPU ticks of a process, from `/proc` alone.
fn stat(pid: u32) -> (char, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("alive");
    let fields: Vec<_> = text.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("ticks");
    (fields[0].chars().next().expect("a state"), ticks(11) + ticks(12))
}

/// Starts a busy member in a session of its own and a member that sleeps.
fn busy_tree(job: &Job) -> Vec<u32> {
    job.spawn(
        Command::new("sh").args(["-c", "setsid sh -c 'while :; do :; done' & exec sleep 300"]),
    )
    .expect("started");
    eventually("both run", || {
        let pids: Vec<_> = job.processes().expect("a list").iter().map(|p| p.pid()).collect();
        let busy = pids.iter().any(|pid| stat(*pid).1 > 5);
        (pids.len() == 2 && busy).then_some(pids)
    })
}

/// Members of a frozen job do not run; after a thaw they do.
#[test]
fn freeze_pauses_and_thaw_resumes() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let pids = busy_tree(&job);
        job.freeze().expect("frozen");
        let ticks = || pids.iter().map(|pid| stat(*pid).1).sum::<u64>();
        let before = ticks();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(ticks(), before, "a frozen member has run");
        let stopped = pids.iter().filter(|pid| stat(**pid).0 == 'T').count();
        match job.guarantees().freeze {
            Freeze::Atomic => assert_eq!(stopped, 0, "a frozen cgroup stops no process"),
            _ => assert_eq!(stopped, 2, "the guarantee states that signals stop the members"),
        }
        let refused = job.spawn(Command::new("true")).expect_err("a frozen job");
        assert!(refused.is_unsupported() && refused.to_string().contains("thaw"), "{refused}");
        job.thaw().expect("thawed");
        eventually("it runs again", || (ticks() > before + 5).then_some(()));
        job.kill().expect("killed");
    });
}

/// A frozen job accepts no member: a new process would freeze before `execve`, and std would wait for it.
#[test]
fn a_frozen_job_takes_no_new_members() {
    for_each_mechanism(|mechanism| {
        let named = Job::builder().mechanism(mechanism).name("takes-no-new-members").build();
        for job in [job(mechanism), named.expect("a job")] {
            let _member = job.spawn(Command::new("sleep").arg("300")).expect("started");
            let mut outside =
                std::process::Command::new("sleep").arg("300").spawn().expect("sleep");
            let of_outside = ProcessId::of(outside.id()).expect("alive");
            job.freeze().expect("frozen");
            let view = job.name().map(|name| Job::open(name).expect("a living job"));
            for job in [Some(&job), view.as_ref()].into_iter().flatten() {
                let mut by_std = std::process::Command::new("true");
                let refusals = [
                    job.spawn(Command::new("true")).expect_err("a frozen job"),
                    job.spawn_std(&mut by_std).expect_err("a frozen job"),
                    job.adopt(&of_outside).expect_err("a frozen job"),
                ];
                assert!(refusals.iter().all(onejob::Error::is_unsupported), "{refusals:?}");
            }
            let cgroup = |process: &str| fs::read_to_string(format!("/proc/{process}/cgroup"));
            let its = cgroup(&outside.id().to_string()).expect("alive");
            assert_eq!(its, cgroup("self").expect("this process"), "the process was moved");
            job.kill().expect("killed");
            outside.kill().expect("a child of this process");
            outside.wait().expect("a child of this process");
        }
    });
}

/// A member that was stopped before a freeze is stopped after the thaw.
#[test]
fn stopped_before_freeze_stays_so_after_thaw() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let stopped = job.spawn(Command::new("sleep").arg("300")).expect("started");
        let running = job.spawn(Command::new("sleep").arg("300")).expect("started");
        stopped.signal(Signal::STOP).expect("stopped");
        eventually("it is stopped", || (stat(stopped.pid()).0 == 'T').then_some(()));
        job.freeze().expect("frozen");
        job.thaw().expect("thawed");
        eventually("the other member runs", || (stat(running.pid()).0 == 'S').then_some(()));
        assert_eq!(stat(stopped.pid()).0, 'T');
        job.kill().expect("killed");
    });
}

#[test]
fn a_frozen_job_can_be_stopped_and_killed() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        for stop in [true, false] {
            busy_tree(&job);
            job.freeze().expect("frozen");
            if stop {
                let report = job.stop(Duration::from_secs(60)).expect("stopped");
                assert!(!report.killed, "the signal ended the members: {report:?}");
            } else {
                job.kill().expect("killed");
            }
            assert!(job.is_empty().expect("observable"));
        }
        let mut next = job.spawn(Command::new("true")).expect("not frozen any more");
        assert!(next.wait().expect("a status").success());
    });
}

#[test]
fn cpu_time_includes_the_dead() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let given = job.guarantees();
        assert!(given.cpu_accounting >= Accounting::Reaped, "{given}");
        // The shell reports the times of its children with a resolution of 10 ms.
        let script = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; (while [ $i -lt 120000 ]; \
                      do i=$((i+1)); done); wait; times";
        let mut child = job
            .spawn(Command::new("bash").args(["-c", script]).stdout(Stdio::piped()))
            .expect("started");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut child.stdout.take().expect("piped"), &mut text)
            .expect("text");
        child.wait().expect("a status");
        let seconds = |field: &str| {
            let (minutes, seconds) = field.trim_end_matches('s').split_once('m').expect("0m0.0s");
            60.0 * minutes.parse::<f64>().unwrap() + seconds.parse::<f64>().unwrap()
        };
        let reported: f64 = text.split_whitespace().map(seconds).sum();
        let stats = job.stats().expect("stats");
        let ours = (stats.cpu_user.unwrap() + stats.cpu_system.unwrap()).as_secs_f64();
        assert!(reported > 0.05, "too little CPU time: {reported}");
        assert!(
            ours >= reported * 0.95 && ours <= reported * 1.5 + 0.05,
            "{ours}, but the shell reports {reported}"
        );
        let before = job.stats().expect("stats");
        job.kill().expect("killed");
        let after = job.stats().expect("stats");
        assert!(after.cpu_user >= before.cpu_user, "the CPU time of an ended cgroup is included");
        assert_eq!(after.processes, 0);
    });
}

#[test]
fn a_released_job_lives_on() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let child = job.spawn(Command::new("sleep").arg("300")).expect("started");
        job.release().expect("released");
        assert!(matches!(stat(child.pid()).0, 'S' | 'R' | 'D'));
        child.kill().expect("killed");
    });
}

/// A later job removes a released cgroup that is empty.
#[test]
fn released_cgroup_is_removed_by_a_later_job() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let mut child = job.spawn(Command::new("sleep").arg("300")).expect("started");
        let path = fs::read_to_string(format!("/proc/{}/cgroup", child.pid())).expect("alive");
        job.release().expect("released");
        child.kill().expect("killed");
        let _ = child.wait();
        // Only the mechanism Cgroup has a cgroup. The later job is one of another process.
        if mechanism == onejob::Mechanism::Cgroup {
            let name =
                path.lines().find_map(|line| line.strip_prefix("0::")).expect("v2").to_owned();
            let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
            let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("mounted");
            let dir = format!("{}{name}", mount.split(' ').nth(4).expect("a mount point"));
            eventually("the removal by a later job", || {
                let one = testkit::Bins::get();
                let output = std::process::Command::new(one.onejob())
                    .args(["run", "--mechanism", "cgroup", "--", "true"])
                    .status()
                    .expect("started");
                assert!(output.success());
                (!std::path::Path::new(&dir).exists()).then_some(())
            });
        }
    });
}

#[test]
fn the_numbers_alone_are_those_of_the_members() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        assert_eq!(job.pids().expect("a list"), [0_u32; 0]);
        let mut children: Vec<_> =
            (0..3).map(|_| job.spawn(Command::new("sleep").arg("300")).expect("started")).collect();
        let mut expected: Vec<_> = children.iter().map(onejob::Child::pid).collect();
        let mut pids = job.pids().expect("a list");
        expected.sort_unstable();
        pids.sort_unstable();
        assert_eq!(pids, expected, "{mechanism}");
        children[0].kill().expect("killed");
        children[0].wait().expect("a status");
        let dead = children[0].pid();
        assert!(
            !job.pids().expect("a list").contains(&dead),
            "{mechanism}: a dead member is listed"
        );
    });
}
