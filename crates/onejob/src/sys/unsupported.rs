//! Systems without a mechanism yet: everything compiles, and making a job is a clear error.

use std::{convert::Infallible, path::PathBuf, process::ExitStatus, time::Instant};

use super::Mechanism;
use crate::{
    AbandonedJob, Command, Error, Guarantees, JobEntry, Limits, MechanismReport, Process,
    ProcessId, Result, Signal, Stats,
    job::{Enclosure, JobSpec},
    name::Name,
    stop::Stoppable,
};

pub(crate) const MECHANISMS: &[crate::Mechanism] = &[];

/// No job can be made here, so this has no value.
pub(crate) struct Never(Infallible);

pub(crate) enum Job {
    #[expect(dead_code, reason = "has no value")]
    Never(Never),
}

delegate!(Job { Never });

fn unsupported() -> Error {
    Error::unsupported(format!(
        "no mechanism for jobs on {} {} yet",
        std::env::consts::OS,
        std::env::consts::ARCH
    ))
}

impl Job {
    pub(crate) fn new(_: crate::Mechanism, _: &JobSpec) -> Result<Job> {
        Err(unsupported())
    }
}

pub(crate) fn open(_: &Name) -> Result<Job> {
    Err(unsupported())
}

pub(crate) fn jobs() -> Result<Vec<JobEntry>> {
    Err(unsupported())
}

pub(crate) fn guarantees_of(mechanism: crate::Mechanism, _: Enclosure) -> Guarantees {
    unreachable!("{mechanism} is not on the ladder")
}

pub(crate) fn probe_mechanisms() -> Vec<MechanismReport> {
    Vec::new()
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

pub(crate) fn tree(_: &ProcessId) -> Result<Never> {
    Err(unsupported())
}

pub(crate) struct Record(Infallible);

impl Record {
    pub(crate) fn id(&self) -> &str {
        match self.0 {}
    }

    pub(crate) fn name(&self) -> Option<&Name> {
        match self.0 {}
    }

    pub(crate) fn note(&self) -> Result<Option<String>> {
        match self.0 {}
    }

    pub(crate) fn set_note(&self, _: &str) -> Result<()> {
        match self.0 {}
    }

    pub(crate) fn wait_closed(&self, _: Option<Instant>) -> Result<bool> {
        match self.0 {}
    }
}

pub(crate) struct Child(Infallible);

impl Child {
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
impl std::os::fd::AsFd for Child {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self.0 {}
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsHandle for Child {
    fn as_handle(&self) -> std::os::windows::io::BorrowedHandle<'_> {
        match self.0 {}
    }
}

impl Stoppable for Never {
    fn terminate(&self, _: Signal) -> Result<usize> {
        match self.0 {}
    }
    fn wait(&self, _: Option<Instant>) -> Result<bool> {
        match self.0 {}
    }
    fn kill(&self) -> Result<()> {
        match self.0 {}
    }
}

impl Mechanism for Never {
    fn guarantees(&self) -> Guarantees {
        match self.0 {}
    }
    fn spawn(&self, _: &mut Command) -> Result<crate::Child> {
        match self.0 {}
    }
    fn join_on_exec(&self, _: &mut std::process::Command) -> Result<()> {
        match self.0 {}
    }
    fn adopt(&self, _: &ProcessId) -> Result<()> {
        match self.0 {}
    }
    fn processes(&self) -> Result<Vec<Process>> {
        match self.0 {}
    }
    fn pids(&self) -> Result<Vec<u32>> {
        match self.0 {}
    }
    fn signal(&self, _: Signal) -> Result<usize> {
        match self.0 {}
    }
    fn record(&self) -> Option<&Record> {
        match self.0 {}
    }
    fn limits(&self) -> Result<Limits> {
        match self.0 {}
    }
    fn set_limits(&self, _: &Limits) -> Result<()> {
        match self.0 {}
    }
    fn freeze(&self) -> Result<()> {
        match self.0 {}
    }
    fn thaw(&self) -> Result<()> {
        match self.0 {}
    }
    fn stats(&self) -> Result<Stats> {
        match self.0 {}
    }
    fn release(&mut self) -> Result<()> {
        match self.0 {}
    }
    fn close(&mut self) {
        match self.0 {}
    }
}
