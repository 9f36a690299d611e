//! Windows: the Job Objects of the kernel.
//!
//! From the API to the system call: [`job`] implements the backend on a kernel [`object`]; [`spawn`]
//! starts a child inside it, with a command line from [`quoting`]; other processes find jobs through
//! [`record`] and [`directory`]; [`tree`] finds the descendants of a process without a job. A process
//! is only acted on through a handle, after its identity has been proven ([`identity`]).

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
#[cfg(test)]
mod test_process;
mod tree;
mod wait;

pub(crate) use child::ChildProcess;
pub(crate) use directory::{abandoned_jobs, jobs, runtime_dir};
pub(crate) use identity::identify;
pub(crate) use record::Record;
pub(crate) use tree::{descendants, tree};

use super::{Backend, MechanismEntry};
use crate::{Result, name::Name};

pub(crate) const MECHANISMS: &[MechanismEntry] = &[job::ENTRY];

/// Makes a view of a live job.
pub(crate) fn open(name: &Name) -> Result<Box<dyn Backend>> {
    Ok(Box::new(job::JobObject::open(name)?))
}

/// Makes a view of a listed job, with its open record.
pub(crate) fn open_listed(record: Record) -> Result<Box<dyn Backend>> {
    (job::ENTRY.open)(record)
}

/// How long a kill goes on while no member dies.
const KILL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
