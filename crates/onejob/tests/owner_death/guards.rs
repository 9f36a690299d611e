//! Guards that are killed: the job continues or ends, nothing is left of it, and its guarantees are true.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use testkit::{
    Bins, Environment, Fixture, Guards, Hanging, LiveProcess, Owner, Random, eventually,
    every_environment, proc,
};

use crate::times::{Times, pause};

const MOMENTS: usize = 20;

/// Whether the guarantees state that a guard ends the job when its owner dies.
#[track_caller]
fn is_guarded(owner: &mut Owner) -> bool {
    let promised = owner.ok("guarantees");
    assert!(promised.contains("owner-death="), "{promised}");
    promised.contains("owner-death=guard")
}

fn is_gone(pid: i32) -> impl Fn() -> Option<()> {
    move || (!proc::is_alive(pid)).then_some(())
}

/// If the inner guard was killed, the outer one ends the job when the owner dies.
#[test]
fn with_the_inner_guard_killed() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        let tree = fixture.fill_job(&mut owner);
        let Guards { inner, outer } = fixture.guards();
        proc::kill(inner);
        eventually("a dead guard", is_gone(inner));
        if environment.mechanism() == "subreaper" {
            // The inner guard is the parent of the members: the job ends, and no member can be started.
            for pid in tree {
                eventually("the end of the members", is_gone(pid));
            }
            eventually("the end of the outer guard", is_gone(outer));
            owner.ok("wait");
            assert_eq!(owner.ok("list"), "");
            owner.request(&fixture.spawn("setsid")).expect_err("no new member");
        } else {
            assert!(is_guarded(&mut owner), "by the outer guard");
            match environment.needs_guard() {
                true => {
                    drop(owner.request(&fixture.spawn("setsid")).expect_err("no guard to start it"))
                }
                false => drop(owner.ok(&fixture.spawn("setsid"))),
            }
            assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "the job continues");
        }
        owner.kill();
        fixture.assert_clean();
    });
}

/// Nothing is left of an owner that is killed while the `execve` of a member hangs.
#[test]
fn owner_killed_while_exec_hangs() {
    every_environment(|environment| {
        let (mut fixture, hanging) = (Fixture::new(environment), Hanging::new());
        let mut owner = fixture.process();
        let tree = fixture.fill_job(&mut owner);
        let before = fixture.sandbox.live_pids();
        owner.send(&format!("spawn {} sleep /dev/null", hanging.program().display()));
        eventually("a process that executes the program", || {
            (fixture.sandbox.live_pids().len() > before.len()).then_some(())
        });
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "the job continues");
        owner.kill();
        fixture.assert_clean();
    });
}

/// If the outer guard was killed, the inner one ends the job when the owner dies.
#[test]
fn with_the_outer_guard_killed() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        let tree = fixture.fill_job(&mut owner);
        let Guards { outer, .. } = fixture.guards();
        proc::kill(outer);
        eventually("a dead guard", is_gone(outer));
        assert!(is_guarded(&mut owner), "by the inner guard");
        owner.ok(&fixture.spawn("setsid"));
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "the job continues");
        owner.kill();
        fixture.assert_clean();
    });
}

/// If both guards were killed, the guarantees state that nothing ends the job.
#[test]
fn both_guards_killed_is_reported() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        let tree = fixture.fill_job(&mut owner);
        let Guards { inner, outer } = fixture.guards();
        proc::stop_together(&[inner, outer]);
        for guard in [inner, outer] {
            proc::kill(guard);
            eventually("a dead guard", is_gone(guard));
        }
        assert!(!is_guarded(&mut owner), "both guards are dead");
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "the job continues");
        if environment.mechanism() == "cgroup" {
            owner.ok("stop 20");
            owner.kill();
            fixture.assert_clean();
        } else {
            // The members cannot be found any more: that is an error, not an empty job.
            for request in ["list", "empty", "kill"] {
                owner.request(request).expect_err("members that cannot be found");
            }
            owner.kill();
            eventually("the end of the owner", || (!owner.is_alive()).then_some(()));
            fixture.kill_survivors(&tree);
        }
    });
}

