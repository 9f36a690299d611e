//! The name dies with its job, however that ends.

use std::{fs, time::Duration};

use testkit::{Bins, eventually, proc};

use crate::scene::{Scene, every_setting, files, jobs, kill_together, refused};

#[test]
fn a_name_is_free_again_when_its_job_was_dropped_released_or_its_owner_ended() {
    every_setting(|setting| {
        let mut scene = Scene::new(setting);
        let (mut owner, mut other) = (scene.process(), scene.process());
        for end in ["drop", "release", "exit"] {
            owner.ok(&scene.new_job("dev"));
            owner.ok(&scene.spawn("sleep"));
            let taken = refused(&mut other, &scene.new_job("dev"), "taken");
            assert!(taken.contains("dev") && taken.contains('('), "the remedy is missing: {taken}");
            other.ok("open dev");
            owner.ok(end);
            assert_eq!(other.ok("over"), "true", "{setting}: {end}");
            assert_eq!(scene.files(), [] as [&str; 0], "{setting}: {end}");
            other.ok(&scene.new_job("dev"));
            other.ok("drop");
        }
        scene.cell.living().iter().for_each(|living| {
            let sleeper = living.stat.as_ref().is_some_and(|stat| stat.comm == "actor");
            if sleeper {
                kill_together(&[living.pid]);
            }
        });
        // What was released is removed by the next owner, once it is empty.
        let mut next = scene.process();
        next.ok(&scene.new_job("dev"));
        next.ok("drop");
        drop((owner, other, next));
        scene.is_deserted();
    });
}

#[test]
fn a_view_does_not_keep_the_job_alive_when_its_owner_is_killed() {
    every_setting(|setting| {
        let mut scene = Scene::new(setting);
        let (mut owner, mut view) = scene.owner_and_view();
        let mut waiter = scene.process();
        waiter.ok("open dev");
        owner.ok("set-note how it was");
        scene.crowd(&mut owner);
        view.tell("over");
        waiter.tell("wait");
        assert_eq!(view.has_answered(Duration::from_millis(20)), None);
        owner.murder();
        assert_eq!(view.answer("over").as_deref(), Ok("true"), "{setting}");
        waiter.answer("wait").unwrap_or_else(|error| panic!("{setting}: {error}"));
        assert_eq!(view.ok("note"), "how it was");
        view.ok(&scene.new_job("dev"));
        view.ok("drop");
        drop((view, waiter));
        scene.is_deserted();
    });
}

#[test]
fn whoever_comes_next_takes_down_what_an_owner_killed_with_both_guards_has_left() {
    every_setting(|setting| {
        for request in ["jobs", "open dev", "new"] {
            let mut scene = Scene::new(setting);
            let mut owner = scene.process();
            owner.ok(&scene.new_job("dev"));
            owner.ok(&scene.spawn("daemon"));
            let escapee = scene.report.player(&scene.cell, "escapee");
            let mut all = scene.called("onejob-guard");
            assert_eq!(all.len(), 2, "{setting}");
            all.push(owner.pid);
            kill_together(&all);
            eventually("their end", || all.iter().all(|pid| !proc::is_alive(*pid)).then_some(()));
            let mut next = scene.process();
            match request {
                "jobs" => assert_eq!(jobs(&mut next), []),
                "new" => drop(next.ok(&scene.new_job("dev"))),
                _ => drop(refused(&mut next, request, "not-found")),
            }
            if setting.mechanism() == "cgroup" {
                scene.is_gone(&escapee);
            } else {
                // Nobody can tell any more whose it was, as the owner's guarantees said.
                kill_together(&scene.called("actor"));
            }
            next.ok("exit");
            drop((owner, next));
            scene.is_deserted();
        }
    });
}

#[test]
fn a_waiter_outlives_owner_and_guards_and_clears_up_after_them() {
    every_setting(|setting| {
        let mut scene = Scene::new(setting);
        let (owner, mut view) = scene.owner_and_view();
        view.tell("over");
        assert_eq!(view.has_answered(Duration::from_millis(20)), None);
        let mut all = scene.called("onejob-guard");
        all.push(owner.pid);
        kill_together(&all);
        assert_eq!(view.answer("over").as_deref(), Ok("true"), "{setting}");
        drop((owner, view));
        scene.is_deserted();
    });
}

