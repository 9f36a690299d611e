//! Threads, forked copies and another program in the owner's place.

use testkit::{Bins, Environment, eventually, proc};

use crate::{
    driven::{Driven, odd_owner},
    fixture::{Fixture, Guards, environments, every_environment, kill},
};

#[test]
fn threads_that_come_and_go_kill_no_child() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = Driven::start(&mut fixture.sandbox, &odd_owner(), |owner| {
            owner.args(["threads", environment.mechanism()]).arg(Bins::get().helper());
        });
        let said = owner.answer().expect("a job in a thread");
        let members = testkit::numbers(&said);
        assert_eq!(members.len(), 8);
        let pid = fixture.only("odd-owner");
        fixture.stand_by(proc::stat(pid).expect("alive").pgid);
        let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).ok().map(Iterator::count);
        eventually("a single thread", || (threads() == Some(1)).then_some(()));
        for member in members {
            let member = fixture.sandbox.outer_pid(member).expect("a living member");
            assert!(proc::is_alive(member), "died with the thread that started it");
        }
        kill(pid);
        fixture.is_deserted();
    });
}

#[test]
fn a_child_outlives_the_thread_that_started_it() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        owner.new_job();
        for _ in 0..20 {
            let spawn = fixture.spawn("sleep").replacen("spawn", "spawn-in-thread", 1);
            owner.ok(&spawn);
        }
        fixture.report.helpers(&fixture.sandbox, "sleeper", 20);
        let members = owner.list();
        assert_eq!(members.len(), 20);
        owner.ok("kill");
        owner.end();
        fixture.is_deserted();
    });
}

/// A forked copy does not keep a dead owners job alive.
#[test]
fn forked_copy_does_not_keep_the_job_alive() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        let tree = fixture.tree_of(&mut owner);
        let copy = owner.ok("forked-copy").parse().expect("a pid");
        let copy = fixture.sandbox.outer_pid(copy).expect("a living copy");
        owner.kill();
        for pid in tree {
            eventually("the end of a member", || (!proc::is_alive(pid)).then_some(()));
        }
        fixture.has_no_guards();
        eventually("nothing but the copy", || {
            (fixture.sandbox.nested_cgroups().is_empty() && fixture.sandbox.live_pids() == [copy])
                .then_some(())
        });
        kill(copy);
        fixture.is_deserted();
    });
}

#[test]
fn a_forked_copy_that_ends_does_not_kill_the_job() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        let tree = fixture.tree_of(&mut owner);
        let copy = owner.ok("forked-copy").parse().expect("a pid");
        let copy = fixture.sandbox.outer_pid(copy).expect("a living copy");
        kill(copy);
        eventually("the end of the copy", || (!proc::is_alive(copy)).then_some(()));
        for _ in 0..20 {
            owner.ok("forked-drop");
        }
        // A job that is asked for something after all that has had its chance to die.
        owner.ok(&fixture.spawn("sleep"));
        fixture.report.helper(&fixture.sandbox, "sleeper");
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "a copy's end killed a member");
        fixture.guards();
        owner.ok("stop 20");
        assert_eq!(owner.ok("list"), "");
        owner.kill();
        fixture.is_deserted();
    });
}

/// An owner that becomes another program gives up its job.
#[test]
fn owner_that_executes_another_program() {
    every_environment(|environment| becomes_another(environment, |_| None));
}

/// The owner's process lives, so it takes the socket to see that.
#[test]
fn one_guard_sees_that_the_owner_became_another_program() {
    for environment in environments("cgroup") {
        becomes_another(environment, |guards| Some(guards.inner));
        becomes_another(environment, |guards| Some(guards.outer));
    }
}

fn becomes_another(environment: Environment, victim: impl Fn(Guards) -> Option<i32>) {
    let mut fixture = Fixture::new(environment);
    let mut owner = Driven::start(&mut fixture.sandbox, &odd_owner(), |owner| {
        owner.args(["exec", environment.mechanism()]);
        owner.arg(Bins::get().helper()).arg(fixture.report.arg());
    });
    owner.answer().expect("a job");
    let daemon = fixture.report.helper(&fixture.sandbox, "escapee").pid;
    let pid = fixture.only("odd-owner");
    fixture.stand_by(proc::stat(pid).expect("alive").pgid);
    if let Some(guard) = victim(fixture.guards()) {
        kill(guard);
        eventually("the end of a guard", || (!proc::is_alive(guard)).then_some(()));
    }
    owner.tell("become another");
    eventually("another program", || {
        proc::stat(pid).filter(|stat| stat.comm == "helper").map(drop)
    });
    eventually("the end of the daemon", || (!proc::is_alive(daemon)).then_some(()));
    eventually("nothing but the program", || {
        (fixture.sandbox.nested_cgroups().is_empty() && fixture.sandbox.live_pids() == [pid])
            .then_some(())
    });
    kill(pid);
    fixture.is_deserted();
}
