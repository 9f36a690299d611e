//! The cgroups of a job of this process, one after the other.
//!
//! A cgroup that was killed must not be used again (see `docs/gotchas.md`, "born dead"), so the next
//! member is put into a fresh one. The killed one stays, empty, until the next one is made: it holds the
//! resources that its members have used.

use std::{
    os::fd::{AsFd, AsRawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU32},
    time::Instant,
};

use super::{
    controllers,
    dir::means_removed,
    job_cgroup::JobCgroup,
    job_limits::{JobLimits, cpu_time_error},
    members::Members,
    root::JobRoot,
    stats, wait,
};
use crate::{
    Error, Limits, Result, Stats,
    sys::linux::{
        deadline::{KILL_TIMEOUT, milliseconds_until},
        nostd::{
            cgroup::{self as nostd_cgroup, Events},
            syscall::{self, Errno},
        },
    },
    trace::event,
};

pub(crate) struct JobCgroups {
    pub(crate) root: Arc<JobRoot>,
    /// The number of the job among the jobs of this owner.
    pub(crate) number: u32,
    /// How many cgroups the job has had.
    created: AtomicU32,
    /// The last one takes new members unless it was killed. The others were killed, or are frozen and the
    /// caller has left them.
    cgroups: Mutex<Vec<Arc<JobCgroup>>>,
    /// The resources used in cgroups that have been removed. Boxed because it is large.
    retired_stats: Box<Mutex<Stats>>,
    pub(crate) limits: JobLimits,
}

