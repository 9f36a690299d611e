//! `onejob stats`: what a job has used.

use std::time::Duration;

use onejob::{Accounting, Job};
use serde::Serialize;

use crate::{
    args,
    exit::{Exit, Failure},
    listing::json,
    output::data,
    table::{bytes, seconds},
};

/// The JSON's keys are a promise: new ones may come, these stay, or `schema` grows.
#[derive(Serialize)]
struct Used {
    schema: u32,
    id: Option<String>,
    name: Option<String>,
    members: usize,
    cpu_user_seconds: Option<f64>,
    cpu_system_seconds: Option<f64>,
    memory_peak_bytes: Option<u64>,
    /// Whose use is included.
    cpu_accounting: String,
    memory_accounting: String,
}

pub(crate) fn stats(args: &args::Stats) -> Exit {
    let used = match look(&args.job) {
        Ok(used) => used,
        Err(failure) => return failure.report(),
    };
    let text = if args.json { json(&used) } else { used.prose() };
    data(&text).err().unwrap_or(Exit::Success)
}

fn look(name: &str) -> Result<Used, Failure> {
    let job = Job::open(name)?;
    let stats = job.stats()?;
    let given = job.guarantees();
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let known = given.memory_accounting > Accounting::None;
    Ok(Used {
        schema: 1,
        id: job.id().map(str::to_owned),
        name: job.name().map(str::to_owned),
        members: stats.processes,
        cpu_user_seconds: seconds(stats.cpu_user),
        cpu_system_seconds: seconds(stats.cpu_system),
        memory_peak_bytes: stats.memory_peak.filter(|_| known),
        cpu_accounting: given.cpu_accounting.to_string(),
        memory_accounting: given.memory_accounting.to_string(),
    })
}

impl Used {
    fn prose(&self) -> String {
        let time = |time: Option<f64>| match time {
            Some(time) => seconds(Duration::from_secs_f64(time)),
            None => "unknown".to_owned(),
        };
        let memory = self.memory_peak_bytes.map_or("unknown".to_owned(), bytes);
        format!(
            "members      {}\ncpu user     {}\ncpu system   {}\nmemory peak  {memory}\n",
            self.members,
            time(self.cpu_user_seconds),
            time(self.cpu_system_seconds),
        )
    }
}
