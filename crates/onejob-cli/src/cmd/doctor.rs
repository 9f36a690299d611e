//! `onejob doctor`: what this host can guarantee, why, and how to get more.

use std::fmt::Write as _;

use onejob::{AbandonedJob, Containment, Guarantees, Kill, Mechanism, MechanismReport, OwnerDeath};
use serde::Serialize;

use super::leftovers::LeftoverRow;
use crate::{
    args::DoctorArgs,
    exit::Exit,
    failure::{Failure, print},
    output,
    render::json,
};

/// The JSON keys are stable: keys may be added, the others keep their meaning, or `schema` changes.
#[derive(Serialize)]
struct Report {
    schema: u32,
    /// The result in one sentence.
    verdict: String,
    /// The mechanism that `onejob run` uses by default.
    run_uses: Option<String>,
    /// In the order in which they are tried.
    mechanisms: Vec<MechanismRow>,
    /// Where other processes find the records of jobs; null, with a problem, if they cannot.
    runtime_directory: Option<String>,
    runtime_directory_problem: Option<String>,
    /// Jobs without an owner, before this command was started.
    leftovers: Vec<LeftoverRow>,
}

#[derive(Serialize)]
struct MechanismRow {
    mechanism: String,
    available: bool,
    reason: String,
    hint: Option<String>,
    guarantees: Option<GuaranteeList>,
}

#[derive(Serialize)]
struct GuaranteeList {
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

pub(super) fn doctor(args: &DoctorArgs) -> Result<Exit, Failure> {
    // Before the probes: those remove abandoned jobs.
    let leftovers = onejob::abandoned_jobs().unwrap_or_else(|error| {
        output::warn(format!("cannot look for abandoned jobs: {error}"));
        Vec::new()
    });
    let mechanisms = onejob::probe_mechanisms();
    let available = mechanisms.iter().find(|mechanism| mechanism.guarantees.is_some());
    let default = available.map(|mechanism| mechanism.mechanism);
    let report = Report::new(&mechanisms, default, &leftovers);
    print(if args.json { json(&report) } else { report.describe(&mechanisms) })?;
    Ok(if default.is_some() { Exit::Success } else { Exit::PartialFailure })
}

impl Report {
    fn new(
        mechanisms: &[MechanismReport],
        default: Option<Mechanism>,
        leftovers: &[AbandonedJob],
    ) -> Report {
        let directory = onejob::runtime_dir();
        Report {
            schema: 1,
            verdict: verdict(mechanisms),
            run_uses: default.map(|mechanism| mechanism.to_string()),
            mechanisms: mechanisms.iter().map(MechanismRow::new).collect(),
            runtime_directory: directory.as_ref().ok().map(|path| path.display().to_string()),
            runtime_directory_problem: directory.err().map(|error| error.to_string()),
            leftovers: leftovers.iter().map(LeftoverRow::new).collect(),
        }
    }

    // Writing to a string cannot fail, so the results of `writeln!` are ignored.
    fn describe(&self, mechanisms: &[MechanismReport]) -> String {
        let mut text = format!("{}\n\n", self.verdict);
        for mechanism in mechanisms {
            let state = if mechanism.guarantees.is_some() { "available" } else { "not available" };
            let _ = writeln!(text, "{}: {state}, {}", mechanism.mechanism, mechanism.reason);
            if let Some(guarantees) = &mechanism.guarantees {
                describe(&mut text, guarantees);
            }
            if let Some(hint) = &mechanism.hint {
                let _ = writeln!(text, "  to get more    {hint}");
            }
            text.push('\n');
        }
        let _ = match (&self.runtime_directory, &self.runtime_directory_problem) {
            (Some(path), _) => writeln!(text, "Jobs are listed in {path}."),
            (None, Some(problem)) => writeln!(text, "Jobs cannot be listed: {problem}"),
            (None, None) => Ok(()),
        };
        self.leftovers.iter().for_each(|leftover| text += &leftover.describe());
        text
    }
}

impl MechanismRow {
    fn new(mechanism: &MechanismReport) -> MechanismRow {
        MechanismRow {
            mechanism: mechanism.mechanism.to_string(),
            available: mechanism.guarantees.is_some(),
            reason: mechanism.reason.clone(),
            hint: mechanism.hint.clone(),
            guarantees: mechanism.guarantees.as_ref().map(GuaranteeList::new),
        }
    }
}

impl GuaranteeList {
    fn new(guarantees: &Guarantees) -> GuaranteeList {
        GuaranteeList {
            containment: guarantees.containment.to_string(),
            kill: guarantees.kill.to_string(),
            owner_death: guarantees.owner_death.to_string(),
            crosses_setuid: guarantees.crosses_setuid,
            freeze: guarantees.freeze.to_string(),
            cpu_accounting: guarantees.cpu_accounting.to_string(),
            memory_accounting: guarantees.memory_accounting.to_string(),
            io_accounting: guarantees.io_accounting.to_string(),
            limits: guarantees.limits.to_string(),
        }
    }
}

/// The guarantees of a job on this host, in one sentence.
fn verdict(mechanisms: &[MechanismReport]) -> String {
    let available = mechanisms.iter().find_map(|one| one.guarantees.as_ref());
    let Some(guarantees) = available else {
        return "onejob cannot make a job on this host: no mechanism is available.".to_owned();
    };
    let containment = match guarantees.containment {
        Containment::Sealed => "no process can leave its job",
        Containment::Tracked => "a process leaves its job only by a deliberate act",
        _ => "a process can leave its job with setsid",
    };
    let kill = match guarantees.kill {
        Kill::Atomic => "a kill reaches all members at once",
        Kill::Converging => "a kill is repeated until no member is left",
        _ => "a kill can miss members",
    };
    let death = match guarantees.owner_death {
        OwnerDeath::None => "a job outlives an owner that is killed",
        _ => "a job ends with its owner",
    };
    let limits = match guarantees.limits.is_empty() {
        true => "resources cannot be limited".to_owned(),
        false => format!("{} can be limited", guarantees.limits),
    };
    let mechanism = guarantees.mechanism;
    format!(
        "onejob works on this host, with {mechanism}: {containment}, {kill}, {death}, {limits}."
    )
}

fn describe(text: &mut String, guarantees: &Guarantees) {
    let setuid = if guarantees.crosses_setuid { "yes" } else { "no" };
    let _ = write!(
        text,
        "  containment    {}\n  kill           {}\n  owner-death    {}\n  crosses-setuid {setuid}\n  \
         freeze         {}\n  accounting     cpu {}, memory {}, io {}\n  limits         {}\n",
        guarantees.containment,
        guarantees.kill,
        guarantees.owner_death,
        guarantees.freeze,
        guarantees.cpu_accounting,
        guarantees.memory_accounting,
        guarantees.io_accounting,
        guarantees.limits,
    );
}