/// `onejob run` ends the members that it can still find, which are its descendants. A daemon survives, and
/// the error states that both guards were killed.
#[test]
fn onejob_run_whose_guards_were_both_killed() {
    for environment in Environment::of("subreaper") {
        let mut fixture = Fixture::new(environment);
        let report = fixture.report.arg().to_owned();
        // Not a pipe: the daemon would keep it open.
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
        // The inner guard does not end the job when the outer one dies.
        proc::kill(outer);
        proc::kill(inner);
        let status = eventually("the end of `onejob run`", || run.try_wait().expect("a child"));
        fixture.start_bystanders_apart();
        let said = fs::read_to_string(errors).expect("a file of this test");
        assert_eq!(status.code(), Some(125), "{said}");
        assert!(said.contains("both guards of the job were killed"), "{said}");
        assert!(proc::is_alive(daemon), "a daemon without guards survives");
        let left = eventually("the end of all processes below the command", || {
            let left = fixture.sandbox.live();
            let name = |living: &LiveProcess| living.stat.as_ref().map(|stat| stat.comm.clone());
            let is_below = |living: &LiveProcess| name(living).is_none_or(|name| name != "helper");
            (!left.iter().any(is_below)).then_some(left)
        });
        fixture.kill_survivors(&left.iter().map(|living| living.pid).collect::<Vec<_>>());
    }
}

/// Without memory for the first messages of the guards, `onejob run` ends with success or an error.
#[test]
fn without_memory_for_a_greeting() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return testkit::skip("strace is not installed");
    }
    every_environment(|environment| {
        for failures in ["1", "1..2", "1..5"] {
            let mut fixture = Fixture::new(environment);
            fixture.start_bystanders_apart();
            let failing = format!("inject=sendmsg:error=ENOMEM:when={failures}");
            let mut run = fixture.sandbox.start(Path::new("/usr/bin/strace"), |run| {
                // Each process counts its own calls; a filter leaves all other calls alone.
                run.args(["-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"]);
                run.args(["-e", "trace=sendmsg", "-e", &failing]).arg(Bins::get().onejob());
                run.args(["run", "--mechanism", environment.mechanism(), "--", "true"]);
                run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            });
            let status = eventually("the end of `onejob run`", || run.try_wait().expect("a child"));
            assert!(matches!(status.code(), Some(0 | 125)), "{environment}: {failures}: {status}");
            fixture.assert_clean();
        }
    });
}

/// A new job has guards even if both guards of the last job were killed.
#[test]
fn new_job_after_both_guards_were_killed() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        owner.new_job();
        let Guards { inner, outer } = fixture.guards();
        proc::stop_together(&[inner, outer]);
        for guard in [inner, outer] {
            proc::kill(guard);
            eventually("a dead guard", is_gone(guard));
        }
        fixture.fill_job(&mut owner);
        assert!(is_guarded(&mut owner));
        fixture.guards();
        owner.kill();
        fixture.assert_clean();
    });
}

/// Nothing is left if a guard of a cgroup job is killed at a random moment.
#[test]
fn guard_killed_at_random_in_a_cgroup_job() {
    at_random_moments("cgroup");
}

/// Nothing is left if a guard of a subreaper job is killed at a random moment.
#[test]
fn guard_killed_at_random_in_a_subreaper_job() {
    at_random_moments("subreaper");
}

fn at_random_moments(mechanism: &str) {
    let environments = Environment::of(mechanism);
    let mut random = Random::from_environment();
    let mut times = Times::default();
    for moment in 0..if environments.is_empty() { 0 } else { MOMENTS } {
        times.push(lose_a_guard(environments[moment % environments.len()], &mut random));
    }
    times.assert_prompt(&format!("a guard lost, {mechanism}"));
}

