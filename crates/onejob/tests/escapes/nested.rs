//! The ways out by cgroups that members make below the job's.

use std::fs;

use testkit::{Bins, Environment, eventually, proc};

use crate::{
    case::{Case, Scenario},
    matrix::every_case_where,
};

fn scenario(words: &'static [&'static str]) -> Scenario {
    Scenario::new(|report, _| {
        let helper = Bins::get().helper().display().to_string();
        let (name, args) = words.split_first().expect("a scenario");
        let mut all = vec![helper, (*name).to_owned(), report.arg().to_owned()];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        all
    })
}

/// The escapee, whose leading thread has ended: `cgroup.kill` does not reach it.
fn escapee_in(case: &Case, path: &str) {
    let escapee = case.escapee();
    escapee.awaits_state('Z');
    assert!(proc::is_alive(escapee.pid), "another thread of it lives");
    let group = fs::read_to_string(format!("/proc/{}/cgroup", escapee.pid)).expect("readable");
    assert!(group.contains(path), "{group}");
}

/// A member that `cgroup.kill` misses is found in the 250th cgroup below the job's.
#[test]
fn a_leaderless_process_250_cgroups_below() {
    every_case_where(Environment::has_cgroups, &scenario(&["nested", "250", "d"]), |case| {
        escapee_in(&case, "/d/d/d/d/d/");
        case.ends_without_survivors();
    });
}

/// A cgroup whose name begins with a dot is one like any other.
#[test]
fn a_leaderless_process_in_dotted_cgroups() {
    every_case_where(Environment::has_cgroups, &scenario(&["nested", "2", ".hidden"]), |case| {
        escapee_in(&case, "/.hidden/.hidden");
        case.ends_without_survivors();
    });
}

/// A member that `cgroup.kill` misses is found in one of thousands of cgroups.
#[test]
fn a_leaderless_process_in_one_of_2000_cgroups() {
    every_case_where(Environment::has_cgroups, &scenario(&["wide", "1000"]), |case| {
        escapee_in(&case, "/.999/.below");
        case.ends_without_survivors();
    });
}

/// Cgroups that are made, left, removed and renamed during the end keep no member alive.
#[test]
fn members_that_move_between_fresh_cgroups() {
    every_case_where(Environment::has_cgroups, &scenario(&["movers"]), |case| {
        let movers = case.report.helpers(&case.sandbox, "escapee", 3);
        eventually("a member in a nested cgroup", || {
            let group = fs::read_to_string(format!("/proc/{}/cgroup", movers[0].pid)).ok()?;
            group.contains("/.again").then_some(())
        });
        case.ends_without_survivors();
    });
}

/// Permissions that a member takes away from the job's cgroups are given back.
#[test]
fn members_that_close_their_cgroups() {
    every_case_where(Environment::has_cgroups, &scenario(&["closed-cgroups"]), |case| {
        escapee_in(&case, "/closed/below");
        case.ends_without_survivors();
    });
}
