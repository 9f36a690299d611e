//! `onejob ls`: the jobs of this user.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use onejob::{AbandonedKind, Job, JobEntry, Mechanism, Process};
use serde::Serialize;

use super::{
    leftovers::LeftoverRow,
    state::{State, rfc_3339},
};
use crate::{
    args::LsArgs,
    exit::Exit,
    failure::Failure,
    note::Note,
    os, output,
    render::{
        self, Listing,
        table::{Table, TerminalStyle, age, bytes, or_dash, seconds},
    },
};

/// The JSON keys are stable: keys may be added, the others keep their meaning, or `schema` changes.
#[derive(Serialize)]
struct JobList {
    schema: u32,
    jobs: Vec<JobRow>,
    /// Jobs whose owner and guards were killed, and which are not ended yet.
    leftovers: Vec<LeftoverRow>,
    #[serde(skip)]
    wide: bool,
}

#[derive(Serialize)]
struct JobRow {
    id: String,
    name: Option<String>,
    state: State,
    mechanism: String,
    containment: String,
    owner_pid: Option<u32>,
    members: usize,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    started_at: Option<String>,
    age_seconds: Option<f64>,
    argv: Option<Vec<String>>,
    cwd: Option<String>,
    log: Option<String>,
}

pub(super) fn ls(args: &LsArgs) -> Result<Exit, Failure> {
    render::show(args.listing, || {
        let mut containments = HashMap::new();
        let jobs = onejob::jobs()?.filter_map(|entry| row(&entry, &mut containments)).collect();
        let leftovers = onejob::abandoned_jobs()?;
        let abandoned = leftovers.iter().filter(|left| left.kind == AbandonedKind::Abandoned);
        let leftovers = abandoned.map(LeftoverRow::new).collect();
        Ok(JobList { schema: 1, jobs, leftovers, wide: args.wide })
    })
}

/// `None` if the job has ended meanwhile, or after a warning if it cannot be observed. A job's containment is that of its mechanism on this host,
/// which `containments` remembers: to ask each job would probe it and its guards.
fn row(entry: &JobEntry, containments: &mut HashMap<Mechanism, String>) -> Option<JobRow> {
    let (job, snapshot) = observed(entry, |job| job.snapshot())?;
    let members = snapshot.processes;
    let read_memory = || members.iter().filter_map(os::resident_memory).reduce(|a, b| a + b);
    let note = Note::read(&job);
    Some(JobRow {
        id: entry.id.clone(),
        name: entry.name.clone(),
        state: State::of(note.as_ref(), &members, snapshot.is_frozen),
        mechanism: entry.mechanism.to_string(),
        containment: containments
            .entry(entry.mechanism)
            .or_insert_with(|| job.guarantees().containment.to_string())
            .clone(),
        owner_pid: entry.owner.map(|owner| owner.pid()),
        members: members.len(),
        cpu_seconds: snapshot.cpu_time.map(|time| time.as_secs_f64()),
        memory_bytes: snapshot.resident_memory.or_else(read_memory),
        started_at: entry.started.and_then(rfc_3339),
        age_seconds: age_of(entry).map(|time| time.as_secs_f64()),
        argv: argv(&members, note.as_ref()),
        cwd: note.as_ref().and_then(|note| note.cwd.clone()),
        log: note.and_then(|note| note.log),
    })
}

/// The job and what `observe` returns. `None` if the job has ended meanwhile; any other error is a warning, so
/// that a job that cannot be observed hides no other.
pub(super) fn observed<T, E: Into<Failure>>(
    entry: &JobEntry,
    observe: impl FnOnce(&Job) -> Result<T, E>,
) -> Option<(Job, T)> {
    let opened = entry.open().map_err(Failure::from);
    let seen = opened.and_then(|job| Ok((observe(&job).map_err(Into::into)?, job)));
    match seen {
        Ok((seen, job)) => Some((job, seen)),
        // A job that ends meanwhile can make any observation fail.
        Err(_) if entry.open().is_err_and(|error| error.is_not_found() || error.is_stale()) => None,
        Err(failure) => {
            let job = entry.name.as_ref().unwrap_or(&entry.id);
            output::warn(format!("cannot observe the job {job}: {}", failure.message()));
            None
        }
    }
}

fn age_of(entry: &JobEntry) -> Option<Duration> {
    SystemTime::now().duration_since(entry.started?).ok()
}

/// CMD with its arguments; for a job that was not started by `onejob run`, the oldest member's.
fn argv(members: &[Process], note: Option<&Note>) -> Option<Vec<String>> {
    if let Some(note) = note {
        return Some(note.argv.clone());
    }
    let infos = members.iter().filter_map(os::process_info);
    infos.max_by_key(|info| info.age).map(|info| info.argv)
}

impl Listing for JobList {
    fn draw(&self, style: TerminalStyle) -> String {
        let mut text = if self.wide { self.wide_table(style) } else { self.table(style) };
        self.leftovers.iter().for_each(|leftover| text += &leftover.describe());
        text
    }
}

impl JobList {
    fn table(&self, style: TerminalStyle) -> String {
        let mut table = Table::new(["NAME", "STATE", "MEMBERS", "CPU", "MEMORY", "AGE", "COMMAND"]);
        for row in &self.jobs {
            let [members, cpu, memory, age] = row.usage();
            let name = row.name.as_ref().unwrap_or(&row.id).clone();
            table.add([name, row.state.to_string(), members, cpu, memory, age, row.command()]);
        }
        table.draw(style, [false, false, true, true, true, true, false])
    }

    fn wide_table(&self, style: TerminalStyle) -> String {
        let mut table = Table::new([
            "NAME",
            "ID",
            "STATE",
            "MECHANISM",
            "CONTAINMENT",
            "OWNER",
            "MEMBERS",
            "CPU",
            "MEMORY",
            "AGE",
            "COMMAND",
        ]);
        for row in &self.jobs {
            let [members, cpu, memory, age] = row.usage();
            table.add([
                or_dash(row.name.clone()),
                row.id.clone(),
                row.state.to_string(),
                row.mechanism.clone(),
                row.containment.clone(),
                or_dash(row.owner_pid.map(|pid| pid.to_string())),
                members,
                cpu,
                memory,
                age,
                row.command(),
            ]);
        }
        let right = [false, false, false, false, false, true, true, true, true, true, false];
        table.draw(style, right)
    }
}

impl JobRow {
    /// The members, CPU time, memory and age as they are shown.
    fn usage(&self) -> [String; 4] {
        let time = |value: Option<f64>| value.map(Duration::from_secs_f64);
        [
            self.members.to_string(),
            or_dash(time(self.cpu_seconds).map(seconds)),
            or_dash(self.memory_bytes.map(bytes)),
            or_dash(time(self.age_seconds).map(age)),
        ]
    }

    fn command(&self) -> String {
        or_dash(self.argv.as_ref().map(|argv| argv.join(" ")))
    }
}
