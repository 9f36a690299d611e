//! Nothing escapes, nobody else is hit.
//!
//! Each test is a way out of a job. It runs in every environment (Cgroup as root and in an ordinary
//! user's subtree, Subreaper as an ordinary user and as root; Job Object) with every ending (`stop`,
//! `kill`, drop, the end of `onejob run`), proves without the library that the escapee is alive and
//! in its odd state, ends the job, and asks the kernel who is left: never the library.
#![cfg(any(target_os = "linux", windows))]

mod case;
#[cfg(target_os = "linux")]
mod linux;
mod matrix;
#[cfg(target_os = "linux")]
mod nested;
#[cfg_attr(target_os = "linux", path = "proof/linux.rs")]
#[cfg_attr(windows, path = "proof/windows.rs")]
mod proof;
mod red;

use std::fs;

use case::Scenario;
use matrix::{every_case, every_case_where};
use testkit::{Bins, Environment, eventually, proc};

#[test]
fn four_generations_die_with_the_job() {
    every_case(&Scenario::helper("generations"), |case| {
        let mut parent = case.helper("main");
        for generation in 2..=4 {
            let child = case.helper(&format!("generation{generation}"));
            assert_eq!(child.parent(), parent.pid, "generation {generation}");
            proof::leads_a_group(&child);
            parent = child;
        }
        case.ends_without_survivors();
    });
}

#[test]
fn a_double_forked_daemon_dies_with_the_job() {
    every_case(&Scenario::helper("daemon"), |case| {
        proof::is_orphaned(&case.escapee());
        case.ends_without_survivors();
    });
}

/// A daemon started by a grandchild dies with the job.
#[test]
fn daemon_started_by_a_grandchild() {
    every_case(&Scenario::helper("daemon-grandchild"), |case| {
        proof::is_orphaned(&case.escapee());
        case.ends_without_survivors();
    });
}

/// A chain in which the dying start the next dies with the job.
#[test]
fn chain_respawns_on_death() {
    every_case(&Scenario::helper("respawn"), |case| {
        let link = case.helper("link1");
        proof::left_the_session(&link);
        proc::terminate(link.pid);
        case.helper("link2");
        proc::kill(case.helper("kept1").pid);
        case.helper("kept2");
        case.ends_without_survivors();
    });
}

#[test]
fn hoppers_that_fork_and_exit_die_with_the_job() {
    every_case(&Scenario::helper("hoppers"), |case| {
        case.report.helpers(&case.sandbox, "hopper1", 1);
        let hops = || fs::read_to_string(case.report.beside(".hops")).ok()?.trim().parse().ok();
        let first: u64 = eventually("a hop", hops);
        eventually("the next hop", || hops().filter(|hop| *hop > first + 3));
        case.ends_without_survivors();
    });
}

#[test]
fn a_job_inside_a_job_dies_with_the_outer_one() {
    for inner in proof::MECHANISMS {
        let possible =
            |environment: Environment| *inner != "cgroup" || environment.mechanism() == "cgroup";
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
        let spawn = format!("spawn {} setsid {}", bins.helper().display(), report.arg());
        fs::write(&script, format!("new {mechanism}\n{spawn}\n")).expect("writable");
        let go = report.beside(".go").display().to_string();
        let [helper, owner] = [bins.helper(), bins.owner()].map(|it| it.display().to_string());
        let script = script.display().to_string();
        let report = report.arg().to_owned();
        // The owner of the inner job is no child of the outer one's.
        vec![helper, "below".into(), report, owner, "-f".into(), script, "--linger".into(), go]
    })
}

/// A grandchild that holds stdout dies with the job and the pipe ends.
#[test]
fn grandchild_holds_stdout() {
    every_case(&Scenario::helper("hold-stdout").piped(), |case| {
        let escapee = case.escapee();
        proof::holds_the_pipe_of(&escapee, &case.helper("main"));
        case.ends_with_its_pipe_closed();
    });
}

/// Wine starts 50 a second.
const CROWD: usize = if cfg!(windows) { 400 } else { 1000 };

#[test]
fn a_crowd_of_hundreds_dies_with_the_job() {
    let crowd = Scenario::new(|report, _| {
        let helper = Bins::get().helper().display().to_string();
        vec![helper, "crowd".into(), report.arg().into(), CROWD.to_string()]
    });
    every_case(&crowd, |case| {
        let crowd = case.report.helpers(&case.sandbox, "crowd", CROWD - 1);
        let alive = crowd.iter().filter(|helper| proc::is_alive(helper.pid)).count();
        assert_eq!(alive, CROWD - 1);
        assert!(crowd.iter().any(proof::has_left_the_session), "one left the session");
        case.ends_without_survivors();
    });
}
