//! Views by members of the job, and views of a job that encloses its owner.

use std::{fs, path::PathBuf, time::Duration};

use testkit::{Bins, Owner, eventually, proc};

use crate::fixture::{Fixture, every_environment};

/// Starts a member that does what it is told with the job, as far as it gets.
#[track_caller]
fn member(fixture: &Fixture, owner: &mut Owner, requests: &str) -> (i32, PathBuf) {
    let script = fixture.report.beside(".script");
    let done = fixture.report.beside(".done");
    let text = format!("open dev\n{requests}\ntouch {}\n", done.display());
    fs::write(&script, text).expect("a writable scratch directory");
    let program = Bins::get().owner();
    let linger = fixture.report.beside(".never");
    let (program, script, linger) = (program.display(), script.display(), linger.display());
    let inner = owner.ok(&format!("spawn {program} -f {script} --linger {linger}"));
    let inner: i32 = inner.parse().expect("a pid");
    (eventually("the member", || fixture.sandbox.outer_pid(inner)), done)
}

/// A member that ends its own job is spared and all others end.
#[test]
fn member_ends_its_own_job_and_survives() {
    every_environment(|environment| {
        for end in ["kill", "stop 50", "signal KILL\nwait"] {
            let mut fixture = Fixture::new(environment);
            let mut owner = fixture.process();
            owner.ok(&fixture.new_job("dev"));
            let crowd = fixture.crowd(&mut owner);
            let (member, done) = member(&fixture, &mut owner, end);
            eventually("the member is done", || done.exists().then_some(()));
            assert!(proc::is_alive(member), "{environment}: {end}");
            assert!(
                crowd.escapees.iter().all(|helper| !proc::is_alive(helper.pid)),
                "{environment}"
            );
            assert_eq!(owner.list().len(), 1, "{environment}: {end}");
            fixture.assert_bystanders_alive();
            // To the owner it is a member like any other.
            owner.ok("kill");
            assert!(!proc::is_alive(member));
            owner.ok("drop");
            drop(owner);
            fixture.is_deserted();
        }
    });
}

#[test]
fn a_member_cannot_freeze_itself() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        owner.ok(&fixture.new_job("dev"));
        let (member, done) = member(&fixture, &mut owner, "list\nfreeze\nthaw");
        if environment.mechanism() == "cgroup" {
            // Refused: the script ends there, with its process.
            eventually("the end of the member", || (!proc::is_alive(member)).then_some(()));
        } else {
            eventually("the member goes on", || done.exists().then_some(()));
        }
        owner.ok("drop");
        drop(owner);
        fixture.is_deserted();
    });
}

/// Another process sees and ends an enclosed job with its owner.
#[test]
fn view_ends_an_enclosed_job_with_its_owner() {
    every_environment(|environment| {
        for end in ["kill", "stop 100"] {
            let mut fixture = Fixture::new(environment);
            let (mut owner, mut view) = (fixture.process(), fixture.process());
            let helper = Bins::get().helper();
            owner.ok(&format!("enclose {} name=dev note=around", environment.mechanism()));
            let daemon = format!("outsider {} daemon {}", helper.display(), fixture.report.arg());
            owner.ok(&daemon);
            let escapee = fixture.report.helper(&fixture.sandbox, "escapee");
            view.ok("open dev");
            assert_eq!((view.ok("note"), view.ok("empty")), ("around".into(), "false".into()));
            let members = view.list();
            assert!(members.contains(&owner.inner) && members.contains(&escapee.inner));
            assert!(!members.contains(&view.inner), "{environment}");
            view.ok("freeze");
            assert_eq!(owner.has_reply(Duration::ZERO), None);
            owner.send("list");
            assert_eq!(owner.has_reply(Duration::from_millis(30)), None, "{environment}: it ran");
            view.ok("thaw");
            owner.receive("list").unwrap_or_else(|error| panic!("{environment}: {error}"));
            view.ok(end);
            assert!(!owner.is_alive() && !proc::is_alive(escapee.pid), "{environment}: {end}");
            assert_eq!(view.ok("over"), "true");
            assert_eq!(view.ok("note"), "around");
            drop((owner, view));
            fixture.is_deserted();
        }
    });
}

/// A view sees all of an enclosed job whose owner has frozen the others.
#[test]
fn view_lists_a_frozen_enclosed_job() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = (fixture.process(), fixture.process());
        let helper = Bins::get().helper();
        owner.ok(&format!("enclose {} name=dev", environment.mechanism()));
        owner.ok(&format!("outsider {} daemon {}", helper.display(), fixture.report.arg()));
        let escapee = fixture.report.helper(&fixture.sandbox, "escapee");
        owner.ok("freeze");
        view.ok("open dev");
        let members = view.list();
        assert!(
            members.contains(&owner.inner) && members.contains(&escapee.inner),
            "{environment}"
        );
        assert_eq!(view.ok("empty"), "false", "{environment}");
        // The caller's own part takes members, and runs.
        owner.ok(&format!("outsider {} sleep {}", helper.display(), fixture.report.arg()));
        let sleeper = fixture.report.helper(&fixture.sandbox, "sleeper");
        assert!(view.list().contains(&sleeper.inner), "{environment}");
        view.ok("kill");
        assert!(!owner.is_alive() && !proc::is_alive(escapee.pid) && !proc::is_alive(sleeper.pid));
        drop((owner, view));
        fixture.is_deserted();
    });
}
