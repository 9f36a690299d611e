//! What a view lists, and how it acts on a job.

use std::{collections::BTreeSet, fs, time::Duration};

use testkit::{Bins, Environment, Fixture, Owner, eventually, every_environment, numbers, proc};

use crate::requests::{jobs, mixed_members, refused};

fn list(process: &mut Owner) -> BTreeSet<i32> {
    process.list().into_iter().collect()
}

/// A view of a named job reports the same members, note and guarantees as the owner.
#[test]
fn another_process_sees_what_the_owner_sees() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        owner.ok(&format!("{} note=first", fixture.new_job("dev")));
        mixed_members(&fixture, &mut owner);
        let mut view = fixture.process();
        let seen = jobs(&mut view);
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!((&*seen[0].name, &*seen[0].mechanism), ("dev", environment.mechanism()));
        assert_eq!(seen[0].owner, owner.inner.to_string());
        for name in ["dev", &seen[0].id, &seen[0].id[..5]] {
            view.ok(&format!("open {name}"));
            assert_eq!((view.ok("id"), &*view.ok("name")), (owner.ok("id"), "dev"));
            assert_eq!(list(&mut view), list(&mut owner), "{environment}");
        }
        assert_eq!((view.ok("note"), view.ok("empty")), ("first".into(), "false".into()));
        owner.ok("set-note second and last");
        assert_eq!(view.ok("note"), "second and last");
        refused(&mut view, "set-note mine", "unsupported");
        // Only the owner can set limits.
        let promised = |said: String| said.split(" limits=").next().map(str::to_owned);
        assert_eq!(
            promised(view.ok("guarantees")),
            promised(owner.ok("guarantees")),
            "{environment}"
        );
        assert!(view.ok("stats").contains("processes: "), "{environment}");
        refused(&mut view, "release", "unsupported");
        refused(&mut owner, "over 0", "unsupported");
        owner.ok("drop");
        drop((owner, view));
        fixture.assert_clean();
    });
}

/// If the guards are frozen (for example with the job around them), the statistics of a view are an error
/// and not a wait: `onejob ls` reads them for each job.
#[test]
fn frozen_guards_hold_up_no_view() {
    for environment in Environment::here() {
        if environment.mechanism() != "subreaper" || !environment.has_cgroups() {
            eprintln!("{environment}: the guards that a view contacts cannot be frozen here");
            continue;
        }
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = fixture.owner_and_view();
        let dir = fixture.sandbox.cgroup().expect("has cgroups").join("frozen");
        fs::create_dir(&dir).expect("a cgroup");
        for guard in fixture.sandbox.named("onejob-guard") {
            fs::write(dir.join("cgroup.procs"), guard.to_string()).expect("moved");
        }
        fs::write(dir.join("cgroup.freeze"), "1").expect("frozen");
        let error = view.request("stats").expect_err("frozen guards");
        assert!(error.contains("frozen"), "{error}");
        fs::write(dir.join("cgroup.freeze"), "0").expect("thawed");
        view.ok("stats");
        owner.ok("drop");
        drop((owner, view));
        eventually("a cgroup without guards", || fs::remove_dir(&dir).ok());
        fixture.assert_clean();
    }
}

/// A job without a name is found by its id if it is listed, and else not at all.
#[test]
fn unnamed_job_is_found_by_id_if_listed() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut other, mut view) =
            (fixture.process(), fixture.process(), fixture.process());
        owner.ok(&format!("new {} listed note=x", environment.mechanism()));
        other.ok(&format!("new {}", environment.mechanism()));
        let seen = jobs(&mut view);
        assert_eq!((seen.len(), &*seen[0].name), (1, "-"), "{seen:?}");
        view.ok(&format!("open {}", seen[0].id));
        assert_eq!((view.ok("name"), view.ok("note")), ("-".into(), "x".into()));
        refused(&mut other, "set-note x", "unsupported");
        assert_eq!(other.ok("id"), "-");
    });
}

