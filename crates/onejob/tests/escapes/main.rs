//! No member escapes, and no other process is ended.
//!
//! Each test is a way to escape from a job. It runs in every environment (Cgroup as root and in an ordinary
//! user's subtree, Subreaper as an ordinary user and as root; Job Object) with every ending (`stop`, `kill`,
//! drop, the end of `onejob run`). It proves without the library that the escapee is alive and in its special
//! state, ends the job, and lists the survivors from outside, never with the library.
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

/// Members that start a new member when they die die with the job.
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
        case.fixture.report.helpers(&case.fixture.sandbox, "hopper1", 1);
        let hops =
            || fs::read_to_string(case.fixture.report.beside(".hops")).ok()?.trim().parse().ok();
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

/// A member that owns a nested job with a member that leaves the session.
fn nested(mechanism: &'static str) -> Scenario {
    Scenario::new(move |report, _| {
        // The owner of the inner job reads its requests from a file: an argument cannot contain blanks here.
        let bins = Bins::get();
        let script = report.beside(".script");
        let spawn = format!("spawn {} setsid {}", bins.helper().display(), report.arg());
        fs::write(&script, format!("new {mechanism}\n{spawn}\n")).expect("writable");
        let go = report.beside(".go").display().to_string();
        let [helper, owner] = [bins.helper(), bins.owner()].map(|it| it.display().to_string());
        let script = script.display().to_string();
        let report = report.arg().to_owned();
        // The owner of the inner job is not a child of the outer owner.
        vec![helper, "below".into(), report, owner, "-f".into(), script, "--linger".into(), go]
    })
}

/// A grandchild that holds the pipe of stdout dies with the job, and the pipe ends.
#[test]
fn grandchild_holds_stdout() {
    every_case(&Scenario::helper("hold-stdout").piped(), |case| {
        let escapee = case.escapee();
        proof::holds_the_pipe_of(&escapee, &case.helper("main"));
        case.ends_with_its_pipe_closed();
    });
}

/// Wine starts 50 processes in a second.
const MANY: usize = if cfg!(windows) { 400 } else { 1000 };

#[test]
fn hundreds_of_members_die_with_the_job() {
    let many = Scenario::new(|report, _| {
        let helper = Bins::get().helper().display().to_string();
        vec![helper, "many".into(), report.arg().into(), MANY.to_string()]
    });
    every_case(&many, |case| {
        let members = case.fixture.report.helpers(&case.fixture.sandbox, "many", MANY - 1);
        let alive = members.iter().filter(|helper| proc::is_alive(helper.pid)).count();
        assert_eq!(alive, MANY - 1);
        assert!(members.iter().any(proof::has_left_the_session), "some members left the session");
        case.ends_without_survivors();
    });
}
