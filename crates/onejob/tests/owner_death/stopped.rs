//! Guards that are stopped, for example by a member of the same user: no request waits for ever, and no guard
//! stays stopped.

use std::{
    fs,
    process::{Child, Stdio},
};

use rustix::process::Signal;
use testkit::{Bins, Environment, Fixture, Guards, Owner, eventually, every_environment, proc};

use crate::stopped;

/// Stops both guards at one time.
#[track_caller]
fn stop_both(fixture: &Fixture) -> Guards {
    let guards = fixture.guards();
    proc::stop_together(&[guards.outer, guards.inner]);
    guards
}

/// A request that starts a shell script as a member.
fn script(fixture: &Fixture, text: &str) -> String {
    let script = fixture.report.beside(".sh");
    fs::write(&script, text).expect("a writable scratch directory");
    format!("spawn /bin/sh {}", script.display())
}

#[test]
fn a_stopped_inner_guard_is_continued_at_once() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        fixture.fill_job(&mut owner);
        let Guards { inner, .. } = fixture.guards();
        for _ in 0..20 {
            proc::signal(inner, Signal::STOP);
        }
        eventually("a guard that runs again", || {
            proc::stat(inner).filter(|stat| stat.state != 'T').map(drop)
        });
        owner.kill();
        fixture.assert_clean();
    });
}

/// Each request succeeds although both guards are stopped before it, and no guard is left at the end.
#[test]
fn both_stopped_before_each_request() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner: Owner = fixture.process();
        fixture.fill_job(&mut owner);
        for request in [&*fixture.spawn("setsid"), "list", "stats", "kill"] {
            stop_both(&fixture);
            owner.ok(request);
        }
        stop_both(&fixture);
        owner.ok("drop");
        owner.end();
        fixture.assert_clean();
    });
}

#[test]
fn both_stopped_when_a_child_ends() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        owner.new_job();
        let go = fixture.report.beside(".done");
        let wait = format!("until [ -e {} ]; do sleep 0.01; done; exit 3", go.display());
        owner.ok(&script(&fixture, &wait));
        stop_both(&fixture);
        owner.send("child-wait");
        fs::write(&go, "").expect("a writable scratch directory");
        assert_eq!(owner.receive("child-wait").as_deref(), Ok("code 3"));
        owner.ok("drop");
        owner.kill();
        fixture.assert_clean();
    });
}

/// The owner can stop its job with the outer guard stopped and the inner one killed.
#[test]
fn one_stopped_and_the_other_one_killed() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        fixture.fill_job(&mut owner);
        let Guards { inner, outer } = fixture.guards();
        proc::signal(outer, Signal::STOP);
        eventually("a stopped guard", || stopped(outer));
        proc::signal(inner, Signal::KILL);
        owner.ok("stop 20");
        owner.ok("drop");
        owner.end();
        fixture.assert_clean();
    });
}

/// If both guards are stopped when the owner dies, the first guard that is continued ends the job.
#[test]
fn both_stopped_when_the_owner_dies() {
    every_environment(|environment| {
        for is_inner in [false, true] {
            let mut fixture = Fixture::new(environment);
            let mut owner = fixture.process();
            let tree = fixture.fill_job(&mut owner);
            let guards = stop_both(&fixture);
            owner.kill();
            eventually("the end of the owner", || (!owner.is_alive()).then_some(()));
            assert!(
                tree.iter().all(|pid| proc::is_alive(*pid)),
                "no guard runs that could end them"
            );
            proc::signal(if is_inner { guards.inner } else { guards.outer }, Signal::CONT);
            fixture.assert_clean();
        }
    });
}

fn run(fixture: &mut Fixture, text: &str) -> Child {
    let mechanism = fixture.environment.mechanism();
    fixture.sandbox.start(&Bins::get().onejob(), |run| {
        run.args(["run", "--mechanism", mechanism, "--", "/bin/sh", "-c", text]);
        run.stdin(Stdio::null()).stdout(Stdio::null());
    })
}

/// `onejob run` has the exit status of a command that has stopped its parent and the parent of that.
#[test]
fn a_command_that_stops_its_parents() {
    for environment in Environment::of("subreaper") {
        let stop_all = "read -r _ _ _ outer _ </proc/$PPID/stat; kill -STOP $outer $PPID; exit 3";
        for text in ["kill -STOP $PPID; exit 3", stop_all] {
            let mut fixture = Fixture::new(environment);
            let mut run = run(&mut fixture, text);
            let status = eventually("the end of `onejob run`", || run.try_wait().expect("a child"));
            fixture.start_bystanders_apart();
            assert_eq!(status.code(), Some(3), "{environment}: {text}");
            fixture.assert_clean();
        }
    }
}