impl JobCgroups {
    /// The cgroups of a new job; none has been made yet.
    pub(crate) fn new(root: Arc<JobRoot>, limits: Limits) -> JobCgroups {
        JobCgroups {
            number: root.next_job(),
            root,
            created: AtomicU32::new(0),
            cgroups: Mutex::default(),
            retired_stats: Box::default(),
            limits: JobLimits::new(limits),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<JobCgroup>>> {
        self.cgroups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Vec<Arc<JobCgroup>> {
        self.lock().clone()
    }

    pub(crate) fn last(&self) -> Option<Arc<JobCgroup>> {
        self.lock().last().cloned()
    }

    pub(crate) fn take(&self) -> Vec<Arc<JobCgroup>> {
        std::mem::take(&mut self.lock())
    }

    pub(crate) fn forget(&self, cgroup: &Arc<JobCgroup>) {
        self.lock().retain(|kept| !Arc::ptr_eq(kept, cgroup));
    }

    /// The cgroup for new members: a fresh one if the last one was killed.
    pub(crate) fn current(&self) -> Result<Arc<JobCgroup>> {
        let mut cgroups = self.lock();
        self.reclaim(&mut cgroups);
        if self.is_cpu_time_exhausted() {
            return Err(cpu_time_error());
        }
        if let Some(current) = cgroups.last().filter(|last| !last.is_killed()) {
            return Ok(current.clone());
        }
        let fresh = Arc::new(self.create()?);
        if let Err(error) = self.limits.watch_cpu_time(&self.root, &fresh, &self.retired_stats()) {
            self.remove_empty(&fresh);
            return Err(error);
        }
        cgroups.push(fresh.clone());
        Ok(fresh)
    }

    fn create(&self) -> Result<JobCgroup> {
        let cgroup = self.root.create_cgroup(self.number, &self.created)?;
        let limits = self.limits.lock();
        match controllers::write(cgroup.dir.as_fd(), &Limits::default(), &limits) {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                self.remove_empty(&cgroup);
                Err(error)
            }
        }
    }

    /// Removes a cgroup; it stays if it is not empty.
    pub(crate) fn remove_empty(&self, cgroup: &JobCgroup) {
        let _ = syscall::rmdirat(self.root.dir().as_raw_fd(), &cgroup.name);
    }

    /// Moves the caller from the cgroups of an enclosed job to a fresh one; returns those it has left.
    pub(crate) fn move_caller_out(&self) -> Result<Vec<Arc<JobCgroup>>> {
        // Locked first, so that limits which are set meanwhile apply to the fresh one, too.
        let mut cgroups = self.lock();
        let fresh = Arc::new(self.create()?);
        let left = cgroups.clone();
        fresh.move_caller_in()?;
        cgroups.push(fresh);
        Ok(left)
    }

    /// The resources used in cgroups that have been removed.
    pub(crate) fn retired_stats(&self) -> Stats {
        *self.retired_stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_cpu_time_exhausted(&self) -> bool {
        self.limits.is_cpu_time_exhausted(&self.retired_stats())
    }

    /// The limits that are set now.
    pub(crate) fn current_limits(&self) -> Limits {
        self.lock().last().inspect(|current| self.limits.refresh(current));
        *self.limits.lock()
    }

    /// Replaces the limits of all cgroups. After an error they are as before. Returns whether the previous
    /// CPU time was used up: then the current cgroup was killed, and the caller must kill the job.
    pub(crate) fn set_limits(&self, limits: &Limits) -> Result<bool> {
        // Locked until the end, so that a cgroup that is made meanwhile gets the new limits.
        let mut cgroups = self.lock();
        self.reclaim(&mut cgroups);
        cgroups.last().inspect(|current| self.limits.refresh(current));
        let previous = self.limits.replace(&cgroups, limits)?;
        if previous.cpu_time_max == limits.cpu_time_max {
            return Ok(false);
        }
        if self.limits.unwatch_cpu_time() {
            return Ok(true);
        }
        if let Some(current) = cgroups.last() {
            self.limits.watch_cpu_time(&self.root, current, &self.retired_stats())?;
        }
        Ok(false)
    }
}

/// Their end.
impl JobCgroups {
    /// Kills the members of a cgroup and waits until it is empty. If it cannot be emptied, the error has
    /// the members.
    pub(crate) fn kill(&self, cgroup: &JobCgroup) -> Result<()> {
        match kill_and_wait(cgroup) {
            // A guard still has the privileges that this process has given up.
            Err(error)
                if error.is_permission_denied() && self.root.end_by_guard(cgroup, KILL_TIMEOUT) =>
            {
                cgroup.mark_ended();
                Ok(())
            }
            killed => killed,
        }
    }

    /// Removes the cgroups that were killed, and adds the resources that their members have used.
    pub(crate) fn reclaim_killed(&self) {
        self.reclaim(&mut self.lock());
    }

    fn reclaim(&self, cgroups: &mut Vec<Arc<JobCgroup>>) {
        cgroups.retain(|cgroup| {
            // Another process can have put a process into it.
            if !cgroup.is_killed() || nostd_cgroup::is_empty(cgroup.dir.as_raw_fd()) == Ok(false) {
                return true;
            }
            // If its resources cannot be read, it stays until they can.
            let Ok(used) = stats::usage(cgroup.dir.as_fd()) else { return true };
            self.limits.refresh(cgroup);
            if nostd_cgroup::remove(self.root.dir().into(), &cgroup.name).is_err() {
                return true;
            }
            let mut retired = self.retired_stats.lock().unwrap_or_else(PoisonError::into_inner);
            *retired = stats::sum(*retired, stats::past(used));
            false
        });
    }

    /// Kills, waits and removes all of these cgroups, within one timeout. All are killed before the first
    /// wait. The error is that of the first one that could not be emptied, with its members.
    pub(crate) fn end(&self, cgroups: &[Arc<JobCgroup>]) -> Result<()> {
        let start = Instant::now();
        let root = self.root.dir();
        if let [_, _, ..] = cgroups {
            for cgroup in cgroups {
                let _ = nostd_cgroup::kill(cgroup.dir.as_raw_fd());
            }
        }
        let mut first = Ok(());
        for cgroup in cgroups {
            let left = milliseconds_until(Some(start + KILL_TIMEOUT));
            match nostd_cgroup::end(root.into(), &cgroup.name, left) {
                Ok(true) => {
                    self.forget(cgroup);
                    cgroup.mark_ended();
                }
                Ok(false) => first = first.and_then(|()| Err(still_alive(cgroup, start))),
                Err(e) => first = first.and_then(|()| Err(failed_to_end(cgroup, e))),
            }
        }
        first
    }
}

fn kill_and_wait(cgroup: &JobCgroup) -> Result<()> {
    let (start, dir) = (Instant::now(), cgroup.dir.as_raw_fd());
    event!(trace, "kill of a cgroup", cgroup = cgroup.name.to_string_lossy());
    cgroup.mark_kill_begun();
    let emptied = Events::open(dir).and_then(|events| {
        if events.is(b"populated 0")? {
            return Ok(true);
        }
        nostd_cgroup::kill(dir)?;
        wait::wait_on(&events, cgroup, Some(start + KILL_TIMEOUT / 10))
    });
    let emptied = match emptied {
        Err(errno) if means_removed(errno) => Ok(true),
        Ok(false) => {
            nostd_cgroup::empty(cgroup.dir.as_fd().into(), KILL_TIMEOUT.as_millis() as i32)
        }
        emptied => emptied,
    };
    if !emptied.map_err(|e| failed_to_end(cgroup, e))? {
        return Err(still_alive(cgroup, start));
    }
    cgroup.mark_ended();
    Ok(())
}

fn failed_to_end(cgroup: &JobCgroup, errno: Errno) -> Error {
    Error::os(format!("end the cgroup {:?}", cgroup.name), errno)
}

fn still_alive(cgroup: &JobCgroup, start: Instant) -> Error {
    match Members(vec![cgroup.dir.as_fd()]).list() {
        Ok(survivors) => Error::still_alive(survivors, start.elapsed()),
        Err(error) => error,
    }
}
