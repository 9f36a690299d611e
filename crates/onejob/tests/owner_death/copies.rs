//! Threads, forked copies and another program in the owner's place.

use testkit::{Bins, Environment, eventually, proc};

use crate::{
    driven::{Driven, odd_owner},
    fixture::{Guards, Scene, every_setting, kill, settings},
};

#[test]
fn threads_that_come_and_go_kill_no_child() {
    every_setting(|setting| {
        let mut scene = Scene::new(setting);
        let mut owner = Driven::start(&mut scene.cell, &odd_owner(), |owner| {
            owner.args(["threads", setting.mechanism()]).arg(Bins::get().actor());
        });
        let said = owner.answer().expect("a job in a thread");
        let members = testkit::numbers(&said);
        assert_eq!(members.len(), 8);
        let pid = scene.only("odd-owner");
        scene.stand_by(proc::stat(pid).expect("alive").pgid);
        let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).ok().map(Iterator::count);
        eventually("a single thread", || (threads() == Some(1)).then_some(()));
        for member in members {
            let member = scene.cell.outer_pid(member).expect("a living member");
            assert!(proc::is_alive(member), "died with the thread that started it");
        }
        kill(pid);
        scene.is_deserted();
    });
}

#[test]
fn a_child_outlives_the_thread_that_started_it() {
    every_setting(|setting| {
        let mut scene = Scene::new(setting);
        let mut owner = scene.owner();
        owner.new_job();
        for _ in 0..20 {
            let spawn = scene.spawn("sleep").replacen("spawn", "spawn-in-thread", 1);
            owner.ok(&spawn);
        }
        scene.report.helpers(&scene.cell, "sleeper", 20);
        let members = owner.list();
        assert_eq!(members.len(), 20);
        owner.ok("kill");
        owner.end();
        scene.is_deserted();
    });
}

/// A forked copy does not keep a dead owners job alive.
#[test]
fn forked_copy_does_not_keep_the_job_alive() {
    every_setting(|setting| {
        let mut scene = Scene::new(setting);
        let mut owner = scene.owner();
        let tree = scene.tree_of(&mut owner);
        let copy = owner.ok("forked-copy").parse().expect("a pid");
        let copy = scene.cell.outer_pid(copy).expect("a living copy");
        owner.kill();
        for pid in tree {
            eventually("the end of a member", || (!proc::is_alive(pid)).then_some(()));
        }
        scene.has_no_guards();
        eventually("nothing but the copy", || {
            (scene.cell.nested_cgroups().is_empty() && scene.cell.live_pids() == [copy])
                .then_some(())
        });
        kill(copy);
        scene.is_deserted();
    });
}

#[test]
fn a_forked_copy_that_ends_does_not_kill_the_job() {
    every_setting(|setting| {
        let mut scene = Scene::new(setting);
        let mut owner = scene.owner();
        let tree = scene.tree_of(&mut owner);
        let copy = owner.ok("forked-copy").parse().expect("a pid");
        let copy = scene.cell.outer_pid(copy).expect("a living copy");
        kill(copy);
        eventually("the end of the copy", || (!proc::is_alive(copy)).then_some(()));
        for _ in 0..20 {
            owner.ok("forked-drop");
        }
        // A job that is asked for something after all that has had its chance to die.
        owner.ok(&scene.spawn("sleep"));
        scene.report.helper(&scene.cell, "sleeper");
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "a copy's end killed a member");
        scene.guards();
        owner.ok("stop 20");
        assert_eq!(owner.ok("list"), "");
        owner.kill();
        scene.is_deserted();
    });
}

/// An owner that becomes another program gives up its job.
#[test]
fn owner_that_executes_another_program() {
    every_setting(|setting| becomes_another(setting, |_| None));
}

/// The owner's process lives, so it takes the socket to see that.
#[test]
fn one_guard_sees_that_the_owner_became_another_program() {
    for setting in settings("cgroup") {
        becomes_another(setting, |guards| Some(guards.inner));
        becomes_another(setting, |guards| Some(guards.outer));
    }
}

fn becomes_another(setting: Environment, victim: impl Fn(Guards) -> Option<i32>) {
    let mut scene = Scene::new(setting);
    let mut owner = Driven::start(&mut scene.cell, &odd_owner(), |owner| {
        owner.args(["exec", setting.mechanism()]);
        owner.arg(Bins::get().actor()).arg(scene.report.arg());
    });
    owner.answer().expect("a job");
    let daemon = scene.report.helper(&scene.cell, "escapee").pid;
    let pid = scene.only("odd-owner");
    scene.stand_by(proc::stat(pid).expect("alive").pgid);
    if let Some(guard) = victim(scene.guards()) {
        kill(guard);
        eventually("the end of a guard", || (!proc::is_alive(guard)).then_some(()));
    }
    owner.tell("become another");
    eventually("another program", || proc::stat(pid).filter(|stat| stat.comm == "actor").map(drop));
    eventually("the end of the daemon", || (!proc::is_alive(daemon)).then_some(()));
    eventually("nothing but the program", || {
        (scene.cell.nested_cgroups().is_empty() && scene.cell.live_pids() == [pid]).then_some(())
    });
    kill(pid);
    scene.is_deserted();
}
