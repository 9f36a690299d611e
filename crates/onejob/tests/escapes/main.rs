//! Nothing escapes, nobody else is hit.
//!
//! Each test is a way out of a job. It runs in every setting (Cgroup as root and in an ordinary
//! user's subtree, Subreaper as an ordinary user and as root) with every ending (`stop`, `kill`,
//! drop, the end of `onejob run`), proves from `/proc` that the escapee is alive and in its odd
//! state, ends the job, and asks the kernel who is left: never the library.
#![cfg(target_os = "linux")]

mod case;
mod matrix;
mod red;

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use case::{Case, Scenario};
use matrix::{every_case, every_case_where};
use testkit::{Bins, Setting, eventually, proc};

#[test]
fn four_generations_die_with_the_job() {
    every_case(&Scenario::actor("generations"), |case| {
        let mut parent = case.player("main");
        for generation in 2..=4 {
            let child = case.player(&format!("generation{generation}"));
            assert_eq!(child.stat().ppid, parent.pid, "generation {generation}");
            assert_eq!(child.stat().pgid, child.pid, "generation {generation}");
            parent = child;
        }
        case.ends_without_survivors();
    });
}

#[test]
fn a_setsid_grandchild_dies_with_the_job() {
    every_case(&Scenario::actor("setsid"), |case| {
        let escapee = case.escapee();
        assert_eq!(escapee.stat().sid, escapee.pid, "it leads a session");
        case.ends_without_survivors();
    });
}

#[test]
fn a_double_forked_daemon_dies_with_the_job() {
    every_case(&Scenario::actor("daemon"), |case| {
        case.assert_orphaned(&case.escapee());
        case.ends_without_survivors();
    });
}

#[test]
fn a_daemon_started_by_a_grandchild_dies_with_the_job() {
    every_case(&Scenario::actor("daemon-grandchild"), |case| {
        case.assert_orphaned(&case.escapee());
        case.ends_without_survivors();
    });
}

#[test]
fn a_member_deaf_to_term_int_and_hup_dies_with_the_job() {
    every_case(&Scenario::actor("stubborn"), |case| {
        let escapee = case.escapee();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            assert!(proc::has_signal(escapee.pid, "SigIgn", signal), "signal {signal}");
        }
        case.ends_without_survivors();
    });
}

#[test]
fn a_stopped_member_dies_with_the_job() {
    every_case(&Scenario::actor("stopped"), |case| {
        case.escapee().awaits_state('T');
        case.ends_without_survivors();
    });
}

#[test]
fn a_member_without_descriptors_dies_with_the_job() {
    every_case(&Scenario::actor("closed"), |case| {
        let escapee = case.escapee();
        eventually("a process without descriptors", || {
            let open = fs::read_dir(format!("/proc/{}/fd", escapee.pid)).expect("readable").count();
            (open == 0).then_some(())
        });
        case.ends_without_survivors();
    });
}

#[test]
fn a_renamed_member_without_environment_dies_with_the_job() {
    every_case(&Scenario::actor("renamed"), |case| {
        let escapee = case.escapee();
        assert_eq!(escapee.stat().comm, ") T 1 1 (x");
        let environment = fs::read(format!("/proc/{}/environ", escapee.pid)).expect("readable");
        assert_eq!(environment, b"");
        case.ends_without_survivors();
    });
}

#[test]
fn a_chain_in_which_the_dying_start_the_next_dies_with_the_job() {
    every_case(&Scenario::actor("respawn"), |case| {
        let link = case.player("link1");
        case.assert_left_the_session(&link);
        signal(link.pid, rustix::process::Signal::TERM);
        case.player("link2");
        signal(case.player("kept1").pid, rustix::process::Signal::KILL);
        case.player("kept2");
        case.ends_without_survivors();
    });
}

#[test]
fn hoppers_that_fork_and_exit_die_with_the_job() {
    every_case(&Scenario::actor("hoppers"), |case| {
        case.report.players(&case.cell, "hopper1", 1);
        let hops = || fs::read_to_string(case.report.beside(".hops")).ok()?.trim().parse().ok();
        let first: u64 = eventually("a hop", hops);
        eventually("the next hop", || hops().filter(|hop| *hop > first + 3));
        case.ends_without_survivors();
    });
}

#[test]
fn a_clone_parent_child_dies_with_the_job() {
    every_case(&Scenario::actor("clone-parent"), |case| {
        let main = case.player("main");
        let escapee = case.escapee();
        assert_eq!(escapee.starter, Some(main.pid));
        assert_eq!(escapee.stat().ppid, main.stat().ppid, "a sibling of its starter");
        case.ends_without_survivors();
    });
}

#[test]
fn a_vfork_child_and_its_blocked_parent_die_with_the_job() {
    every_case(&Scenario::actor("vfork"), |case| {
        let parent = case.player("vforker");
        parent.awaits_state('D');
        assert_eq!(case.escapee().stat().ppid, parent.pid);
        case.ends_without_survivors();
    });
}

#[test]
fn a_process_whose_leader_thread_is_gone_dies_with_the_job() {
    every_case(&Scenario::actor("leader-gone"), |case| {
        let escapee = case.escapee();
        escapee.awaits_state('Z');
        assert!(proc::is_alive(escapee.pid), "another thread of it lives");
        case.ends_without_survivors();
    });
}

#[test]
fn a_member_that_collects_orphans_and_its_orphan_die_with_the_job() {
    every_case(&Scenario::actor("subreaper"), |case| {
        let subreaper = case.player("subreaper");
        case.assert_left_the_session(&subreaper);
        assert_eq!(case.escapee().stat().ppid, subreaper.pid, "collected by a member");
        case.ends_without_survivors();
    });
}

