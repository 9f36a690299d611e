//! A name is free when its job has ended, whatever ended it.

use std::{fs, time::Duration};

use testkit::{Bins, Fixture, eventually, every_environment, proc};

use crate::requests::{jobs, mixed_members, refused};

/// A name is free when its job was dropped or released, or its owner has ended.
#[test]
fn name_is_free_after_drop_release_or_owner_end() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut other) = (fixture.process(), fixture.process());
        for end in ["drop", "release", "exit"] {
            owner.ok(&fixture.new_job("dev"));
            owner.ok(&fixture.spawn("sleep"));
            let taken = refused(&mut other, &fixture.new_job("dev"), "taken");
            assert!(taken.contains("dev") && taken.contains('('), "no hint: {taken}");
            other.ok("open dev");
            owner.ok(end);
            assert_eq!(other.ok("over"), "true", "{environment}: {end}");
            assert_eq!(fixture.sandbox.runtime_files(), [] as [&str; 0], "{environment}: {end}");
            other.ok(&fixture.new_job("dev"));
            other.ok("drop");
        }
        fixture.sandbox.live().iter().for_each(|living| {
            let sleeper = living.stat.as_ref().is_some_and(|stat| stat.comm == "helper");
            if sleeper {
                proc::kill_together(&[living.pid]);
            }
        });
        // The next owner removes a released job that is empty.
        let mut next = fixture.process();
        next.ok(&fixture.new_job("dev"));
        next.ok("drop");
        drop((owner, other, next));
        fixture.assert_clean();
    });
}

/// A view does not keep the job of a killed owner alive.
#[test]
fn view_does_not_keep_a_job_alive() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = fixture.owner_and_view();
        let mut waiter = fixture.process();
        waiter.ok("open dev");
        owner.ok("set-note last note");
        mixed_members(&fixture, &mut owner);
        view.send("over");
        waiter.send("wait");
        assert_eq!(view.has_reply(Duration::from_millis(20)), None);
        owner.kill();
        assert_eq!(view.receive("over").as_deref(), Ok("true"), "{environment}");
        waiter.receive("wait").unwrap_or_else(|error| panic!("{environment}: {error}"));
        assert_eq!(view.ok("note"), "last note");
        view.ok(&fixture.new_job("dev"));
        view.ok("drop");
        drop((view, waiter));
        fixture.assert_clean();
    });
}

/// The next process that uses jobs ends the job of an owner that was killed together with its guards.
#[test]
fn next_job_ends_what_dead_owner_and_guards_left() {
    every_environment(|environment| {
        for request in ["jobs", "open dev", "new"] {
            let mut fixture = Fixture::new(environment);
            let mut owner = fixture.process();
            owner.ok(&fixture.new_job("dev"));
            owner.ok(&fixture.spawn("daemon"));
            let escapee = fixture.report.helper(&fixture.sandbox, "escapee");
            let mut all = fixture.sandbox.named("onejob-guard");
            assert_eq!(all.len(), 2, "{environment}");
            all.push(owner.pid);
            proc::kill_together(&all);
            eventually("their end", || all.iter().all(|pid| !proc::is_alive(*pid)).then_some(()));
            let mut next = fixture.process();
            match request {
                "jobs" => assert_eq!(jobs(&mut next), []),
                "new" => drop(next.ok(&fixture.new_job("dev"))),
                _ => drop(refused(&mut next, request, "not-found")),
            }
            if environment.mechanism() == "cgroup" {
                fixture.wait_for_end(escapee.pid);
            } else {
                // Without its guards the member cannot be found, as the guarantees of the job state.
                proc::kill_together(&fixture.sandbox.named("helper"));
            }
            next.ok("exit");
            drop((owner, next));
            fixture.assert_clean();
        }
    });
}

/// A view that waits cleans up when the owner and both guards were killed.
#[test]
fn waiter_cleans_up_after_owner_and_guards() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (owner, mut view) = fixture.owner_and_view();
        view.send("over");
        assert_eq!(view.has_reply(Duration::from_millis(20)), None);
        let mut all = fixture.sandbox.named("onejob-guard");
        all.push(owner.pid);
        proc::kill_together(&all);
        assert_eq!(view.receive("over").as_deref(), Ok("true"), "{environment}");
        drop((owner, view));
        fixture.assert_clean();
    });
}

