//! Windows: the kernel's Job Objects.
//!
//! From the API to the system call: [`job`] fulfils the contract on an [`object`], which is the
//! kernel's; [`spawn`] makes a child inside it, with the command line of [`quoting`]; [`record`]
//! and [`names`] have jobs found by others; [`tree`] catches what is below a process without a job. Whoever is acted on
//! is held by a handle and proven first ([`identity`]).

mod child;
mod directory;
mod graceful;
mod handles;
mod identity;
mod job;
mod limits;
mod memory;
mod note_page;
mod nt;
mod object;
mod probe;
mod quoting;
mod record;
mod shared_state;
mod spawn;
mod tree;
mod wait;

pub(crate) use child::Child;
pub(crate) use directory::{abandoned_jobs, jobs, runtime_dir};
pub(crate) use identity::identify;
pub(crate) use probe::{guarantees_of, probe_mechanisms};
pub(crate) use record::Record;
pub(crate) use tree::{descendants, tree};

use super::Mechanism;
use crate::{
    Command, Guarantees, Limits, Process, ProcessId, Result, Signal, Stats, job::JobSpec,
    name::Name, stop::Stoppable,
};

pub(crate) const MECHANISMS: &[crate::Mechanism] = &[crate::Mechanism::JobObject];

/// A job of the only mechanism.
pub(crate) enum Job {
    JobObject(job::JobObject),
}

delegate!(Job { JobObject });

impl Job {
    pub(crate) fn new(_: crate::Mechanism, spec: &JobSpec) -> Result<Job> {
        job::JobObject::new(spec).map(Job::JobObject)
    }
}

pub(crate) fn open(name: &Name) -> Result<Job> {
    job::JobObject::open(name).map(Job::JobObject)
}

/// How long a kill goes on while nobody dies.
const KILL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
