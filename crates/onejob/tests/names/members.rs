//! Views by members of the job, and views of a job that encloses its owner.

use std::{fs, path::PathBuf, time::Duration};

use testkit::{Bins, Fixture, Owner, eventually, every_environment, proc};

use crate::requests::mixed_members;

/// Starts a member that opens its own job and makes these requests; returns its pid and the file that it
/// makes at the end.
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

/// A member that ends its own job survives; all other members end.
#[test]
fn member_ends_its_own_job_and_survives() {
    every_environment(|environment| {
        for end in ["kill", "stop 50", "signal KILL\nwait"] {
            let mut fixture = Fixture::new(environment);
            let mut owner = fixture.process();
            owner.ok(&fixture.new_job("dev"));
            let members = mixed_members(&fixture, &mut owner);
            let (member, done) = member(&fixture, &mut owner, end);
            eventually("the member is done", || done.exists().then_some(()));
            assert!(proc::is_alive(member), "{environment}: {end}");
            assert!(
                members.escapees.iter().all(|helper| !proc::is_alive(helper.pid)),
                "{environment}"
            );
            assert_eq!(owner.list().len(), 1, "{environment}: {end}");
            fixture.assert_bystanders_alive();
            // The owner ends this member too.
            owner.ok("kill");
            assert!(!proc::is_alive(member));
            owner.ok("drop");
            drop(owner);
            fixture.assert_clean();
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
            // The request is refused, and the process of the script ends with an error.
            eventually("the end of the member", || (!proc::is_alive(member)).then_some(()));
        } else {
            eventually("the member to continue", || done.exists().then_some(()));
        }
        owner.ok("drop");
        drop(owner);
        fixture.assert_clean();
    });
}

/// A view lists an enclosed job and ends it, its owner included.
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
            fixture.assert_clean();
        }
    });
}

/// A view lists all members of an enclosed job after its owner has frozen the other members.
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
        // The owner can still start processes.
        owner.ok(&format!("outsider {} sleep {}", helper.display(), fixture.report.arg()));
        let sleeper = fixture.report.helper(&fixture.sandbox, "sleeper");
        assert!(view.list().contains(&sleeper.inner), "{environment}");
        view.ok("kill");
        assert!(!owner.is_alive() && !proc::is_alive(escapee.pid) && !proc::is_alive(sleeper.pid));
        drop((owner, view));
        fixture.assert_clean();
    });
}
