//! Owners with threads, forked copies of owners, and owners that execute another program.

use testkit::{
    Bins, Environment, Fixture, Guards, LineProcess, eventually, every_environment, proc,
};

#[test]
fn threads_that_come_and_go_kill_no_child() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner =
            LineProcess::start(&mut fixture.sandbox, &Bins::get().odd_owner(), |owner| {
                owner.args(["threads", environment.mechanism()]).arg(Bins::get().helper());
            });
        let said = owner.receive("the start").expect("a job in a thread");
        let members = testkit::numbers(&said);
        assert_eq!(members.len(), 8);
        let pid = fixture.sandbox.only_named("odd-owner");
        fixture.start_bystanders(proc::stat(pid).expect("alive").pgid);
        let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).ok().map(Iterator::count);
        eventually("a single thread", || (threads() == Some(1)).then_some(()));
        for member in members {
            let member = fixture.sandbox.outer_pid(member).expect("a living member");
            assert!(proc::is_alive(member), "a member died with the thread that started it");
        }
        proc::kill(pid);
        fixture.assert_clean();
    });
}

#[test]
fn a_child_outlives_the_thread_that_started_it() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
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
        fixture.assert_clean();
    });
}

/// A forked copy does not keep the job of a dead owner alive.
#[test]
fn forked_copy_does_not_keep_the_job_alive() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        let tree = fixture.fill_job(&mut owner);
        let copy = owner.ok("forked-copy").parse().expect("a pid");
        let copy = fixture.sandbox.outer_pid(copy).expect("a living copy");
        owner.kill();
        for pid in tree {
            eventually("the end of a member", || (!proc::is_alive(pid)).then_some(()));
        }
        fixture.wait_for_guards_to_end();
        eventually("only the copy to be left", || {
            (fixture.sandbox.nested_cgroups().is_empty() && fixture.sandbox.live_pids() == [copy])
                .then_some(())
        });
        proc::kill(copy);
        fixture.assert_clean();
    });
}

#[test]
fn a_forked_copy_that_ends_does_not_kill_the_job() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        let tree = fixture.fill_job(&mut owner);
        let copy = owner.ok("forked-copy").parse().expect("a pid");
        let copy = fixture.sandbox.outer_pid(copy).expect("a living copy");
        proc::kill(copy);
        eventually("the end of the copy", || (!proc::is_alive(copy)).then_some(()));
        for _ in 0..20 {
            owner.ok("forked-drop");
        }
        // A request after that: a job that is about to die would be dead by then.
        owner.ok(&fixture.spawn("sleep"));
        fixture.report.helper(&fixture.sandbox, "sleeper");
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "a copy's end killed a member");
        fixture.guards();
        owner.ok("stop 20");
        assert_eq!(owner.ok("list"), "");
        owner.kill();
        fixture.assert_clean();
    });
}

/// A job ends when its owner executes another program.
#[test]
fn owner_that_executes_another_program() {
    every_environment(|environment| execute_another_program(environment, |_| None));
}

/// One guard is enough to detect that. The owner's process lives, so only the end of the socket shows it.
#[test]
fn one_guard_sees_that_the_owner_executed() {
    for environment in Environment::of("cgroup") {
        execute_another_program(environment, |guards| Some(guards.inner));
        execute_another_program(environment, |guards| Some(guards.outer));
    }
}

fn execute_another_program(environment: Environment, to_kill: impl Fn(Guards) -> Option<i32>) {
    let mut fixture = Fixture::new(environment);
    let mut owner = LineProcess::start(&mut fixture.sandbox, &Bins::get().odd_owner(), |owner| {
        owner.args(["exec", environment.mechanism()]);
        owner.arg(Bins::get().helper()).arg(fixture.report.arg());
    });
    owner.receive("the start").expect("a job");
    let daemon = fixture.report.helper(&fixture.sandbox, "escapee").pid;
    let pid = fixture.sandbox.only_named("odd-owner");
    fixture.start_bystanders(proc::stat(pid).expect("alive").pgid);
    if let Some(guard) = to_kill(fixture.guards()) {
        proc::kill(guard);
        eventually("the end of a guard", || (!proc::is_alive(guard)).then_some(()));
    }
    owner.send("execute");
    eventually("another program", || {
        proc::stat(pid).filter(|stat| stat.comm == "helper").map(drop)
    });
    eventually("the end of the daemon", || (!proc::is_alive(daemon)).then_some(()));
    eventually("only the new program to be left", || {
        (fixture.sandbox.nested_cgroups().is_empty() && fixture.sandbox.live_pids() == [pid])
            .then_some(())
    });
    proc::kill(pid);
    fixture.assert_clean();
}
