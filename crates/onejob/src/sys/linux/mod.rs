//! Linux: cgroups where this process may create them, else a subreaper.
//!
//! [`backend`] has the mechanisms. [`spawn`] starts members; [`guard`] starts the guards and sends them
//! requests; [`cgroup`] and [`process`] list, signal and kill what is in a cgroup or below a process.
//! [`registry`] is how other processes find a job. [`nostd`] is the code that runs without a standard
//! library: in the guards, and in a child before it executes its program.

use std::time::Duration;

use crate::{
    Error, Mechanism, Result,
    name::Name,
    sys::{Backend, MechanismEntry},
};

mod backend;
mod cgroup;
mod deadline;
mod fd;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guard;
mod mounts;
mod nostd;
mod process;
mod registry;
mod spawn;
#[cfg(feature = "systemd")]
mod systemd;

pub(crate) use process::caller_limits::limit_hint;
pub(crate) use process::child::ChildProcess;
pub(crate) use process::fork_detect::ProcessToken;
pub(crate) use process::identity::identify;
pub(crate) use process::tree::{descendants, tree};
pub(crate) use registry::{Record, abandoned_jobs, jobs, runtime_dir};

pub(crate) const MECHANISMS: &[MechanismEntry] =
    &[backend::cgroup::ENTRY, backend::subreaper::ENTRY];

/// The entry of a mechanism, if this system has it.
fn entry(mechanism: Mechanism) -> Option<&'static MechanismEntry> {
    MECHANISMS.iter().find(|entry| entry.mechanism == mechanism)
}

/// A view of a live job.
pub(crate) fn open(name: &Name) -> Result<Box<dyn Backend>> {
    view(registry::find(name)?)
}

/// A view of a listed job, with its open record.
pub(crate) fn open_listed(record: Record) -> Result<Box<dyn Backend>> {
    match record.owner_alive_or_reaped(Duration::ZERO) {
        true => view(record),
        false => Err(registry::missing(record.id())),
    }
}

fn view(record: Record) -> Result<Box<dyn Backend>> {
    let mechanism = record.header.mechanism;
    let entry = entry(mechanism).ok_or_else(|| {
        Error::unsupported(format!("the mechanism {mechanism} does not exist on Linux"))
    })?;
    (entry.open)(record)
}
