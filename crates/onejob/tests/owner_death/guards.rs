//! Death of the guards: the job goes on or ends, never leaks, and says the truth about itself.

use std::{fs, process::Stdio, time::Duration};

use testkit::{Bins, Environment, Hanging, LiveProcess, Owner, eventually, proc};

use crate::fixture::{
    Fixture, Guards, Random, Times, environments, every_environment, kill, pause,
};

const MOMENTS: usize = 20;

/// Whether the job says that a guard would end it.
#[track_caller]
fn is_guarded(owner: &mut Owner) -> bool {
    let promised = owner.ok("guarantees");
    assert!(promised.contains("owner-death="), "{promised}");
    promised.contains("owner-death=guard")
}

fn is_gone(pid: i32) -> impl Fn() -> Option<()> {
    move || (!proc::is_alive(pid)).then_some(())
}

/// With the inner guard killed the outer one ends the tree.
#[test]
fn with_the_inner_guard_killed() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        let tree = fixture.tree_of(&mut owner);
        let Guards { inner, outer } = fixture.guards();
        kill(inner);
        eventually("a dead guard", is_gone(inner));
        if environment.mechanism() == "subreaper" {
            // Its members' parent has gone: the job ends, and no new one is started in it.
            for pid in tree {
                eventually("the end of the members", is_gone(pid));
            }
            eventually("the end of the outer guard", is_gone(outer));
            owner.ok("wait");
            assert_eq!(owner.ok("list"), "");
            owner.request(&fixture.spawn("setsid")).expect_err("no new member");
        } else {
            assert!(is_guarded(&mut owner), "by the outer one");
            match environment.needs_guard() {
                true => {
                    drop(owner.request(&fixture.spawn("setsid")).expect_err("nobody to start it"))
                }
                false => drop(owner.ok(&fixture.spawn("setsid"))),
            }
            assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "the job goes on");
        }
        owner.kill();
        fixture.is_deserted();
    });
}

/// An owner that is killed while programs hang in their start leaves nobody.
#[test]
fn owner_killed_while_exec_hangs() {
    every_environment(|environment| {
        let (mut fixture, hanging) = (Fixture::new(environment), Hanging::new());
        let mut owner = fixture.owner();
        let tree = fixture.tree_of(&mut owner);
        let before = fixture.sandbox.live_pids();
        owner.send(&format!("spawn {} sleep /dev/null", hanging.program().display()));
        eventually("a program on its way", || {
            (fixture.sandbox.live_pids().len() > before.len()).then_some(())
        });
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "the job goes on");
        owner.kill();
        fixture.is_deserted();
    });
}

/// With the outer guard killed the inner one ends the tree.
#[test]
fn with_the_outer_guard_killed() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        let tree = fixture.tree_of(&mut owner);
        let Guards { outer, .. } = fixture.guards();
        kill(outer);
        eventually("a dead guard", is_gone(outer));
        assert!(is_guarded(&mut owner), "by the inner one");
        owner.ok(&fixture.spawn("setsid"));
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "the job goes on");
        owner.kill();
        fixture.is_deserted();
    });
}

/// With both guards killed the job says that nothing would end it.
#[test]
fn both_guards_killed_is_reported() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        let tree = fixture.tree_of(&mut owner);
        let Guards { inner, outer } = fixture.guards();
        proc::stop_together(&[inner, outer]);
        for guard in [inner, outer] {
            kill(guard);
            eventually("a dead guard", is_gone(guard));
        }
        assert!(!is_guarded(&mut owner), "by whom?");
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "the job goes on");
        if environment.mechanism() == "cgroup" {
            owner.ok("stop 20");
            owner.kill();
            fixture.is_deserted();
        } else {
            // The members cannot be found any more, and that is an error, not an empty job.
            for request in ["list", "empty", "kill"] {
                owner.request(request).expect_err("lost members are no empty job");
            }
            owner.kill();
            eventually("the end of the owner", || (!owner.is_alive()).then_some(()));
            fixture.end_by_hand(&tree);
        }
    });
}