#[test]
fn a_sub_cgroup_that_a_member_made_and_froze_dies_with_the_job() {
    every_case_where(Setting::has_cgroups, &Scenario::actor("subcgroup"), |case| {
        let escapee = case.escapee();
        let file = format!("/proc/{}/cgroup", escapee.pid);
        eventually("a member in a cgroup of its own", || {
            let group = fs::read_to_string(&file).expect("readable");
            group.trim_end().ends_with("/made-by-a-member").then_some(())
        });
        let nested = case.cell.nested_cgroups();
        let made = nested.iter().find(|dir| dir.ends_with("made-by-a-member")).expect("there");
        eventually("a frozen cgroup", || {
            let events = fs::read_to_string(made.join("cgroup.events")).ok()?;
            events.contains("frozen 1").then_some(())
        });
        case.ends_without_survivors();
    });
}

#[test]
fn a_job_inside_a_job_dies_with_the_outer_one() {
    for inner in ["cgroup", "subreaper"] {
        let possible = |setting: Setting| inner == "subreaper" || setting.mechanism() == "cgroup";
        every_case_where(possible, &nested(inner), |case| {
            case.escapee();
            case.ends_without_survivors();
        });
    }
}

/// A member that holds a job of its own, with a member that leaves the session.
fn nested(mechanism: &'static str) -> Scenario {
    Scenario::new(move |report, _| {
        // The owner of the inner job is driven by a file, for words have no blanks.
        let bins = Bins::get();
        let script = report.beside(".script");
        let spawn = format!("spawn {} setsid {}", bins.actor().display(), report.arg());
        fs::write(&script, format!("new {mechanism}\n{spawn}\n")).expect("writable");
        let go = report.beside(".go").display().to_string();
        let owner = bins.owner().display().to_string();
        vec![owner, "-f".into(), script.display().to_string(), "--linger".into(), go]
    })
}

#[test]
fn a_member_held_by_a_tracer_inside_dies_with_the_job() {
    every_case(&Scenario::actor("traced"), |case| {
        let tracer = case.player("tracer");
        let escapee = case.escapee();
        escapee.awaits_state('t');
        assert_eq!(proc::status(escapee.pid, "TracerPid"), Some(tracer.pid.to_string()));
        case.ends_without_survivors();
    });
}

#[test]
fn a_member_held_by_a_tracer_outside_dies_with_the_job() {
    every_case(&Scenario::actor("traceable"), |mut case| {
        let escapee = case.escapee();
        // Never waits for the dead tracee: that zombie is not to hold anybody up.
        case.tracer = Some(Tracer::of(&case, escapee.pid));
        escapee.awaits_state('t');
        case.ends_without_survivors();
    });
}

/// A process outside of the job that holds a member.
pub(crate) struct Tracer(Child);

impl Tracer {
    fn of(case: &Case, tracee: i32) -> Tracer {
        let mut actor = Command::new(Bins::get().actor());
        actor.arg("trace").arg(case.report.beside(".tracer")).arg(tracee.to_string());
        let tracer = Tracer(case.cell.start_beside(actor.stdin(Stdio::null())));
        let pid = tracer.0.id().to_string();
        eventually("a traced member", || {
            (proc::status(tracee, "TracerPid").as_deref() == Some(&pid)).then_some(())
        });
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn zombies_that_nobody_reaps_do_not_outlast_the_job() {
    every_case(&Scenario::actor("zombies"), |case| {
        let keeper = case.escapee();
        eventually("twenty zombies", || {
            let dead = proc::children(keeper.pid).into_iter().filter_map(proc::stat);
            (dead.filter(|stat| stat.state == 'Z').count() == 20).then_some(())
        });
        case.ends_without_survivors();
    });
}

#[test]
fn a_grandchild_that_holds_stdout_dies_with_the_job_and_the_pipe_ends() {
    every_case(&Scenario::actor("hold-stdout").piped(), |case| {
        let escapee = case.escapee();
        let stdout = proc::link(escapee.pid, "fd/1").expect("readable");
        let main = proc::link(case.player("main").pid, "fd/1").expect("readable");
        assert!(stdout.to_string_lossy().starts_with("pipe:"), "{}", stdout.display());
        assert_eq!(stdout, main, "the pipe of the main process");
        case.ends_with_its_pipe_closed();
    });
}

#[test]
fn a_setuid_member_of_an_ordinary_users_job_dies_or_is_reported() {
    if Bins::get().setuid_actor().is_none() {
        eprintln!("SKIPPED: only root can make a program setuid root, and not with nosuid");
        return;
    }
    let scenario = Scenario::new(|report, _| {
        let setuid = Bins::get().setuid_actor().expect("checked").display().to_string();
        let actor = Bins::get().actor().display().to_string();
        vec![actor, "setuid".into(), report.arg().into(), setuid]
    });
    every_case_where(Setting::is_ordinary, &scenario, |case| {
        let escapee = case.escapee();
        assert_eq!(proc::status(escapee.pid, "Uid").as_deref(), Some("0\t0\t0\t0"));
        case.player("mate");
        if case.setting.crosses_setuid() {
            case.ends_without_survivors();
        } else {
            case.reports_survivor(&escapee);
        }
    });
}

#[test]
fn a_thousand_processes_die_with_the_job() {
    every_case(&Scenario::actor("crowd"), |case| {
        let crowd = case.report.players(&case.cell, "crowd", 999);
        assert_eq!(crowd.iter().filter(|player| proc::is_alive(player.pid)).count(), 999);
        assert!(crowd.iter().any(|player| player.stat().sid == player.pid), "one left the session");
        case.ends_without_survivors();
    });
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("a process of ours");
}
