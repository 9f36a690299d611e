//! `onejob ls`: the jobs of this user.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use onejob::{AbandonedKind, JobEntry, Mechanism, Process};
use serde::Serialize;

use super::leftovers::LeftoverRow;
use crate::{
    args::LsArgs,
    exit::Exit,
    failure::Failure,
    note::Note,
    os,
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
}

#[derive(Serialize)]
struct JobRow {
    id: String,
    name: Option<String>,
    mechanism: String,
    containment: String,
    owner_pid: Option<u32>,
    members: usize,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    age_seconds: Option<f64>,
    command: Option<String>,
    log: Option<String>,
}

pub(super) fn ls(args: &LsArgs) -> Result<Exit, Failure> {
    render::show(args.listing, || {
        let mut containments = HashMap::new();
        let jobs = onejob::jobs()?.filter_map(|entry| row(&entry, &mut containments)).collect();
        let leftovers = onejob::abandoned_jobs()?;
        let abandoned = leftovers.iter().filter(|left| left.kind == AbandonedKind::Abandoned);
        Ok(JobList { schema: 1, jobs, leftovers: abandoned.map(LeftoverRow::new).collect() })
    })
}

/// `None` if the job has ended meanwhile. A job's containment is that of its mechanism on this host,
/// which `containments` remembers: to ask each job would probe it and its guards.
fn row(entry: &JobEntry, containments: &mut HashMap<Mechanism, String>) -> Option<JobRow> {
    let job = entry.open().ok()?;
    let members = job.processes().ok()?;
    let stats = job.stats().ok();
    let cpu = stats.and_then(|stats| Some(stats.cpu_user? + stats.cpu_system?));
    let note = Note::read(&job);
    Some(JobRow {
        id: entry.id.clone(),
        name: entry.name.clone(),
        mechanism: entry.mechanism.to_string(),
        containment: containments
            .entry(entry.mechanism)
            .or_insert_with(|| job.guarantees().containment.to_string())
            .clone(),
        owner_pid: entry.owner.map(|owner| owner.pid()),
        members: members.len(),
        cpu_seconds: cpu.map(|time| time.as_secs_f64()),
        memory_bytes: members.iter().filter_map(os::resident_memory).reduce(|a, b| a + b),
        age_seconds: age_of(entry).map(|time| time.as_secs_f64()),
        command: command(&members, note.as_ref()),
        log: note.and_then(|note| note.log),
    })
}

fn age_of(entry: &JobEntry) -> Option<Duration> {
    SystemTime::now().duration_since(entry.started?).ok()
}

/// CMD with its arguments; for a job that was not started by `onejob run`, the oldest member's.
fn command(members: &[Process], note: Option<&Note>) -> Option<String> {
    if let Some(note) = note {
        return Some(note.command.join(" "));
    }
    let infos = members.iter().filter_map(os::process_info);
    infos.max_by_key(|info| info.age).map(|info| info.command)
}

impl Listing for JobList {
    fn draw(&self, style: TerminalStyle) -> String {
        let header = [
            "NAME",
            "ID",
            "MECHANISM",
            "CONTAINMENT",
            "MEMBERS",
            "CPU",
            "MEMORY",
            "AGE",
            "COMMAND",
        ];
        let mut table = Table::new(header);
        for row in &self.jobs {
            let time = |value: Option<f64>| value.map(Duration::from_secs_f64);
            table.add([
                or_dash(row.name.clone()),
                row.id.clone(),
                row.mechanism.clone(),
                row.containment.clone(),
                row.members.to_string(),
                or_dash(time(row.cpu_seconds).map(seconds)),
                or_dash(row.memory_bytes.map(bytes)),
                or_dash(time(row.age_seconds).map(age)),
                or_dash(row.command.clone()),
            ]);
        }
        let mut text =
            table.draw(style, [false, false, false, false, true, true, true, true, false]);
        self.leftovers.iter().for_each(|leftover| text += &leftover.describe());
        text
    }
}