/// Its job has ended with the guards, as far as anything of it can be found: below the command. What
/// had left that before lives on, and the error does not hide it.
#[test]
fn onejob_run_whose_guards_were_both_killed() {
    for environment in environments("subreaper") {
        let mut fixture = Fixture::new(environment);
        let report = fixture.report.arg().to_owned();
        // No pipe, for the daemon has it, too.
        let errors = fixture.report.beside(".errors");
        let file = fs::File::create(&errors).expect("a writable scratch directory");
        let mut run = fixture.sandbox.start(&Bins::get().onejob(), |run| {
            run.args(["run", "--mechanism", "subreaper", "--", "/bin/sh", "-c"]);
            run.arg("\"$0\" daemon-grandchild \"$1\" & sleep 1000 & wait");
            run.arg(Bins::get().helper()).arg(&report);
            run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        });
        let daemon = fixture.report.helper(&fixture.sandbox, "escapee").pid;
        let Guards { inner, outer } = fixture.guards();
        // The inner one would end the job at the end of its owner, not at that of the outer one.
        kill(outer);
        kill(inner);
        let status = eventually("the end of `onejob run`", || run.try_wait().expect("a child"));
        fixture.stand_by_apart();
        let said = fs::read_to_string(errors).expect("a file of ours");
        assert_eq!(status.code(), Some(125), "{said}");
        assert!(said.contains("both guards of the job were killed"), "{said}");
        assert!(proc::is_alive(daemon), "found by what?");
        let left = eventually("the end of all below the command", || {
            let left = fixture.sandbox.live();
            let name = |living: &LiveProcess| living.stat.as_ref().map(|stat| stat.comm.clone());
            let is_below = |living: &LiveProcess| name(living).is_none_or(|name| name != "helper");
            (!left.iter().any(is_below)).then_some(left)
        });
        fixture.end_by_hand(&left.iter().map(|living| living.pid).collect::<Vec<_>>());
    }
}

/// A new job is guarded though both guards of the last one were killed.
#[test]
fn new_job_after_both_guards_were_killed() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        owner.new_job();
        let Guards { inner, outer } = fixture.guards();
        proc::stop_together(&[inner, outer]);
        for guard in [inner, outer] {
            kill(guard);
            eventually("a dead guard", is_gone(guard));
        }
        fixture.tree_of(&mut owner);
        assert!(is_guarded(&mut owner));
        fixture.guards();
        owner.kill();
        fixture.is_deserted();
    });
}

/// A guard killed at any moment of a cgroup job leaks nothing.
#[test]
fn guard_killed_at_random_in_a_cgroup_job() {
    at_any_moment("cgroup");
}

/// A guard killed at any moment of a subreaper job leaks nothing.
#[test]
fn guard_killed_at_random_in_a_subreaper_job() {
    at_any_moment("subreaper");
}

fn at_any_moment(mechanism: &str) {
    let environments = environments(mechanism);
    let mut random = Random::new();
    let mut times = Times::default();
    for moment in 0..if environments.is_empty() { 0 } else { MOMENTS } {
        times.push(lose_a_guard(environments[moment % environments.len()], &mut random));
    }
    times.assert_prompt(&format!("a guard lost, {mechanism}"));
}

/// A job is filled and stopped while one guard dies, then its owner dies.
fn lose_a_guard(environment: Environment, random: &mut Random) -> Duration {
    let mut fixture = Fixture::new(environment);
    let mut owner = fixture.owner();
    owner.new_job();
    let guards = fixture.guards();
    let requests = ["setsid", "daemon-grandchild", "stubborn"].map(|helper| fixture.spawn(helper));
    let requests = requests.into_iter().chain(["list".to_owned(), "stop 5".to_owned()]);
    let requests: Vec<_> = requests.collect();
    requests.iter().for_each(|request| owner.send(request));
    pause(random.duration(Duration::from_millis(25)));
    kill(if random.below(2) == 0 { guards.inner } else { guards.outer });
    for request in &requests {
        let answer = owner.receive(request);
        // A cgroup holds whoever guards it, unless a guard has to start its members.
        let goes_on = answer.is_ok() || environment.needs_guard();
        assert!(goes_on, "{request}: {answer:?}");
    }
    let guarded = is_guarded(&mut owner);
    let members = owner.request("list").map(|pids| pids.split_whitespace().count()).unwrap_or(0);
    assert!(guarded || members == 0, "{members} members that nobody guards");
    owner.kill();
    fixture.is_deserted()
}

