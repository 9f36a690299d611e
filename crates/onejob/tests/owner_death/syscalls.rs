//! The owner is killed at each of its system calls.
//!
//! `strace` counts the calls of each name separately, so a name and a number identify a call. Only the owner is
//! traced and killed, not the processes that it starts. It dies at the entry of the call, before the call has
//! any effect.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use testkit::{Bins, Environment, Fixture, KillOnDrop, eventually, skip, strace};

use crate::times::Times;

/// Nothing is left of a cgroup job if its owner is killed at any of its system calls.
#[test]
fn at_every_system_call_of_a_cgroup_owner() {
    every_call("cgroup", Program::Library);
}

/// Nothing is left of a subreaper job if its owner is killed at any of its system calls.
#[test]
fn at_every_system_call_of_a_subreaper_owner() {
    every_call("subreaper", Program::Library);
}

/// Nothing is left of `onejob run` with a cgroup that is killed at any of its system calls.
#[test]
fn at_every_system_call_of_run_with_cgroup() {
    every_call("cgroup", Program::Command);
}

/// Nothing is left of `onejob run` with a subreaper that is killed at any of its system calls.
#[test]
fn at_every_system_call_of_run_with_subreaper() {
    every_call("subreaper", Program::Command);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Program {
    Library,
    Command,
}

/// Takes turns between the environments of the mechanism.
fn every_call(mechanism: &str, program: Program) {
    let environments = Environment::of(mechanism);
    let Some(strace) = strace::program() else { return skip("strace is not installed") };
    let Some(first) = environments.first() else { return };
    let calls = census(&strace, *first, program);
    let mut times = Times::default();
    let mut count = 0;
    for (name, calls) in calls {
        let mut number = calls.first;
        loop {
            let environment = environments[count % environments.len()];
            let inject = format!("inject={name}:signal=KILL:when={number}");
            let (status, took) = live(&strace, environment, program, &["-e", &inject], &name);
            if let Some(took) = took {
                times.push(took);
            }
            let completed = status.success();
            assert!(completed || strace::is_killed(status), "{program:?}, {inject}: {status}");
            if completed && number >= calls.last {
                break;
            }
            number += 1;
            count += 1;
        }
    }
    times.assert_prompt(&format!("every system call, {program:?}, {mechanism}"));
    assert!(count > 50, "only {count} calls");
}

/// Counts the calls of a run in which the owner is not killed.
fn census(
    strace: &Path,
    environment: Environment,
    program: Program,
) -> BTreeMap<String, strace::Calls> {
    let mut fixture = Fixture::new(environment);
    let log = fixture.report.beside(".strace");
    let mut run = start(&mut fixture, strace, program, &["-o", log.to_str().expect("UTF-8")]);
    let status = run.0.wait().expect("a child of this process");
    assert!(status.success(), "{status}");
    fixture.start_bystanders_apart();
    fixture.assert_clean_since(Instant::now());
    let log = fs::read_to_string(log).expect("a log");
    // The calls before the owner reads its script are not of interest.
    let mark = match program {
        Program::Library => "report.script",
        Program::Command => "",
    };
    strace::count_calls(&log, mark)
}

/// One run under strace. Returns its status and, if it was killed, how long it took until nothing was left.
fn live(
    strace: &Path,
    environment: Environment,
    program: Program,
    inject: &[&str],
    name: &str,
) -> (ExitStatus, Option<Duration>) {
    let mut fixture = Fixture::new(environment);
    let trace = format!("trace={name}");
    let words = [&["-o", "/dev/null", "-e", &trace], inject].concat();
    let mut run = start(&mut fixture, strace, program, &words);
    let status =
        eventually("the end of strace", || run.0.try_wait().expect("a child of this process"));
    let dead = Instant::now();
    fixture.start_bystanders_apart();
    let took = fixture.assert_clean_since(dead);
    (status, strace::is_killed(status).then_some(took))
}

/// Starts a program that makes a job, starts a daemon in it, and stops it.
fn start(fixture: &mut Fixture, strace: &Path, program: Program, words: &[&str]) -> KillOnDrop {
    // The main process of the scenario ends as soon as its daemon lives.
    fixture.report.go();
    let mechanism = fixture.environment.mechanism();
    let helper = Bins::get().helper();
    let report = fixture.report.arg().to_owned();
    let script = fixture.report.beside(".script");
    let spawn = fixture.spawn("daemon");
    let life = format!("new {mechanism}\n{spawn}\nchild-wait\nlist\nstop 1000\ndrop\n");
    fs::write(&script, life).expect("a writable scratch directory");
    let go = fixture.report.beside(".go");
    let child = fixture.sandbox.start(strace, |strace| {
        strace.arg("-qq").args(words).arg("--").stdin(Stdio::null()).stdout(Stdio::null());
        match program {
            Program::Library => {
                strace.arg(Bins::get().owner());
                strace.arg("-f").arg(&script).arg("--linger").arg(&go);
            }
            Program::Command => {
                strace.arg(Bins::get().onejob());
                strace.args(["run", "--mechanism", mechanism, "-k", "1s", "--"]);
                strace.arg(&helper).args(["daemon", &report]);
            }
        }
    });
    KillOnDrop(child)
}
