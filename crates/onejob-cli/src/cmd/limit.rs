//! `onejob limit`: the limits of a job that runs already.

use onejob::{Job, Limits, Resources};
use serde::Serialize;

use crate::{
    args,
    exit::{Exit, Failure},
    output::data,
    render::json,
};

/// The JSON's keys are a promise: new ones may come, these stay, or `schema` grows. What is not
/// limited is null.
#[derive(Serialize)]
struct Set {
    schema: u32,
    memory_bytes: Option<u64>,
    swap_bytes: Option<u64>,
    cpus: Option<f64>,
    cpu_weight: Option<u32>,
    io_weight: Option<u32>,
    processes: Option<u32>,
    cpu_time_seconds: Option<f64>,
}

pub(crate) fn limit(args: &args::Limit) -> Exit {
    match change(args) {
        Ok(Some(text)) => data(&text).err().unwrap_or(Exit::Success),
        Ok(None) => Exit::Success,
        Err(failure) => failure.report(),
    }
}

fn change(args: &args::Limit) -> Result<Option<String>, Failure> {
    let job = Job::open(&args.job)?;
    let set = job.limits()?;
    let lifted = args.lift.map_or(set, |what| lift(set, what));
    let wanted = args.limits.on_top_of(lifted);
    if args.lift.is_none() && args.limits.limits() == Limits::new() {
        let set = Set::of(&set);
        return Ok(Some(if args.json { json(&set) } else { set.prose() }));
    }
    job.set_limits(&wanted)?;
    Ok(None)
}

fn lift(mut limits: Limits, what: Resources) -> Limits {
    if what.contains(Resources::MEMORY) {
        limits.memory_max = None;
    }
    if what.contains(Resources::SWAP) {
        limits.swap_max = None;
    }
    if what.contains(Resources::CPU) {
        limits.cpu_max = None;
    }
    if what.contains(Resources::CPU_WEIGHT) {
        limits.cpu_weight = None;
    }
    if what.contains(Resources::IO_WEIGHT) {
        limits.io_weight = None;
    }
    if what.contains(Resources::PROCESSES) {
        limits.processes_max = None;
    }
    if what.contains(Resources::CPU_TIME) {
        limits.cpu_time_max = None;
    }
    if what.contains(Resources::AFFINITY) {
        limits.affinity = None;
    }
    limits
}

impl Set {
    fn of(limits: &Limits) -> Set {
        Set {
            schema: 1,
            memory_bytes: limits.memory_max,
            swap_bytes: limits.swap_max,
            cpus: limits.cpu_max,
            cpu_weight: limits.cpu_weight,
            io_weight: limits.io_weight,
            processes: limits.processes_max,
            cpu_time_seconds: limits.cpu_time_max.map(|time| time.as_secs_f64()),
        }
    }

    fn prose(&self) -> String {
        let line = |what: &str, value: Option<String>| {
            format!("{what:<12} {}\n", value.unwrap_or_else(|| "not limited".to_owned()))
        };
        [
            line("memory", self.memory_bytes.map(|bytes| format!("{bytes} bytes"))),
            line("swap", self.swap_bytes.map(|bytes| format!("{bytes} bytes"))),
            line("cpus", self.cpus.map(|cpus| cpus.to_string())),
            line("cpu weight", self.cpu_weight.map(|weight| weight.to_string())),
            line("io weight", self.io_weight.map(|weight| weight.to_string())),
            line("processes", self.processes.map(|count| count.to_string())),
            line("cpu time", self.cpu_time_seconds.map(|seconds| format!("{seconds} s"))),
        ]
        .concat()
    }
}
