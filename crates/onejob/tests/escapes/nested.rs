//! Ways to escape with cgroups that members make below that of the job.

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

/// Checks that the escapee is in the cgroup `path` and that its leader thread has ended: `cgroup.kill` misses
/// it.
fn escapee_in(case: &Case, path: &str) {
    let escapee = case.escapee();
    escapee.awaits_state('Z');
    assert!(proc::is_alive(escapee.pid), "another thread is alive");
    let group = fs::read_to_string(format!("/proc/{}/cgroup", escapee.pid)).expect("readable");
    assert!(group.contains(path), "{group}");
}

/// A member that `cgroup.kill` misses dies in the 250th cgroup below that of the job.
#[test]
fn a_leaderless_process_250_cgroups_below() {
    every_case_where(Environment::has_cgroups, &scenario(&["nested", "250", "d"]), |case| {
        escapee_in(&case, "/d/d/d/d/d/");
        case.ends_without_survivors();
    });
}

/// Members in cgroups with names like `.hidden` die with the job.
#[test]
fn a_leaderless_process_in_dotted_cgroups() {
    every_case_where(Environment::has_cgroups, &scenario(&["nested", "2", ".hidden"]), |case| {
        escapee_in(&case, "/.hidden/.hidden");
        case.ends_without_survivors();
    });
}

/// A member that `cgroup.kill` misses dies in one of 2,000 cgroups.
#[test]
fn a_leaderless_process_in_one_of_2000_cgroups() {
    every_case_where(Environment::has_cgroups, &scenario(&["wide", "1000"]), |case| {
        escapee_in(&case, "/.999/.below");
        case.ends_without_survivors();
    });
}

/// Members that make, leave, remove and rename cgroups while the job ends die.
#[test]
fn members_that_move_between_fresh_cgroups() {
    every_case_where(Environment::has_cgroups, &scenario(&["movers"]), |case| {
        let movers = case.fixture.report.helpers(&case.fixture.sandbox, "escapee", 3);
        eventually("a member in a nested cgroup", || {
            let group = fs::read_to_string(format!("/proc/{}/cgroup", movers[0].pid)).ok()?;
            group.contains("/.again").then_some(())
        });
        case.ends_without_survivors();
    });
}

/// Members die although one of them has removed all permissions from the cgroups of the job.
#[test]
fn members_that_close_their_cgroups() {
    every_case_where(Environment::has_cgroups, &scenario(&["closed-cgroups"]), |case| {
        escapee_in(&case, "/closed/below");
        case.ends_without_survivors();
    });
}