/// An unambiguous prefix of an id is enough; an invalid id is refused.
#[test]
fn unambiguous_id_prefix_is_enough() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut view = fixture.process();
        // There are sixteen hexadecimal digits: of seventeen ids, two have the same first digit.
        let mut owners: Vec<_> = (0..17).map(|_| fixture.process()).collect();
        for owner in &mut owners {
            owner.ok(&format!("new {} listed", environment.mechanism()));
        }
        let ids: BTreeSet<_> = jobs(&mut view).into_iter().map(|job| job.id).collect();
        assert_eq!(ids.len(), 17, "{ids:?}");
        for first in "0123456789abcdef".chars() {
            let fitting = ids.iter().filter(|id| id.starts_with(first)).count();
            let request = format!("open {first}");
            match fitting {
                0 => drop(refused(&mut view, &request, "not-found")),
                1 => drop(view.ok(&request)),
                _ => drop(refused(&mut view, &request, "invalid")),
            }
        }
        for nonsense in ["../x", "/etc", ".hidden", "-x", "a/b", "=dev", "a*", "é"] {
            refused(&mut view, &format!("open {nonsense}"), "invalid");
        }
        for unknown in ["unknown", "0123456789abcdef-1", "g", "socket"] {
            refused(&mut view, &format!("open {unknown}"), "not-found");
        }
    });
}

#[test]
fn a_view_signals_members_and_no_bystander() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = fixture.owner_and_view();
        let members = mixed_members(&fixture, &mut owner);
        let count = view.list().len();
        let reached: usize = view.ok("signal CONT").parse().expect("a number");
        assert_eq!(reached, count, "{environment}");
        let counts = fixture.report.beside(".counts");
        eventually("the signal is counted", || {
            let counts = std::fs::read_to_string(&counts).unwrap_or_default();
            counts.lines().any(|line| line == "18 1").then_some(())
        });
        members.stopped.awaits_state('S');
        fixture.assert_bystanders_alive();
    });
}

/// Another process can thaw a frozen job. A member that was stopped before the freeze stays stopped.
#[test]
fn another_process_thaws() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = fixture.owner_and_view();
        let mut third = fixture.process();
        third.ok("open dev");
        let members = mixed_members(&fixture, &mut owner);
        let counted = || {
            let counts = std::fs::read_to_string(fixture.report.beside(".counts"));
            let counts = counts.unwrap_or_default();
            let usr1 = counts.lines().find_map(|line| line.strip_prefix("10 "));
            usr1.and_then(|count| count.parse().ok()).unwrap_or(0)
        };
        for (freezer, thawer) in [(0, 1), (1, 2), (2, 0), (1, 1)] {
            let processes = [&mut owner, &mut view, &mut third];
            let before: u32 = counted();
            processes[freezer].ok("freeze");
            let signal = rustix::process::Signal::USR1;
            let pid = rustix::process::Pid::from_raw(members.counter.pid).expect("a pid");
            rustix::process::kill_process(pid, signal).expect("a living member");
            std::thread::sleep(Duration::from_millis(30));
            assert_eq!(counted(), before, "{environment}: a frozen member ran");
            processes[thawer].ok("thaw");
            eventually("it runs again", || (counted() > before).then_some(()));
            assert_eq!(members.stopped.stat().state, 'T', "{environment}: {freezer}, {thawer}");
            // All three can start members again.
            for process in processes {
                process.ok(&fixture.spawn("sleep"));
            }
        }
        // One thaw ends two freezes.
        owner.ok("freeze");
        view.ok("freeze");
        let before = counted();
        third.ok("signal USR1");
        third.ok("thaw");
        eventually("it runs again", || (counted() > before).then_some(()));
        owner.ok("drop");
        drop((owner, view, third));
        fixture.assert_clean();
    });
}

/// A view kills and stops a frozen job. New members can be started after that.
#[test]
fn view_kills_a_frozen_job_which_then_spawns() {
    every_environment(|environment| {
        for end in ["kill", "stop 120000"] {
            let mut fixture = Fixture::new(environment);
            let (mut owner, mut view) = fixture.owner_and_view();
            owner.ok(&fixture.spawn("daemon"));
            fixture.report.helper(&fixture.sandbox, "escapee");
            owner.ok("freeze");
            view.ok(end);
            assert_eq!(view.ok("empty"), "true");
            view.ok(&fixture.spawn("sleep"));
            owner.ok(&fixture.spawn("sleep"));
            fixture.report.helpers(&fixture.sandbox, "sleeper", 2);
            owner.ok("drop");
            drop((owner, view));
            fixture.assert_clean();
        }
    });
}

