//! Death at every single system call of the owner.
//!
//! `strace` counts the calls of each name for itself, so that every one is named by its name and
//! its number. Only the owner is traced and killed, not what it starts. It dies on entry, before the
//! call has done anything: between any two changes it makes to the world.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use testkit::{Bins, Environment, eventually, skip};

use crate::fixture::{Fixture, Times, environments};

/// At every system call a killed owner of a cgroup job leaves nothing.
#[test]
fn at_every_system_call_of_a_cgroup_owner() {
    every_call("cgroup", Program::Library);
}

/// At every system call a killed owner of a subreaper job leaves nothing.
#[test]
fn at_every_system_call_of_a_subreaper_owner() {
    every_call("subreaper", Program::Library);
}

/// At every system call a killed onejob run with a cgroup leaves nothing.
#[test]
fn at_every_system_call_of_run_with_cgroup() {
    every_call("cgroup", Program::Command);
}

/// At every system call a killed onejob run with a subreaper leaves nothing.
#[test]
fn at_every_system_call_of_run_with_subreaper() {
    every_call("subreaper", Program::Command);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Program {
    Library,
    Command,
}

/// In turns in each of the environments that the mechanism can be had in.
fn every_call(mechanism: &str, program: Program) {
    let environments = environments(mechanism);
    let Some(strace) = find("strace") else { return skip("strace is not installed") };
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
            assert!(completed || is_killed(status), "{program:?}, {inject}: {status}");
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

fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9) || status.code() == Some(128 + 9)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The calls of one name: their numbers, the first one since the job was begun.
#[derive(Debug, Default, Clone, Copy)]
struct Calls {
    first: usize,
    last: usize,
}

/// A whole life, to know what there is to be tried.
fn census(strace: &Path, environment: Environment, program: Program) -> BTreeMap<String, Calls> {
    let mut fixture = Fixture::new(environment);
    let log = fixture.report.beside(".strace");
    let mut run = start(&mut fixture, strace, program, &["-o", log.to_str().expect("UTF-8")]);
    let status = run.0.wait().expect("our child");
    assert!(status.success(), "{status}");
    fixture.stand_by_apart();
    fixture.is_deserted();
    let log = fs::read_to_string(log).expect("a log");
    // What the owner does before it reads its script is no business of ours.
    let begin = match program {
        Program::Library => "report.script",
        Program::Command => "/proc/self/exe",
    };
    let names = log.lines().filter_map(|line| Some((line, line.split_once('(')?.0)));
    let is_name =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let mut calls: BTreeMap<String, Calls> = BTreeMap::new();
    let mut begun = program == Program::Command;
    for (line, name) in names.filter(|(_, name)| is_name(name)) {
        begun |= line.contains(begin);
        let calls = calls.entry(name.to_owned()).or_default();
        calls.last += 1;
        if begun && calls.first == 0 {
            calls.first = calls.last;
        }
    }
    calls.retain(|_, calls| calls.first > 0);
    calls
}

/// One life under strace and, if it was cut short, how long it took until nothing was left.
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
    let status = eventually("the end of strace", || run.0.try_wait().expect("our child"));
    let dead = Instant::now();
    fixture.stand_by_apart();
    let took = fixture.is_deserted_since(dead);
    (status, is_killed(status).then_some(took))
}

/// Starts the whole life of a job: built, filled with a daemon, and stopped.
fn start(fixture: &mut Fixture, strace: &Path, program: Program, words: &[&str]) -> Run {
    // The member's main process ends as soon as its daemon lives.
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
    Run(child)
}

/// Killed at the latest when dropped.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
