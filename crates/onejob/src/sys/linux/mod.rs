//! Linux: cgroups where this process may create them, else a subreaper.
//!
//! [`cgroup`] and [`subreaper`] are the mechanisms. [`exec_request`] turns a command into the flat request
//! that a child executes; [`spawn`] starts that child here, or sends the request to a guard. [`launch`]
//! starts the guards and [`guards`] sends them messages. [`descendants`] lists, signals and kills the
//! processes below a process. [`nostd`] is the code that runs without a standard library.

mod accounting;
mod attributes;
mod caller_limits;
mod cgroup;
mod child;
mod cpu_time;
mod credentials;
mod delegation;
mod descendants;
mod dropped_children;
mod exec_request;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guard_pair;
mod guards;
mod identity;
mod job_root;
mod launch;
mod limits;
mod location;
mod members;
mod nostd;
mod privilege;
mod registry;
#[cfg(feature = "systemd")]
mod scope;
mod spawn;
mod stuck;
mod subreaper;
mod token;
mod tree;
mod version;
mod view;

pub(crate) use caller_limits::limit_hint;
pub(crate) use child::Child;
pub(crate) use identity::identify;
pub(crate) use registry::{Record, abandoned_jobs, jobs, runtime_dir};
pub(crate) use token::ProcessToken;
pub(crate) use tree::{descendants, tree};

use std::{io, os::fd::OwnedFd, time::Instant};

use super::{Backend, MechanismEntry};
use crate::{Error, Result, name::Name};

pub(crate) const MECHANISMS: &[MechanismEntry] = &[cgroup::ENTRY, subreaper::ENTRY];

/// The entry of a mechanism, if this system has it.
fn entry(mechanism: crate::Mechanism) -> Option<&'static MechanismEntry> {
    MECHANISMS.iter().find(|entry| entry.mechanism == mechanism)
}

/// A view of a living job.
pub(crate) fn open(name: &Name) -> Result<Box<dyn Backend>> {
    let record = registry::find(name)?;
    let mechanism = record.header.mechanism;
    let entry = entry(mechanism).ok_or_else(|| {
        Error::unsupported(format!("the mechanism {mechanism} does not exist on Linux"))
    })?;
    (entry.open)(record)
}

fn read_proc(path: &str) -> io::Result<String> {
    use rustix::fs::{Mode, OFlags};
    read_all(&rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A whole file of the kernel's in as few calls as it takes: their sizes are not known beforehand.
fn read_all(file: &OwnedFd) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        text.reserve(4096);
        if rustix::io::read(file, rustix::buffer::spare_capacity(&mut text))? == 0 {
            return String::from_utf8(text).map_err(io::Error::other);
        }
    }
}

/// How long a kill goes on while nobody dies.
const KILL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Milliseconds until a deadline for `poll`, rounded up so that it does not wake too early; -1 for
/// none.
fn milliseconds_until(deadline: Option<Instant>) -> i32 {
    let Some(deadline) = deadline else { return -1 };
    let left = deadline.saturating_duration_since(Instant::now());
    i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// Whether a deadline has passed; one that is none never does.
fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// Waits until one of the descriptors fires or the deadline has passed.
fn wait_for(fds: &mut [nostd::call::PollFd], deadline: Option<Instant>) {
    nostd::call::poll(fds, milliseconds_until(deadline));
}
