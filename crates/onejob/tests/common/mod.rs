//! Functions for tests that use the library in the test process itself.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    fs,
    process::{Command, ExitStatus},
};

use onejob::{Job, Mechanism};

/// Runs `test` for every mechanism that is available here, and prints the others.
pub(crate) fn for_each_mechanism(test: impl Fn(Mechanism)) {
    for mechanism in [Mechanism::Cgroup, Mechanism::Subreaper] {
        match Job::builder().mechanism(mechanism).build().map(drop) {
            Ok(()) => test(mechanism),
            Err(error) if mechanism == Mechanism::Cgroup && !testkit::cgroup::can_be_killed() => {
                eprintln!("SKIPPED: {mechanism}: {error}");
            }
            Err(error) if error.is_unsupported() => testkit::skip(&format!("{mechanism}: {error}")),
            Err(error) => panic!("{mechanism}: {error}"),
        }
    }
}

pub(crate) fn job(mechanism: Mechanism) -> Job {
    Job::builder().mechanism(mechanism).build().expect("the mechanism is available")
}

/// The variable with the name of the test, in a process that [`alone`] has started.
const ALONE: &str = "ONEJOB_TEST_ALONE";

/// The variable with the file that this process makes: it shows that the test has run.
const HAS_RUN: &str = "ONEJOB_TEST_HAS_RUN";

/// Runs the test again in a new process, because it changes the whole process. Returns true in that process,
/// and false in the caller once that process has passed.
///
/// # Panics
/// If `test` is not the path of the test.
#[track_caller]
pub(crate) fn alone(test: &str, set_up: impl FnOnce(&mut Command)) -> bool {
    alone_below(test, &[], set_up)
}

/// The same, with a launcher and its arguments before the command line of the test.
#[track_caller]
pub(crate) fn alone_below(
    test: &str,
    launcher: &[&str],
    set_up: impl FnOnce(&mut Command),
) -> bool {
    if is_alone(test) {
        return true;
    }
    let program = std::env::current_exe().expect("a path to this test");
    let mut command = match launcher.split_first() {
        None => Command::new(program),
        Some((launcher, args)) => {
            let mut command = Command::new(launcher);
            command.args(args).arg(program);
            command
        }
    };
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ALONE, test);
    let has_run = testkit::scratch_dir().join("has-run");
    command.env(HAS_RUN, &has_run);
    set_up(&mut command);
    let status = command.status().expect("start the test again");
    assert!(status.success(), "{test}, in a process of its own: {status}");
    assert!(has_run.exists(), "no test has the path {test:?}");
    false
}

/// Whether this is the process that [`alone`] has started for a test.
pub(crate) fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_none_or(|name| name != test) {
        return false;
    }
    let has_run = std::env::var_os(HAS_RUN).expect("set with the other variable");
    fs::write(has_run, "").expect("a writable scratch directory");
    true
}

/// The status of a child of std, for comparison.
pub(crate) fn std_status(program: &str, args: &[&str]) -> ExitStatus {
    Command::new(program).args(args).status().expect("std starts it")
}

/// The guards of this process, found by their pidfds of it and not by the library.
pub(crate) fn guards() -> Vec<i32> {
    let me = format!("Pid:\t{}", std::process::id());
    let watches = |pid: i32| {
        let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        infos
            .filter_map(|info| fs::read_to_string(info.path()).ok())
            .any(|text| text.lines().any(|line| line == me))
    };
    let all = fs::read_dir("/proc").expect("processes").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let named = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "onejob-guard\n")
    };
    pids.filter(named).filter(|pid| watches(*pid)).collect()
}

/// Waits for both guards.
#[track_caller]
pub(crate) fn await_guards() -> Vec<i32> {
    testkit::eventually("two guards", || Some(guards()).filter(|seen| seen.len() >= 2))
}
