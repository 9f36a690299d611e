//! A guard is killed or stopped at each of its system calls, while its owner starts, spawns, waits, stops,
//! drops, or dies.
//!
//! In each case the owner ends, with a success or a clear error, and nothing is left. The other guard
//! continues a guard that was stopped, so a stop is not an error. If a guard is stopped when the other guard
//! has finished, no process is left that could continue it; such a guard has nothing to do any more, and the
//! test continues it.
//!
//! A run tries some of the points, always the same ones; `ONEJOB_EVERY_FAULT_POINT=1` tries all.

use std::{fs, process::Stdio, time::Instant};

use rustix::process::Signal;
use testkit::{Bins, Environment, Fixture, Random, eventually, proc};

/// How many points a test tries of each kind.
const SOME: usize = 12;

#[test]
fn a_cgroup_job_of_the_library() {
    every_point("cgroup", Program::Library);
}

#[test]
fn a_subreaper_job_of_the_library() {
    every_point("subreaper", Program::Library);
}

#[test]
fn a_cgroup_job_whose_owner_dies() {
    every_point("cgroup", Program::Dying);
}

#[test]
fn a_subreaper_job_whose_owner_dies() {
    every_point("subreaper", Program::Dying);
}

#[test]
fn onejob_run_with_a_cgroup() {
    every_point("cgroup", Program::Command);
}

#[test]
fn onejob_run_with_a_subreaper() {
    every_point("subreaper", Program::Command);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    /// Makes a job, starts a daemon in it, waits, stops and drops.
    Library,
    /// The same up to the wait; then the owner ends with members in the job.
    Dying,
    Command,
}

impl Program {
    /// The exit statuses of an owner that reported an error.
    fn failures(self) -> &'static [i32] {
        match self {
            // A panic of the script.
            Program::Library | Program::Dying => &[101],
            // CMD was killed with its guard, or could not be started.
            Program::Command => &[125, 137],
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Point {
    role: &'static str,
    number: usize,
    act: &'static str,
}

/// Takes turns between the environments of the mechanism.
fn every_point(mechanism: &str, program: Program) {
    let environments = Environment::of(mechanism);
    let Some(first) = environments.first() else { return };
    let wants_all = std::env::var_os("ONEJOB_EVERY_FAULT_POINT").is_some();
    let mut random = Random::new(2026);
    let mut acted = 0;
    for role in ["outer", "inner"] {
        // The number 0 is never reached: no fault happens, and all calls are counted.
        let calls = live(*first, program, Point { role, number: 0, act: "kill" }).calls;
        assert!(calls > 10, "{program:?}: the {role} guard has made {calls} system calls");
        let mut points: Vec<_> = (1..=calls)
            .flat_map(|number| ["kill", "stop"].map(|act| Point { role, number, act }))
            .collect();
        while !wants_all && points.len() > 2 * SOME {
            points.swap_remove(random.index(points.len()));
        }
        for (at, point) in points.into_iter().enumerate() {
            let lived = live(environments[at % environments.len()], program, point);
            acted += usize::from(lived.acted);
            let is_clear = lived.status == 0
                || (point.act == "kill" && program.failures().contains(&lived.status));
            assert!(is_clear, "{program:?}, {mechanism}, {point:?}: {}", lived.status);
        }
    }
    assert!(acted > SOME, "only {acted} faults");
}

struct Life {
    status: i32,
    /// How many system calls the guard has made.
    calls: usize,
    acted: bool,
}

fn live(environment: Environment, program: Program, point: Point) -> Life {
    eprintln!("{environment}, {program:?}, {point:?}");
    let mut fixture = Fixture::new(environment);
    // The main process of the scenario ends as soon as its daemon lives, and the owner ends after its script.
    fixture.report.go();
    let (log, go) = (fixture.report.beside(".calls"), fixture.report.beside(".go"));
    let script = fixture.report.beside(".script");
    let mechanism = environment.mechanism();
    let mut life = format!("new {mechanism}\n{}\nchild-wait\nlist\n", fixture.spawn("daemon"));
    if program == Program::Library {
        life += "stop 1000\ndrop\n";
    }
    fs::write(&script, life).expect("a writable scratch directory");
    let report = fixture.report.arg().to_owned();
    let mut child = fixture.sandbox.start(&Bins::get().fault_point(), |command| {
        command.arg(&log).args([point.role, &point.number.to_string(), point.act]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match program {
            Program::Command => {
                command.arg(Bins::get().onejob()).args(["run", "--mechanism", mechanism]);
                command
                    .args(["-k", "1s", "--"])
                    .arg(Bins::get().helper())
                    .args(["daemon", &report]);
            }
            _ => {
                command.arg(Bins::get().owner()).arg("-f").arg(&script).arg("--linger").arg(&go);
            }
        }
    });
    let what = format!("the end of {program:?}, {environment}, {point:?}");
    let status = eventually(&what, || child.try_wait().expect("a child of this process"));
    fixture.start_bystanders_apart();
    let log = fs::read_to_string(log).unwrap_or_default();
    let acted = log.lines().any(|line| line.starts_with("acted"));
    if log.lines().any(|line| line == "acted alone") {
        fixture.all_guards().into_iter().for_each(|(pid, _)| proc::signal(pid, Signal::CONT));
    }
    fixture.assert_clean_since(Instant::now());
    let calls = log.lines().count() - usize::from(acted);
    Life { status: status.code().unwrap_or(-1), calls, acted }
}
