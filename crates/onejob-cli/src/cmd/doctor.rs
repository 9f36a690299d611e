//! `onejob doctor`: what this host can guarantee, why, and how to get more.

use std::fmt::Write as _;

use onejob::{Guarantees, Leftover, LeftoverKind, Mechanism, Rung};
use serde::Serialize;

use crate::{args, exit::Exit, output::data, render::json};

/// The JSON's keys are a promise: new ones may come, these stay, or `schema` grows.
#[derive(Serialize)]
struct Report {
    schema: u32,
    /// The mechanism that `onejob run` takes unless told otherwise.
    run_uses: Option<String>,
    /// In the order in which they are tried.
    mechanisms: Vec<Entry>,
    /// Where other processes find jobs; null, and why not, if they cannot.
    runtime_directory: Option<String>,
    runtime_directory_problem: Option<String>,
    /// What was left of jobs before this doctor came.
    leftovers: Vec<Left>,
}

#[derive(Serialize)]
struct Left {
    place: String,
    processes: usize,
    kind: &'static str,
}

#[derive(Serialize)]
struct Entry {
    mechanism: String,
    available: bool,
    reason: String,
    remedy: Option<String>,
    guarantees: Option<Promises>,
}

#[derive(Serialize)]
struct Promises {
    containment: String,
    kill: String,
    owner_death: String,
    crosses_setuid: bool,
    freeze: String,
    cpu_accounting: String,
    memory_accounting: String,
    io_accounting: String,
    limits: String,
}

pub(crate) fn doctor(args: &args::Doctor) -> Exit {
    // Before the probes, which take some of it down.
    let leftovers = onejob::leftovers();
    let rungs = onejob::survey();
    let chosen = rungs.iter().find(|rung| rung.guarantees.is_some()).map(|rung| rung.mechanism);
    let report = Report::of(&rungs, chosen, &leftovers.unwrap_or_default());
    let text = if args.json { json(&report) } else { prose(&rungs, &report) };
    match (data(&text), chosen) {
        (Err(exit), _) => exit,
        (Ok(()), Some(_)) => Exit::Success,
        (Ok(()), None) => Exit::Failed,
    }
}

impl Report {
    fn of(rungs: &[Rung], chosen: Option<Mechanism>, leftovers: &[Leftover]) -> Report {
        let directory = onejob::runtime_dir();
        Report {
            schema: 1,
            run_uses: chosen.map(|mechanism| mechanism.to_string()),
            mechanisms: rungs.iter().map(Entry::of).collect(),
            runtime_directory: directory.as_ref().ok().map(|path| path.display().to_string()),
            runtime_directory_problem: directory.err().map(|error| error.to_string()),
            leftovers: leftovers.iter().map(Left::of).collect(),
        }
    }

    fn about_jobs(&self) -> String {
        let mut text = match (&self.runtime_directory, &self.runtime_directory_problem) {
            (Some(path), _) => format!("Jobs are listed in {path}.\n"),
            (None, Some(problem)) => format!("Jobs cannot be listed: {problem}\n"),
            (None, None) => String::new(),
        };
        for Left { place, processes, kind } in &self.leftovers {
            let fate = match *kind {
                "released" => "was released, its members live on",
                _ => "was abandoned, and is taken down by the next job below this cgroup",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "Left over: {place} with {processes} processes {fate}.");
        }
        text
    }
}

impl Left {
    fn of(leftover: &Leftover) -> Left {
        Left {
            place: leftover.place.display().to_string(),
            processes: leftover.processes,
            kind: match leftover.kind {
                LeftoverKind::Released => "released",
                _ => "abandoned",
            },
        }
    }
}

impl Entry {
    fn of(rung: &Rung) -> Entry {
        Entry {
            mechanism: rung.mechanism.to_string(),
            available: rung.guarantees.is_some(),
            reason: rung.reason.clone(),
            remedy: rung.remedy.clone(),
            guarantees: rung.guarantees.as_ref().map(Promises::of),
        }
    }
}

impl Promises {
    fn of(given: &Guarantees) -> Promises {
        Promises {
            containment: given.containment.to_string(),
            kill: given.kill.to_string(),
            owner_death: given.owner_death.to_string(),
            crosses_setuid: given.crosses_setuid,
            freeze: given.freeze.to_string(),
            cpu_accounting: given.cpu_accounting.to_string(),
            memory_accounting: given.memory_accounting.to_string(),
            io_accounting: given.io_accounting.to_string(),
            limits: given.limits.to_string(),
        }
    }
}

fn prose(rungs: &[Rung], report: &Report) -> String {
    let mut text = String::new();
    for rung in rungs {
        let verdict = if rung.guarantees.is_some() { "available" } else { "not available" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}: {verdict}, {}", rung.mechanism, rung.reason);
        if let Some(given) = &rung.guarantees {
            describe(&mut text, given);
        }
        if let Some(remedy) = &rung.remedy {
            let _ = writeln!(text, "  to get more    {remedy}");
        }
        text.push('\n');
    }
    let _ = match &report.run_uses {
        Some(mechanism) => writeln!(text, "onejob run uses {mechanism}."),
        None => writeln!(text, "onejob run has nothing to use here."),
    };
    text += &report.about_jobs();
    text
}

fn describe(text: &mut String, given: &Guarantees) {
    let setuid = if given.crosses_setuid { "yes" } else { "no" };
    let _ = write!(
        text,
        "  containment    {}\n  kill           {}\n  owner-death    {}\n  crosses-setuid {setuid}\n  \
         freeze         {}\n  accounting     cpu {}, memory {}, io {}\n  limits         {}\n",
        given.containment,
        given.kill,
        given.owner_death,
        given.freeze,
        given.cpu_accounting,
        given.memory_accounting,
        given.io_accounting,
        given.limits,
    );
}
