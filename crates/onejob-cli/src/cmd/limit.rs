//! `onejob limit`: changes or prints the limits of a running job.

use onejob::{Error, Job, Limits, Resources};
use serde::Serialize;

use super::find;
use crate::{
    args::{LimitArgs, Target},
    exit::Exit,
    failure::{Failure, print},
    render::json,
};

/// The JSON keys are stable: keys may be added, the others keep their meaning, or `schema` changes. A
/// resource without a limit is null.
#[derive(Serialize)]
struct LimitList {
    schema: u32,
    memory_max_bytes: Option<u64>,
    swap_max_bytes: Option<u64>,
    cpus_max: Option<f64>,
    cpu_weight: Option<u32>,
    io_weight: Option<u32>,
    processes_max: Option<u32>,
    cpu_time_max_seconds: Option<f64>,
}

pub(super) fn limit(args: &LimitArgs) -> Result<Exit, Failure> {
    let job = find::job(&args.job)?;
    let current = job.limits()?;
    let missing = args.lift.unwrap_or_default().without(current.resources());
    if !missing.is_empty() {
        let message = format!("the job {} has no limit to lift: {missing}", args.job);
        let list = format!("`onejob limit {}` prints its limits", args.job);
        return Err(Failure::new(message).with_hint(list));
    }
    if args.lift.is_none() && args.limits.limits() == Limits::new() {
        let list = LimitList::new(&current);
        print(if args.json { json(&list) } else { list.describe() })?;
    } else {
        let lifted = args.lift.map_or(current, |resources| lift(current, resources));
        let wanted = args.limits.limits().resources();
        job.set_limits(&args.limits.applied_to(lifted))
            .map_err(|error| explain(error, &job, wanted, &args.job))?;
    }
    Ok(Exit::Success)
}

/// The failure to set limits. If the job cannot have them, with the reason for which a new job could not have
/// them either, or that it could.
fn explain(error: Error, job: &Job, wanted: Resources, name: &Target) -> Failure {
    let lacking = wanted.without(job.guarantees().limits);
    if !error.is_unsupported() || lacking.is_empty() {
        return error.into();
    }
    let cannot = format!("cannot limit {lacking} of the job {name}");
    match Job::builder().require(lacking).build() {
        Ok(_) => {
            let mechanism = job.guarantees().mechanism;
            Failure::new(format!("{cannot}: the {mechanism} mechanism cannot do it"))
                .with_hint("set the limit when the job is started: `onejob run --help`")
        }
        Err(error) => {
            let failure = Failure::from(error);
            let message = format!("{cannot}: {}", failure.message());
            failure.with_message(message)
        }
    }
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
            memory_max_bytes: limits.memory_max,
            swap_max_bytes: limits.swap_max,
            cpus_max: limits.cpu_max,
            cpu_weight: limits.cpu_weight,
            io_weight: limits.io_weight,
            processes_max: limits.processes_max,
            cpu_time_max_seconds: limits.cpu_time_max.map(|time| time.as_secs_f64()),
        }
    }

    fn describe(&self) -> String {
        let line = |what: &str, value: Option<String>| {
            format!("{what:<12} {}\n", value.unwrap_or_else(|| "not limited".to_owned()))
        };
        [
            line("memory", self.memory_max_bytes.map(|bytes| format!("{bytes} bytes"))),
            line("swap", self.swap_max_bytes.map(|bytes| format!("{bytes} bytes"))),
            line("cpus", self.cpus_max.map(|cpus| cpus.to_string())),
            line("cpu weight", self.cpu_weight.map(|weight| weight.to_string())),
            line("io weight", self.io_weight.map(|weight| weight.to_string())),
            line("processes", self.processes_max.map(|count| count.to_string())),
            line("cpu time", self.cpu_time_max_seconds.map(|seconds| format!("{seconds} s"))),
        ]
        .concat()
    }
}
