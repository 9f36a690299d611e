//! `onejob limit`: changes or prints the limits of a running job.

use onejob::{Job, Limits, Resources};
use serde::Serialize;

use crate::{
    args::LimitArgs,
    exit::Exit,
    failure::{Failure, print},
    render::json,
};

/// The JSON keys are stable: keys may be added, the others keep their meaning, or `schema` changes. A
/// resource without a limit is null.
#[derive(Serialize)]
struct LimitList {
    schema: u32,
    memory_bytes: Option<u64>,
    swap_bytes: Option<u64>,
    cpus: Option<f64>,
    cpu_weight: Option<u32>,
    io_weight: Option<u32>,
    processes: Option<u32>,
    cpu_time_seconds: Option<f64>,
}

pub(super) fn limit(args: &LimitArgs) -> Result<Exit, Failure> {
    let job = Job::open(&args.job)?;
    let current = job.limits()?;
    if args.lift.is_none() && args.limits.limits() == Limits::new() {
        let list = LimitList::new(&current);
        print(if args.json { json(&list) } else { list.describe() })?;
    } else {
        let lifted = args.lift.map_or(current, |resources| lift(current, resources));
        job.set_limits(&args.limits.applied_to(lifted))?;
    }
    Ok(Exit::Success)
}

/// `limits` without those on `resources`.
fn lift(mut limits: Limits, resources: Resources) -> Limits {
    if resources.contains(Resources::MEMORY) {
        limits.memory_max = None;
    }
    if resources.contains(Resources::SWAP) {
        limits.swap_max = None;
    }
    if resources.contains(Resources::CPU) {
        limits.cpu_max = None;
    }
    if resources.contains(Resources::CPU_WEIGHT) {
        limits.cpu_weight = None;
    }
    if resources.contains(Resources::IO_WEIGHT) {
        limits.io_weight = None;
    }
    if resources.contains(Resources::PROCESSES) {
        limits.processes_max = None;
    }
    if resources.contains(Resources::CPU_TIME) {
        limits.cpu_time_max = None;
    }
    if resources.contains(Resources::AFFINITY) {
        limits.affinity = None;
    }
    limits
}

impl LimitList {
    fn new(limits: &Limits) -> LimitList {
        LimitList {
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

    fn describe(&self) -> String {
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
