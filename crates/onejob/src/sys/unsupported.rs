//! Systems without a mechanism yet: everything compiles, and making a job returns an error.

use std::{convert::Infallible, path::PathBuf, process::ExitStatus, time::Instant};

use super::{Backend, MechanismEntry};
use crate::{
    AbandonedJob, Error, JobEntry, Process, ProcessId, Result, Signal, name::Name, stop::Stoppable,
};

pub(crate) const MECHANISMS: &[MechanismEntry] = &[];

fn unsupported() -> Error {
    Error::unsupported(format!(
        "jobs are not supported on {} {} yet",
        std::env::consts::OS,
        std::env::consts::ARCH
    ))
}

pub(crate) fn open(_: &Name) -> Result<Box<dyn Backend>> {
    Err(unsupported())
}

pub(crate) fn open_listed(record: Record) -> Result<Box<dyn Backend>> {
    match record {}
}

pub(crate) fn jobs() -> Result<Vec<JobEntry>> {
    Err(unsupported())
}

pub(crate) fn abandoned_jobs() -> Result<Vec<AbandonedJob>> {
    Ok(Vec::new())
}

pub(crate) fn runtime_dir() -> Result<PathBuf> {
    Err(unsupported())
}

pub(crate) fn identify(_: u32) -> Result<ProcessId> {
    Err(unsupported())
}

pub(crate) fn descendants(_: &ProcessId) -> Result<Vec<Process>> {
    Err(unsupported())
}

pub(crate) fn tree(_: &ProcessId) -> Result<Box<dyn Stoppable>> {
    Err(unsupported())
}

/// No job can be made on this system, so this type has no value.
pub(crate) enum Record {}

pub(crate) struct ChildProcess(Infallible);

impl ChildProcess {
    pub(crate) fn id(&self) -> ProcessId {
        match self.0 {}
    }

    pub(crate) fn pid(&self) -> u32 {
        match self.0 {}
    }

    pub(crate) fn wait(&mut self, _: Option<Instant>) -> Result<Option<ExitStatus>> {
        match self.0 {}
    }

    pub(crate) fn signal(&self, _: Signal) -> Result<()> {
        match self.0 {}
    }

    #[cfg(unix)]
    pub(crate) fn signal_group(&self, _: Signal) -> Result<()> {
        match self.0 {}
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for ChildProcess {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self.0 {}
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsHandle for ChildProcess {
    fn as_handle(&self) -> std::os::windows::io::BorrowedHandle<'_> {
        match self.0 {}
    }
}
