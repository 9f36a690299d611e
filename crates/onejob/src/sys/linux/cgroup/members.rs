//! The members of some cgroups: listing, signalling, freezing. Used by the owner of a job and by views.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use super::{
    dir::{is_removed_error, read_job_text, write_job_text},
    names::NamedCgroup,
    stats,
    wait::Pauses,
};
use crate::{
    Error, Process, Result, Signal, Snapshot, Stats, StopReason,
    sys::linux::{
        deadline::{KILL_TIMEOUT, has_passed, milliseconds_until},
        nostd::{
            cgroup::{self as nostd_cgroup, Events},
            priority::CROWD,
            procfs::Proc,
            syscall::Errno,
        },
        process::{
            descendants::{SignalTally, is_converging},
            identity,
            snapshot::{self, Listed},
        },
    },
};

/// Cgroups of a job, and everything below them.
pub(crate) struct Members<'a>(pub(crate) Vec<BorrowedFd<'a>>);

impl Members<'_> {
    pub(crate) fn of(cgroups: &[NamedCgroup]) -> Members<'_> {
        Members(cgroups.iter().map(|(_, dir)| dir.as_fd()).collect())
    }

    /// The pids of all members, including this process if it is one. An incomplete list is an error.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        let mut members = Vec::new();
        for cgroup in &self.0 {
            // Members that have no pid in this PID namespace are left out.
            nostd_cgroup::each_member(cgroup.as_raw_fd(), &mut |pid| {
                members.extend(u32::try_from(pid).ok().filter(|pid| *pid != 0));
            })
            .map_err(cannot_list)?;
        }
        Ok(members)
    }

    /// The pids of all members except this process.
    pub(crate) fn others(&self) -> Result<Vec<u32>> {
        let me = std::process::id();
        Ok(self.pids()?.into_iter().filter(|pid| *pid != me).collect())
    }

    /// Opens pidfds of members, not of this process. The pids are listed again afterwards: a pid that is
    /// still listed belongs to a member, and if the pidfd is of a process that had the pid before, that
    /// process is dead.
    pub(crate) fn held(&self, pids: &[u32]) -> Result<Vec<(u32, OwnedFd)>> {
        let open = |pid: &u32| identity::held(*pid).map(|pidfd| Some((*pid, pidfd?)));
        let held: std::result::Result<Vec<_>, _> =
            pids.iter().filter_map(|pid| open(pid).transpose()).collect();
        let mut held = held.map_err(cannot_list)?;
        let mut listed = self.others()?;
        listed.sort_unstable();
        held.retain(|(pid, _)| listed.binary_search(pid).is_ok());
        Ok(held)
    }

    /// A pidfd of the first of these members that still exists.
    pub(crate) fn first_held(&self, pids: &[u32]) -> Result<Option<OwnedFd>> {
        for pid in pids {
            if let Some((_, pidfd)) = self.held(&[*pid])?.pop() {
                return Ok(Some(pidfd));
            }
        }
        Ok(None)
    }

    /// All members, including this process if it is one.
    pub(crate) fn list(&self) -> Result<Vec<Process>> {
        Ok(self.list_with_stat()?.into_iter().map(|(process, _)| process).collect())
    }

    /// The same, with the statistics of each.
    pub(crate) fn list_with_stat(&self) -> Result<Vec<Listed>> {
        // Without /proc, names and parents are missing.
        let proc = Proc::open().ok();
        let describe = |pid: u32| {
            let pidfd = identity::held(pid).map_err(cannot_list)?;
            Ok(pidfd.map(|pidfd| identity::describe_with_stat(pid, pidfd.as_fd(), proc.as_ref())))
        };
        let described = self.pids()?.into_iter().filter_map(|pid| describe(pid).transpose());
        let mut listed = described.collect::<Result<Vec<_>>>()?;
        // A pid can have passed to an unrelated process before it was opened. A process whose pid is
        // listed again was a member.
        let mut members = self.pids()?;
        members.sort_unstable();
        listed.retain(|(process, _)| members.binary_search(&process.pid()).is_ok());
        Ok(listed)
    }

    /// Sends a signal to all members except this process, until a list has no new ones.
    pub(crate) fn signal(&self, signal: Signal) -> Result<usize> {
        // Bounds the number of open pidfds.
        const AT_ONCE: usize = 256;
        const ROUNDS: usize = 16;
        let mut reached = SignalTally::new(signal);
        let mut most_new = usize::MAX;
        for _ in 0..ROUNDS {
            let mut others = self.others()?;
            others.retain(|pid| !reached.known.contains(&(*pid as i32)));
            if others.is_empty() || !is_converging(&mut most_new, others.len()) {
                break;
            }
            if others.len() >= CROWD {
                reached.raise_priority_if_crowded();
            }
            for some in others.chunks(AT_ONCE) {
                for (pid, pidfd) in self.held(some)? {
                    reached.send(pid as i32, pidfd.as_fd());
                }
            }
        }
        reached.count()
    }

    /// Freezes or thaws all members; returns when the kernel confirms it. Cgroups that have been removed
    /// are left out.
    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<()> {
        self.begin_frozen(frozen)?;
        self.wait_frozen(frozen)
    }

    /// Makes the kernel begin to freeze or thaw all members.
    pub(crate) fn begin_frozen(&self, frozen: bool) -> Result<()> {
        let value = if frozen { "1" } else { "0" };
        self.each_for_freeze(frozen, |dir| write_job_text(dir, FREEZE, value))
    }

    /// Waits until the kernel confirms that all members are frozen or thawed, or until the opposite has been
    /// requested.
    pub(crate) fn wait_frozen(&self, frozen: bool) -> Result<()> {
        self.each_for_freeze(frozen, |dir| wait_frozen(dir, frozen))
    }

    fn each_for_freeze(
        &self,
        frozen: bool,
        act: impl Fn(BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<()> {
        let what = if frozen { "freeze the job" } else { "thaw the job" };
        self.0.iter().try_for_each(|dir| match act(*dir) {
            Err(e) if is_removed_error(&e) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                Err(Error::os(what, e).with_hint("a member is in an uninterruptible system call"))
            }
            set => set.map_err(|e| Error::os(what, e)),
        })
    }

    /// Whether one of the cgroups is set to be frozen.
    pub(crate) fn are_frozen(&self) -> Result<bool> {
        for cgroup in &self.0 {
            match read_job_text(*cgroup, FREEZE) {
                Ok(value) if value.trim() == "1" => return Ok(true),
                Ok(_) => {}
                Err(e) if is_removed_error(&e) => {}
                Err(e) => return Err(Error::os("read whether the job is frozen", e)),
            }
        }
        Ok(false)
    }

    /// The members, what they use, and the CPU time of the cgroups. `retired` is that of earlier ones.
    pub(crate) fn snapshot(&self, retired: Duration) -> Result<Snapshot> {
        let mut cpu_time = Some(retired);
        let mut is_frozen = !self.0.is_empty();
        for cgroup in &self.0 {
            let used = stats::cpu_usage(*cgroup).ok().map(|used| stats::cpu_time(&used));
            cpu_time = cpu_time.zip(used).map(|(total, used)| total + used);
            is_frozen &= Events::open(cgroup.as_raw_fd())
                .and_then(|events| events.is(b"frozen 1"))
                .unwrap_or(false);
        }
        let snapshot = snapshot::of(self.list_with_stat()?);
        let is_frozen = is_frozen || snapshot.is_frozen == Some(true);
        Ok(Snapshot { cpu_time, is_frozen: Some(is_frozen), ..snapshot })
    }

    /// The resources that the members have used, including members that have ended.
    pub(crate) fn usage(&self) -> Result<Stats> {
        let mut total = Stats::default();
        for cgroup in &self.0 {
            total = stats::sum(total, stats::usage(*cgroup)?);
        }
        Ok(total)
    }

    /// The limit that the members have reached, if `before` is added to their cgroups.
    pub(crate) fn limit_reached(&self, before: Stats) -> Result<Option<StopReason>> {
        let mut events = before;
        for cgroup in &self.0 {
            events = stats::sum(events, stats::events(*cgroup)?);
        }
        Ok(stats::limit_reached(&events))
    }
}

const FREEZE: &CStr = c"cgroup.freeze";

fn cannot_list(errno: Errno) -> Error {
    let error = Error::os("list the members of the job", errno);
    match errno {
        Errno::ACCES | Errno::PERM => {
            error.with_hint("this process has given up privileges since it made the job")
        }
        _ => error,
    }
}

fn wait_frozen(cgroup: BorrowedFd<'_>, frozen: bool) -> io::Result<()> {
    let (value, event): (_, &[u8]) = if frozen { ("1", b"frozen 1") } else { ("0", b"frozen 0") };
    let events = Events::open(cgroup.as_raw_fd())?;
    let deadline = Instant::now() + KILL_TIMEOUT;
    let mut pauses = Pauses::new();
    while !events.is(event)? {
        // Another thread or process has requested the opposite. The kernel reports that only if the members
        // had reached the requested state before.
        if read_job_text(cgroup, FREEZE)?.trim() != value {
            return Ok(());
        }
        if has_passed(Some(deadline)) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        events.wait(milliseconds_until(pauses.next(Some(deadline))));
    }
    Ok(())
}
