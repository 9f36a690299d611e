//! Windows: the kernel's Job Objects.
//!
//! From the API to the system call: [`job`] fulfils the contract on an [`object`], which is the
//! kernel's; [`spawn`] makes a child inside it, with the command line of [`quoting`]; [`record`]
//! and [`names`] have jobs found by others; [`tree`] catches what is below a process without a job. Whoever is acted on
//! is held by a handle and proven first ([`identity`]).

mod ask;
mod child;
mod handles;
mod host;
mod identity;
mod job;
mod limits;
mod memory;
mod names;
mod notes;
mod nt;
mod object;
mod port;
mod quoting;
mod record;
mod shared;
mod spawn;
mod tree;

pub(crate) use child::Child;
pub(crate) use host::{promise, survey};
pub(crate) use identity::identify;
pub(crate) use names::{jobs, leftovers, runtime_dir};
pub(crate) use record::Record;
pub(crate) use tree::{descendants, tree};

use super::Mechanism;
use crate::{
    Command, Guarantees, Limits, Process, ProcessId, Result, Signal, Stats, job::Spec, name::Name,
    stop::Stoppable,
};

pub(crate) const LADDER: &[crate::Mechanism] = &[crate::Mechanism::JobObject];

/// A job of the only mechanism.
pub(crate) enum Job {
    JobObject(job::JobObject),
}

delegate!(Job { JobObject });

impl Job {
    pub(crate) fn new(_: crate::Mechanism, spec: &Spec) -> Result<Job> {
        job::JobObject::new(spec).map(Job::JobObject)
    }
}

pub(crate) fn open(name: &Name) -> Result<Job> {
    job::JobObject::open(name).map(Job::JobObject)
}

/// How long a kill goes on while nobody dies.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
