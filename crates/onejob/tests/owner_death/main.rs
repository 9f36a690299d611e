//! All members die with the owner of their job.
//!
//! Whenever the owner is killed, and whichever guard dies before it, nothing is left of the job: no member,
//! no guard, no cgroup, no file. The sandbox checks that, never the library.
#![cfg(target_os = "linux")]

mod copies;
mod fallback;
mod fault_points;
mod guards;
mod kill_points;
mod stopped;
mod syscalls;
mod times;
mod zombies;

use std::{
    fs,
    process::{Command, Stdio},
};

use testkit::{
    Environment, Fixture, Guards, Owner, eventually, every_environment, proc, skip, strace,
};

#[test]
fn a_killed_owner_takes_its_whole_tree_along() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        let tree = fixture.fill_job(&mut owner);
        owner.kill();
        fixture.assert_clean();
        assert!(tree.iter().all(|pid| !proc::is_alive(*pid)));
    });
}

/// The members of an owner that is killed while it is stopped die too.
#[test]
fn owner_killed_while_stopped() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        fixture.fill_job(&mut owner);
        proc::signal(owner.pid, rustix::process::Signal::STOP);
        eventually("a stopped owner", || stopped(owner.pid));
        owner.kill();
        fixture.assert_clean();
    });
}

#[test]
fn an_owner_whose_group_a_member_has_stopped() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        fixture.fill_job(&mut owner);
        // The signal reaches all processes in the owner's group. The inner guard is one of them, and the outer
        // guard continues it.
        let script = fixture.report.beside(".stop");
        std::fs::write(&script, "kill -STOP 0").expect("a writable scratch directory");
        owner.send(&format!("spawn /bin/sh {}", script.display()));
        eventually("a stopped owner", || stopped(owner.pid));
        owner.kill();
        fixture.assert_clean();
    });
}

pub(crate) fn stopped(pid: i32) -> Option<()> {
    proc::stat(pid).filter(|stat| stat.state == 'T').map(drop)
}

#[test]
fn what_was_released_survives_the_owner() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner: Owner = fixture.process();
        let tree = fixture.fill_job(&mut owner);
        owner.ok("release");
        owner.kill();
        eventually("the end of the owner", || (!owner.is_alive()).then_some(()));
        fixture.wait_for_guards_to_end();
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "a released member died");
        fixture.kill_survivors(&tree);
    });
}

/// A guard that cannot read whether a job was released reads it again, and does not kill its members.
#[test]
fn what_was_released_survives_without_memory() {
    let Some(strace) = strace::program() else { return skip("strace is not installed") };
    for environment in Environment::of("cgroup") {
        let mut fixture = Fixture::new(environment);
        let mut owner: Owner = fixture.process();
        let tree = fixture.fill_job(&mut owner);
        owner.ok("release");
        let Guards { inner, outer } = fixture.guards();
        let mut tracer = Command::new(&strace);
        for guard in [inner, outer] {
            tracer.arg("-p").arg(guard.to_string());
        }
        // Each guard counts its own calls.
        tracer.args(["-qq", "-o", "/dev/null", "-e", "inject=fgetxattr:error=ENOMEM:when=1..4"]);
        let mut tracer = tracer.stderr(Stdio::null()).spawn().expect("strace starts");
        let is_traced = |pid: i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line == format!("TracerPid:\t{}", tracer.id()))
        };
        eventually("two traced guards", || [inner, outer].into_iter().all(is_traced).then_some(()));
        owner.kill();
        eventually("the end of the guards", || tracer.try_wait().expect("a child"));
        fixture.wait_for_guards_to_end();
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "a released member died");
        fixture.kill_survivors(&tree);
    }
}