/// Kills a guard while the job is filled and stopped, then kills the owner.
fn lose_a_guard(environment: Environment, random: &mut Random) -> Duration {
    let mut fixture = Fixture::new(environment);
    let mut owner = fixture.process();
    owner.new_job();
    let guards = fixture.guards();
    let requests = ["setsid", "daemon-grandchild", "stubborn"].map(|helper| fixture.spawn(helper));
    let requests = requests.into_iter().chain(["list".to_owned(), "stop 5".to_owned()]);
    let requests: Vec<_> = requests.collect();
    requests.iter().for_each(|request| owner.send(request));
    pause(random.duration(Duration::from_millis(25)));
    proc::kill(if random.below(2) == 0 { guards.inner } else { guards.outer });
    for request in &requests {
        let answer = owner.receive(request);
        // A cgroup job works without one of its guards, unless a guard has to start the members.
        let continues = answer.is_ok() || environment.needs_guard();
        assert!(continues, "{request}: {answer:?}");
    }
    let guarded = is_guarded(&mut owner);
    let members = owner.request("list").map(|pids| pids.split_whitespace().count()).unwrap_or(0);
    assert!(guarded || members == 0, "{members} members without a guard");
    owner.kill();
    fixture.assert_clean()
}

/// Kills an owner and its guards at one time.
#[track_caller]
fn kill_all_three(owner: &Owner, Guards { inner, outer }: Guards) {
    // The owner last, as `kill_together` demands.
    proc::kill_together(&[inner, outer, owner.pid]);
}

fn a_short_job(fixture: &mut Fixture) {
    let run = fixture.sandbox.start(&testkit::Bins::get().onejob(), |command| {
        command.args(["run", "--mechanism", "cgroup", "--", "true"]);
    });
    assert!(run.wait_with_output().expect("a child of this process").status.success());
}

/// `cgroup.kill` misses a member with an ended leader thread, and the guards of a short job end before they
/// could check a second time. Short jobs end such a member nevertheless.
#[test]
fn a_short_job_ends_abandoned_leaderless_ones() {
    let environments =
        Environment::of("cgroup").into_iter().filter(|environment| !environment.needs_guard());
    for environment in environments {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        owner.new_job();
        let guards = fixture.guards();
        owner.ok(&fixture.spawn("leader-gone"));
        let escapee = fixture.report.helper(&fixture.sandbox, "escapee").pid;
        kill_all_three(&owner, guards);
        assert!(proc::is_alive(escapee), "no process is left that could end it");
        a_short_job(&mut fixture);
        eventually("the end of an abandoned member", is_gone(escapee));
        eventually("the removal of all cgroups", || {
            a_short_job(&mut fixture);
            fixture.sandbox.nested_cgroups().is_empty().then_some(())
        });
        fixture.assert_clean();
    }
}

/// The next cgroup job ends the job of an owner that was killed together with its guards.
#[test]
fn all_killed_cgroup_job_is_ended_by_the_next() {
    // Only one owner can run in a namespace sandbox. The tests in `scope` cover scopes.
    let environments =
        Environment::of("cgroup").into_iter().filter(|environment| !environment.needs_guard());
    for environment in environments {
        let mut fixture = Fixture::new(environment);
        let mut other = fixture.process();
        let released = fixture.fill_job(&mut other);
        other.ok("release");
        let held = fixture.fill_job(&mut other);
        let others = fixture.guards();
        let mut owner = Owner::start(&mut fixture.sandbox, environment);
        let abandoned = fixture.fill_job(&mut owner);
        kill_all_three(&owner, fixture.guards_beside(&[others.inner, others.outer]));
        for pid in &abandoned {
            assert!(
                proc::is_alive(*pid),
                "no process is left that could end {pid}: {:?} {:?}",
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
        assert!(held.iter().all(is_alive), "a member of a living owner's job died");
        assert!(released.iter().all(is_alive), "a member of a released job died");
        next.end();
        other.end();
        fixture.kill_survivors(&released);
        // The cgroup of the released job is empty now, and the next job removes it.
        let mut last = Owner::start(&mut fixture.sandbox, environment);
        last.new_job();
        last.end();
        fixture.assert_clean();
    }
}

/// The members of a subreaper job survive if its owner and guards are killed together.
#[test]
fn all_killed_subreaper_job_survives() {
    for environment in Environment::of("subreaper") {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        let tree = fixture.fill_job(&mut owner);
        assert!(
            owner.ok("guarantees").contains("owner-death=guard"),
            "the guarantee names the guard, not the kernel"
        );
        kill_all_three(&owner, fixture.guards());
        assert!(
            tree.iter().all(|pid| proc::is_alive(*pid)),
            "no process is left that could end them"
        );
        fixture.kill_survivors(&tree);
        fixture.assert_clean();
    }
}