/// Nobody of the three gets to do anything once the first is dead.
#[track_caller]
fn kill_together(owner: &Owner, Guards { inner, outer }: Guards) {
    // The owner last: its end orphans the process group, whose stopped processes are continued then.
    let all = [inner, outer, owner.pid];
    proc::stop_together(&all);
    all.iter().for_each(|pid| kill(*pid));
    for pid in all {
        eventually("a dead process", is_gone(pid));
    }
}

fn a_short_job(fixture: &mut Fixture) {
    let run = fixture.sandbox.start(&testkit::Bins::get().onejob(), |command| {
        command.args(["run", "--mechanism", "cgroup", "--", "true"]);
    });
    assert!(run.wait_with_output().expect("our child").status.success());
}

/// `cgroup.kill` does not reach it, and no guard of a short job stays for a second look.
#[test]
fn a_short_job_ends_abandoned_leaderless_ones() {
    let environments =
        environments("cgroup").into_iter().filter(|environment| !environment.needs_guard());
    for environment in environments {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        owner.new_job();
        let guards = fixture.guards();
        owner.ok(&fixture.spawn("leader-gone"));
        let escapee = fixture.report.helper(&fixture.sandbox, "escapee").pid;
        kill_together(&owner, guards);
        assert!(proc::is_alive(escapee), "nothing would end it");
        a_short_job(&mut fixture);
        eventually("the end of what was abandoned", is_gone(escapee));
        eventually("no cgroup is left", || {
            a_short_job(&mut fixture);
            fixture.sandbox.nested_cgroups().is_empty().then_some(())
        });
        fixture.is_deserted();
    }
}

/// What owner and guards leave when they die together is ended by the next cgroup job.
#[test]
fn all_killed_cgroup_job_is_ended_by_the_next() {
    // A sandbox in a namespace holds one owner; for scopes see `scope`.
    let environments =
        environments("cgroup").into_iter().filter(|environment| !environment.needs_guard());
    for environment in environments {
        let mut fixture = Fixture::new(environment);
        let mut other = fixture.owner();
        let released = fixture.tree_of(&mut other);
        other.ok("release");
        let held = fixture.tree_of(&mut other);
        let others = fixture.guards();
        let mut owner = Owner::start(&mut fixture.sandbox, environment);
        let abandoned = fixture.tree_of(&mut owner);
        kill_together(&owner, fixture.guards_beside(&[others.inner, others.outer]));
        for pid in &abandoned {
            assert!(
                proc::is_alive(*pid),
                "nobody is there to end {pid}: {:?} {:?}",
                proc::stat(pid),
                abandoned
            );
        }

        let mut next = Owner::start(&mut fixture.sandbox, environment);
        next.new_job();
        for pid in abandoned {
            eventually("the end of an abandoned member", is_gone(pid));
        }
        let is_alive = |pid: &i32| proc::is_alive(*pid);
        assert!(held.iter().all(is_alive), "HIT the job of a living owner");
        assert!(released.iter().all(is_alive), "HIT a released job");
        next.end();
        other.end();
        fixture.end_by_hand(&released);
        // The released job's cgroup is empty now: the next job removes that too.
        let mut last = Owner::start(&mut fixture.sandbox, environment);
        last.new_job();
        last.end();
        fixture.is_deserted();
    }
}

/// What owner and guards leave when they die together survives in a subreaper job.
#[test]
fn all_killed_subreaper_job_survives() {
    for environment in environments("subreaper") {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        let tree = fixture.tree_of(&mut owner);
        assert!(owner.ok("guarantees").contains("owner-death=guard"), "and not by the kernel");
        kill_together(&owner, fixture.guards());
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "then more can be promised");
        fixture.end_by_hand(&tree);
        fixture.is_deserted();
    }
}
