//! `onejob doctor`: what this host can guarantee, why, and how to get more.

use std::fmt::Write as _;

use onejob::{Guarantees, Mechanism, Rung};
use serde::Serialize;

use crate::{
    args,
    exit::Exit,
    output::{data, talk},
};

/// The JSON's keys are a promise: new ones may come, these stay, or `schema` grows.
#[derive(Serialize)]
struct Report {
    schema: u32,
    /// The mechanism that `onejob run` takes unless told otherwise.
    run_uses: Option<String>,
    /// In the order in which they are tried.
    mechanisms: Vec<Entry>,
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
    let rungs = onejob::survey();
    let chosen = rungs.iter().find(|rung| rung.guarantees.is_some()).map(|rung| rung.mechanism);
    let text = if args.json { json(&rungs, chosen) } else { prose(&rungs, chosen) };
    match (data(&text), chosen) {
        (Err(exit), _) => exit,
        (Ok(()), Some(_)) => Exit::Success,
        (Ok(()), None) => Exit::Failed,
    }
}

fn json(rungs: &[Rung], chosen: Option<Mechanism>) -> String {
    let report = Report {
        schema: 1,
        run_uses: chosen.map(|mechanism| mechanism.to_string()),
        mechanisms: rungs.iter().map(Entry::of).collect(),
    };
    match serde_json::to_string_pretty(&report) {
        Ok(text) => text + "\n",
        // Strings, flags and numbers always serialise.
        Err(error) => {
            talk(format_args!("failed to write JSON: {error}"));
            String::new()
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

fn prose(rungs: &[Rung], chosen: Option<Mechanism>) -> String {
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
    let _ = match chosen {
        Some(mechanism) => writeln!(text, "onejob run uses {mechanism}."),
        None => writeln!(text, "onejob run has nothing to use here."),
    };
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
