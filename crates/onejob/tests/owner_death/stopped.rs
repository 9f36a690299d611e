//! Guards that were stopped, which a member of the same user can do: nothing waits for them without an
//! end, and none stays stopped for good.

use std::{
    fs,
    process::{Child, Stdio},
};

use rustix::process::Signal;
use testkit::{Bins, Owner, eventually, proc};

use crate::{
    fixture::{Fixture, Guards, environments, every_environment, signal},
    stopped,
};

/// Stops both at one time.
#[track_caller]
fn stop_both(fixture: &Fixture) -> Guards {
    let guards = fixture.guards();
    proc::stop_together(&[guards.outer, guards.inner]);
    guards
}

/// A script of the shell as a request.
fn script(fixture: &Fixture, text: &str) -> String {
    let script = fixture.report.beside(".sh");
    fs::write(&script, text).expect("a writable scratch directory");
    format!("spawn /bin/sh {}", script.display())
}

#[test]
fn a_stopped_inner_guard_is_continued_at_once() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        fixture.tree_of(&mut owner);
        let Guards { inner, .. } = fixture.guards();
        for _ in 0..20 {
            signal(inner, Signal::STOP);
        }
        eventually("a guard that goes on", || {
            proc::stat(inner).filter(|stat| stat.state != 'T').map(drop)
        });
        owner.kill();
        fixture.is_deserted();
    });
}

/// Whatever the owner asks for, it gets, and at the end no guard is left.
#[test]
fn both_stopped_before_each_request() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner: Owner = fixture.owner();
        fixture.tree_of(&mut owner);
        for request in [&*fixture.spawn("setsid"), "list", "stats", "kill"] {
            stop_both(&fixture);
            owner.ok(request);
        }
        stop_both(&fixture);
        owner.ok("drop");
        owner.end();
        fixture.is_deserted();
    });
}

#[test]
fn both_stopped_when_a_child_ends() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
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
        fixture.is_deserted();
    });
}

/// With the outer one stopped and the inner one killed, the owner has the job ended all the same.
#[test]
fn one_stopped_and_the_other_one_killed() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        fixture.tree_of(&mut owner);
        let Guards { inner, outer } = fixture.guards();
        signal(outer, Signal::STOP);
        eventually("a stopped guard", || stopped(outer));
        signal(inner, Signal::KILL);
        owner.ok("stop 20");
        owner.ok("drop");
        owner.end();
        fixture.is_deserted();
    });
}

/// Nothing but a guard could end the job then; the first that is continued does.
#[test]
fn both_stopped_when_the_owner_dies() {
    every_environment(|environment| {
        for is_inner in [false, true] {
            let mut fixture = Fixture::new(environment);
            let mut owner = fixture.owner();
            let tree = fixture.tree_of(&mut owner);
            let guards = stop_both(&fixture);
            owner.kill();
            eventually("the end of the owner", || (!owner.is_alive()).then_some(()));
            assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "ended by what?");
            signal(if is_inner { guards.inner } else { guards.outer }, Signal::CONT);
            fixture.is_deserted();
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

/// `onejob run` ends as its command does, which has stopped its parent, and that one's parent.
#[test]
fn a_command_that_stops_its_parents() {
    for environment in environments("subreaper") {
        let stop_all = "read -r _ _ _ outer _ </proc/$PPID/stat; kill -STOP $outer $PPID; exit 3";
        for text in ["kill -STOP $PPID; exit 3", stop_all] {
            let mut fixture = Fixture::new(environment);
            let mut run = run(&mut fixture, text);
            let status = eventually("the end of `onejob run`", || run.try_wait().expect("a child"));
            fixture.stand_by_apart();
            assert_eq!(status.code(), Some(3), "{environment}: {text}");
            fixture.is_deserted();
        }
    }
}
