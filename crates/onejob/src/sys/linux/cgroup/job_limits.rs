//! The limits of a job of this process.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{controllers, job_cgroup::JobCgroup, root::JobRoot, stats};
use crate::{
    Error, Limits, Result, Stats,
    sys::linux::{guard::cpu_time::CpuTimeLimit, nostd::syscall::Errno, spawn::local::ChildMemory},
};

/// The limits of a job, and the total CPU time that a guard watches.
pub(crate) struct JobLimits {
    set: Mutex<Limits>,
    /// In the cgroup that takes new members; a job with this limit has no other one.
    cpu_time: Mutex<Option<CpuTimeLimit>>,
    /// Whether other processes can find the job, and change its limits.
    is_listed: bool,
}

impl JobLimits {
    pub(crate) fn new(limits: Limits) -> JobLimits {
        JobLimits { set: Mutex::new(limits), cpu_time: Mutex::default(), is_listed: false }
    }

    /// From now on, other processes can change the limits.
    pub(crate) fn set_listed(&mut self) {
        self.is_listed = true;
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Limits> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_cpu_time(&self) -> MutexGuard<'_, Option<CpuTimeLimit>> {
        self.cpu_time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the limits of a cgroup, if another process can have changed them.
    pub(crate) fn refresh(&self, cgroup: &JobCgroup) {
        if self.is_listed {
            let mut limits = self.lock();
            // Limits that cannot be read remain as they were set.
            if let Ok(effective) = controllers::effective_limits(cgroup.dir.as_fd(), &limits) {
                *limits = effective;
            }
        }
    }

    /// Replaces the limits of all these cgroups and returns the previous ones. After an error all are as
    /// before.
    pub(crate) fn replace(&self, cgroups: &[Arc<JobCgroup>], limits: &Limits) -> Result<Limits> {
        let mut set = self.lock();
        for (done, cgroup) in cgroups.iter().enumerate() {
            if let Err(error) = controllers::write(cgroup.dir.as_fd(), &set, limits) {
                for changed in cgroups.iter().take(done) {
                    let _ = controllers::write(changed.dir.as_fd(), limits, &set);
                }
                return Err(error);
            }
        }
        Ok(std::mem::replace(&mut *set, *limits))
    }

    /// If the total CPU time is limited, makes a guard watch the rest of it in this cgroup. `retired` are
    /// the resources that the removed cgroups of the job have used.
    pub(crate) fn watch_cpu_time(
        &self,
        root: &JobRoot,
        cgroup: &JobCgroup,
        retired: &Stats,
    ) -> Result<()> {
        let max = self.lock().cpu_time_max;
        let mut watched = self.lock_cpu_time();
        *watched = None;
        if let Some(max) = max {
            let guards = root.serving_guards()?;
            let left = max.saturating_sub(stats::cpu_time(retired));
            *watched = Some(CpuTimeLimit::watch(&guards, cgroup.dir.as_fd(), left)?);
        }
        Ok(())
    }

    /// Ends the watch; returns whether the CPU time was used up, so that the members were killed.
    pub(crate) fn unwatch_cpu_time(&self) -> bool {
        self.lock_cpu_time().take().is_some_and(|watched| watched.is_exhausted())
    }

    pub(crate) fn is_cpu_time_exhausted(&self, retired: &Stats) -> bool {
        let max = self.lock().cpu_time_max;
        let is_exhausted = self.lock_cpu_time().as_ref().is_some_and(CpuTimeLimit::is_exhausted);
        is_exhausted || max.is_some_and(|max| max <= stats::cpu_time(retired))
    }

    /// Whether a child in this cgroup may share the memory of this process until it executes its program.
    pub(crate) fn child_memory(&self, cgroup: &JobCgroup) -> ChildMemory {
        match self.is_listed {
            true => controllers::child_memory(cgroup.dir.as_fd()),
            false if controllers::is_oom_group(&self.lock()) => ChildMemory::Copied,
            false => ChildMemory::Shared,
        }
    }

    /// The error of a spawn, with the limit of the job that made it fail.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match (error.raw_os_error().map(Errno), self.lock().processes_max) {
            (Some(Errno::AGAIN), Some(max)) if !error.is_exec() => Error::limit_reached(
                format!("start a process: the job is limited to {max} processes and threads"),
                Some(io::Error::from_raw_os_error(Errno::AGAIN.0)),
            )
            .with_hint("wait until a process has ended, or set a higher limit"),
            _ => error,
        }
    }
}

/// A process cannot be started because the total CPU time of the job is used up.
pub(crate) fn cpu_time_error() -> Error {
    Error::limit_reached("start a process: the CPU time of the job is used up", None)
        .with_hint("set a higher limit, or make another job")
}
