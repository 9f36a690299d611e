//! `onejob ls`: the jobs of this user.

use std::time::{Duration, SystemTime};

use onejob::{Job, JobEntry};
use serde::Serialize;

use crate::{
    args,
    exit::{Exit, Failure},
    note::Note,
    os,
    render::table::{Screen, Table, age, bytes, seconds, unknown_or},
    render::{Listing, show},
};

/// The JSON's keys are a promise: new ones may come, these stay, or `schema` grows.
#[derive(Serialize)]
struct Jobs {
    schema: u32,
    jobs: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
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

pub(crate) fn ls(args: &args::Ls) -> Exit {
    show(args.show, || {
        let jobs = onejob::jobs()?;
        Ok::<_, Failure>(Jobs { schema: 1, jobs: jobs.filter_map(|entry| row(&entry)).collect() })
    })
}

/// A job that ends while we look has no row.
fn row(entry: &JobEntry) -> Option<Row> {
    let job = entry.open().ok()?;
    let members = job.processes().ok()?;
    let stats = job.stats().ok();
    let cpu = stats.and_then(|stats| Some(stats.cpu_user? + stats.cpu_system?));
    let memory = members.iter().map(|member| os::details(member).map(|details| details.memory));
    let note = Note::on(&job);
    Some(Row {
        id: entry.id.clone(),
        name: entry.name.clone(),
        mechanism: entry.mechanism.to_string(),
        containment: job.guarantees().containment.to_string(),
        owner_pid: entry.owner.map(|owner| owner.pid()),
        members: members.len(),
        cpu_seconds: cpu.map(|time| time.as_secs_f64()),
        memory_bytes: memory.flatten().reduce(|a, b| a + b),
        age_seconds: age_of(entry).map(|time| time.as_secs_f64()),
        command: command(&job, note.as_ref()),
        log: note.and_then(|note| note.log),
    })
}

fn age_of(entry: &JobEntry) -> Option<Duration> {
    SystemTime::now().duration_since(entry.started?).ok()
}

/// What it was started with; of a job that no `onejob run` started, its oldest member's.
fn command(job: &Job, note: Option<&Note>) -> Option<String> {
    if let Some(note) = note {
        return Some(note.command.join(" "));
    }
    let members = job.processes().ok()?;
    let details = members.iter().filter_map(os::details);
    details.max_by_key(|details| details.age).map(|details| details.command)
}

impl Listing for Jobs {
    fn draw(&self, screen: Screen) -> String {
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
                unknown_or(row.name.clone()),
                row.id.clone(),
                row.mechanism.clone(),
                row.containment.clone(),
                row.members.to_string(),
                unknown_or(time(row.cpu_seconds).map(seconds)),
                unknown_or(row.memory_bytes.map(bytes)),
                unknown_or(time(row.age_seconds).map(age)),
                unknown_or(row.command.clone()),
            ]);
        }
        table.draw(screen, [false, false, false, false, true, true, true, true, false])
    }
}