#[test]
fn a_job_whose_guards_were_killed_can_be_opened_and_what_it_was_is_told() {
    every_setting(|setting| {
        for guard in 0..2 {
            let mut scene = Scene::new(setting);
            let mut owner = scene.process();
            owner.ok(&format!("{} note=mine", scene.new_job("dev")));
            owner.ok(&scene.spawn("sleep"));
            let sleeper = scene.report.player(&scene.cell, "sleeper");
            let guards = scene.called("onejob-guard");
            let inner = |pid: &&i32| {
                let parent = proc::stat(**pid).expect("alive").ppid;
                guards.contains(&parent) == (guard == 0)
            };
            kill_together(&[*guards.iter().find(inner).expect("two guards")]);
            let mut view = scene.process();
            // The inner guard's death ends a subreaper job; the record goes with it.
            if setting.mechanism() == "subreaper" && guard == 0 {
                scene.is_gone(&sleeper);
                eventually("the job is over", || view.ask("open dev").is_err().then_some(()));
            } else {
                view.ok("open dev");
                assert_eq!((view.ok("note"), view.list()), ("mine".into(), vec![sleeper.inner]));
                view.ok("kill");
            }
            owner.ok("drop");
            drop((owner, view));
            scene.is_deserted();
        }
    });
}

/// What a killed owner may leave that is no whole record yet.
#[test]
fn half_made_files_of_dead_owners_are_swept_and_those_of_living_ones_are_not() {
    every_setting(|setting| {
        let mut scene = Scene::new(setting);
        let mut owner = scene.process();
        owner.ok(&scene.new_job("dev"));
        let before = scene.files().len();
        let mut maker = scene.process();
        // Made by the user itself, as an owner would.
        let script = "touch";
        for suffix in [".new", ".socket", ".frozen", ".frozen.new"] {
            maker.ok(&format!("{script} {}/00000000deadbeef-1{suffix}", scene.runtime.display()));
        }
        assert_eq!(jobs(&mut maker).len(), 1);
        assert_eq!(scene.files().len(), before, "{setting}: {:?}", scene.files());
        maker.ok("open dev");
        maker.ok(&scene.spawn("sleep"));
        owner.ok("drop");
        drop((owner, maker));
        scene.is_deserted();
    });
}

#[test]
fn five_hundred_jobs_are_listed_and_leave_nothing() {
    every_setting(|setting| {
        // Two guards a job under Subreaper: as many as show it.
        let count = if setting.mechanism() == "cgroup" { 500 } else { 50 };
        let mut scene = Scene::new(setting);
        let (mut owner, mut view) = (scene.process(), scene.process());
        owner.ok(&format!("many {count} {}", setting.mechanism()));
        let seen = jobs(&mut view);
        assert_eq!(seen.len(), count, "{setting}");
        assert!(seen.iter().any(|job| job.name == format!("many-{}", count - 1)));
        view.ok("open many-7");
        owner.murder();
        assert_eq!(view.ok("over"), "true");
        eventually("the end of all", || files(&scene.runtime).is_empty().then_some(()));
        drop((owner, view));
        scene.is_deserted();
    });
}

#[test]
fn a_forked_copy_of_the_owner_neither_ends_the_job_nor_keeps_its_name() {
    every_setting(|setting| {
        let mut scene = Scene::new(setting);
        let (mut owner, mut view) = scene.owner_and_view();
        owner.ok("forked-drop");
        assert_eq!(view.ok("over 0"), "false", "{setting}");
        let copy = owner.ok("forked-copy");
        let copy: i32 = copy.parse().expect("a pid");
        let copy = scene.cell.outer_pid(copy).expect("the copy");
        owner.murder();
        assert_eq!(view.ok("over"), "true", "{setting}: while a copy lives");
        let actor = Bins::get().actor();
        assert!(fs::exists(actor).expect("a program"));
        kill_together(&[copy]);
        drop((owner, view));
        scene.is_deserted();
    });
}