/// A job with a dead guard can be opened, and its note and its members are known.
#[test]
fn job_with_dead_guards_can_be_opened() {
    every_environment(|environment| {
        for guard in 0..2 {
            let mut fixture = Fixture::new(environment);
            let mut owner = fixture.process();
            owner.ok(&format!("{} note=mine", fixture.new_job("dev")));
            owner.ok(&fixture.spawn("sleep"));
            let sleeper = fixture.report.helper(&fixture.sandbox, "sleeper");
            let guards = fixture.sandbox.named("onejob-guard");
            let inner = |pid: &&i32| {
                let parent = proc::stat(**pid).expect("alive").ppid;
                guards.contains(&parent) == (guard == 0)
            };
            proc::kill_together(&[*guards.iter().find(inner).expect("two guards")]);
            let mut view = fixture.process();
            // The death of the inner guard ends a subreaper job, and the record is removed.
            if environment.mechanism() == "subreaper" && guard == 0 {
                fixture.wait_for_end(sleeper.pid);
                eventually("the job is over", || view.request("open dev").is_err().then_some(()));
            } else {
                view.ok("open dev");
                assert_eq!((view.ok("note"), view.list()), ("mine".into(), vec![sleeper.inner]));
                view.ok("kill");
            }
            owner.ok("drop");
            drop((owner, view));
            fixture.assert_clean();
        }
    });
}

/// Unfinished records of killed owners are removed.
#[test]
fn temp_records_of_dead_owners_are_removed() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        owner.ok(&fixture.new_job("dev"));
        let before = fixture.sandbox.runtime_files().len();
        let mut maker = fixture.process();
        // The files must belong to the user of the sandbox.
        let script = "touch";
        for suffix in [".new", ".socket", ".frozen", ".frozen.new"] {
            maker.ok(&format!(
                "{script} {}/00000000deadbeef-1{suffix}",
                fixture.sandbox.runtime_dir().display()
            ));
        }
        assert_eq!(jobs(&mut maker).len(), 1);
        assert_eq!(
            fixture.sandbox.runtime_files().len(),
            before,
            "{environment}: {:?}",
            fixture.sandbox.runtime_files()
        );
        maker.ok("open dev");
        maker.ok(&fixture.spawn("sleep"));
        owner.ok("drop");
        drop((owner, maker));
        fixture.assert_clean();
    });
}

/// Five hundred jobs of one owner are listed, and nothing is left when the owner is killed.
#[test]
fn five_hundred_jobs() {
    every_environment(|environment| {
        // Under Subreaper each job has two guards: a tenth is enough.
        let count = if environment.mechanism() == "cgroup" { 500 } else { 50 };
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = (fixture.process(), fixture.process());
        owner.ok(&format!("many {count} {}", environment.mechanism()));
        let seen = jobs(&mut view);
        assert_eq!(seen.len(), count, "{environment}");
        assert!(seen.iter().any(|job| job.name == format!("many-{}", count - 1)));
        view.ok("open many-7");
        owner.kill();
        assert_eq!(view.ok("over"), "true");
        eventually("the end of all", || fixture.sandbox.runtime_files().is_empty().then_some(()));
        drop((owner, view));
        fixture.assert_clean();
    });
}

/// A forked copy of the owner neither ends the job nor keeps the name.
#[test]
fn forked_copy_keeps_neither_job_nor_name() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = fixture.owner_and_view();
        owner.ok("forked-drop");
        assert_eq!(view.ok("over 0"), "false", "{environment}");
        let copy = owner.ok("forked-copy");
        let copy: i32 = copy.parse().expect("a pid");
        let copy = fixture.sandbox.outer_pid(copy).expect("the copy");
        owner.kill();
        assert_eq!(view.ok("over"), "true", "{environment}: not over while a copy lives");
        let helper = Bins::get().helper();
        assert!(fs::exists(helper).expect("a program"));
        proc::kill_together(&[copy]);
        drop((owner, view));
        fixture.assert_clean();
    });
}