/// A view starts and adopts members, which end with the job.
#[test]
fn another_process_adds_members() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = fixture.owner_and_view();
        view.ok(&fixture.spawn("daemon-grandchild"));
        let escapee = fixture.report.helper(&fixture.sandbox, "escapee");
        assert!(owner.list().contains(&escapee.inner), "{environment}");
        // The process that started a member gets its status.
        fixture.report.go();
        let helper = Bins::get().helper();
        let exit = format!("spawn {} exit {} 7", helper.display(), fixture.report.arg());
        view.ok(&exit);
        assert_eq!(view.ok("child-wait"), "code 7");
        let adopted = view.ok(&format!("outsider {} sleep /dev/null", helper.display()));
        match environment.mechanism() {
            "cgroup" => {
                view.ok(&format!("adopt {adopted}"));
                assert!(owner.list().contains(&adopted.parse().expect("a pid")), "{environment}");
            }
            _ => {
                refused(&mut view, &format!("adopt {adopted}"), "unsupported");
                view.ok("outsiders-kill");
            }
        }
        owner.ok("drop");
        fixture.wait_for_end(escapee.pid);
        view.send("outsiders-kill");
        drop((owner, view));
        fixture.assert_clean();
    });
}

/// The owner can fill a job again that a view has emptied.
#[test]
fn owner_refills_a_job_emptied_by_a_view() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = fixture.owner_and_view();
        for end in ["kill", "stop 50", "kill"] {
            fixture.report = testkit::Report::new();
            let members = mixed_members(&fixture, &mut owner);
            owner.send("wait");
            assert_eq!(owner.has_reply(Duration::from_millis(20)), None);
            view.ok(end);
            // The wait ends when the job is empty, whichever process has emptied it.
            owner.receive("wait").unwrap_or_else(|error| panic!("{environment}: {error}"));
            assert!(members.escapees.iter().all(|helper| !proc::is_alive(helper.pid)));
            assert_eq!((owner.ok("list"), view.ok("list")), (String::new(), String::new()));
            fixture.assert_bystanders_alive();
        }
        owner.ok(&fixture.spawn("sleep"));
        assert_eq!(list(&mut view), list(&mut owner));
        owner.ok("kill");
        assert_eq!(view.ok("empty"), "true", "{environment}");
        owner.ok(&fixture.spawn("sleep"));
        assert_eq!(list(&mut view), list(&mut owner), "{environment}: after the owner's own kill");
        assert_eq!(view.list().len(), 1, "{environment}");
        view.ok("kill");
        owner.ok("drop");
        drop((owner, view));
        fixture.assert_clean();
    });
}

/// A view's wait ends with the last member, whichever process ended it and however fast.
#[test]
fn a_views_wait_ends_with_the_last_member() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = fixture.owner_and_view();
        let helper = Bins::get().helper();
        for round in 0..30 {
            owner.ok(&format!("spawn {} sleep /dev/null", helper.display()));
            view.send("wait");
            if round % 3 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            owner.ok("kill");
            view.receive("wait").unwrap_or_else(|error| panic!("{environment}: {error}"));
        }
        // An empty job is not closed.
        assert_eq!(view.ok("over 0"), "false");
        view.send("over");
        assert_eq!(view.has_reply(Duration::from_millis(20)), None, "{environment}");
        owner.ok("drop");
        assert_eq!(view.receive("over").as_deref(), Ok("true"));
        drop((owner, view));
        fixture.assert_clean();
    });
}

#[test]
fn dropping_a_view_changes_nothing() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = fixture.owner_and_view();
        mixed_members(&fixture, &mut owner);
        let before = list(&mut owner);
        view.ok("drop");
        view.ok("open dev");
        view.end();
        assert_eq!(list(&mut owner), before, "{environment}");
        assert!(before.len() >= 4 && fixture.sandbox.runtime_files().len() >= 2);
        owner.ok("drop");
        drop(owner);
        fixture.assert_clean();
    });
}

#[test]
fn the_answer_to_a_job_that_has_ended_says_so() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let (mut owner, mut view) = fixture.owner_and_view();
        owner.ok("set-note last note");
        owner.ok("drop");
        assert_eq!((view.ok("over"), view.ok("note")), ("true".into(), "last note".into()));
        assert_eq!((view.ok("empty"), view.ok("list")), ("true".into(), String::new()));
        for request in ["wait", "kill", "stop 100", "signal TERM", "thaw"] {
            if let Err(said) = view.request(request) {
                assert!(said.starts_with("stale: "), "{environment}: {request}: {said}");
            }
        }
        let spawn = fixture.spawn("sleep");
        let said = view.request(&spawn).expect_err("no member joins a job that has ended");
        assert!(said.starts_with("stale: "), "{environment}: {said}");
        assert_eq!(numbers(&view.ok("list")), []);
        refused(&mut view, "open dev", "not-found");
        drop((owner, view));
        fixture.assert_clean();
    });
}
