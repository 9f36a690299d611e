//! Everybody in some cgroups: listing, signalling, freezing, counting.
//!
//! What the owner of a job and a view of it from another process do alike.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags};

use super::{
    location,
    root::{is_gone as is_removed, read_job_text, write_job_text, write_text},
    stats,
};
use crate::{
    Error, Process, ProcessId, Result, Signal, Stats, StopReason,
    sys::linux::{
        deadline::{KILL_TIMEOUT, has_passed, milliseconds_until},
        nostd::{
            boost::CROWD,
            cgroup::{self as floor, Events},
            procfs::Proc,
            syscall::{self, Errno},
        },
        process::{
            descendants::{SignalTally, is_converging},
            identity,
        },
    },
};

/// The cgroups of a job, as they are at this moment.
pub(crate) struct Members<'a>(pub(crate) Vec<BorrowedFd<'a>>);

impl Members<'_> {
    /// All of them, with the calling process if it is one. A listing that cannot be read as a whole is an
    /// error.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        let mut members = Vec::new();
        for cgroup in &self.0 {
            // Numbers that are none here (members from outside our PID namespace) are left out.
            floor::each_member(cgroup.as_raw_fd(), &mut |pid| {
                members.extend(u32::try_from(pid).ok().filter(|pid| *pid != 0));
            })
            .map_err(cannot_list)?;
        }
        Ok(members)
    }

    pub(crate) fn others(&self) -> Result<Vec<u32>> {
        let me = std::process::id();
        Ok(self.pids()?.into_iter().filter(|pid| *pid != me).collect())
    }

    /// Opens pidfds of the others and keeps those who are still listed afterwards: whoever has such
    /// a number now is a member, and a pidfd of somebody before it reaches nobody.
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

    /// The first of these that can be held.
    pub(crate) fn first_held(&self, pids: &[u32]) -> Result<Option<OwnedFd>> {
        for pid in pids {
            if let Some((_, pidfd)) = self.held(&[*pid])?.pop() {
                return Ok(Some(pidfd));
            }
        }
        Ok(None)
    }

    pub(crate) fn list(&self) -> Result<Vec<Process>> {
        // Without it there are fewer details.
        let proc = Proc::open().ok();
        let describe = |pid: u32| {
            let pidfd = identity::held(pid).map_err(cannot_list)?;
            Ok(pidfd.map(|pidfd| identity::describe(pid, pidfd.as_fd(), proc.as_ref())))
        };
        let described = self.pids()?.into_iter().filter_map(|pid| describe(pid).transpose());
        let mut listed = described.collect::<Result<Vec<_>>>()?;
        // A number read there may have been a stranger's by the time it was opened: only who has
        // one that is listed afterwards, too, is shown.
        let mut members = self.pids()?;
        members.sort_unstable();
        listed.retain(|process| members.binary_search(&process.pid()).is_ok());
        Ok(listed)
    }

    /// Sends a signal to everybody else, until a listing shows nobody new.
    pub(crate) fn signal(&self, signal: Signal) -> Result<usize> {
        // So that descriptors suffice for any job.
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
                reached.boost_in_a_crowd();
            }
            for some in others.chunks(AT_ONCE) {
                for (pid, pidfd) in self.held(some)? {
                    reached.send(pid as i32, pidfd.as_raw_fd());
                }
            }
        }
        reached.count()
    }

    /// Returns when the kernel says that all are. In a cgroup that has been removed meanwhile is
    /// nobody to freeze.
    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<()> {
        let what = if frozen { "freeze the job" } else { "thaw the job" };
        self.0.iter().try_for_each(|dir| match set_frozen(*dir, frozen) {
            Err(e) if e.raw_os_error().is_some_and(|raw| is_removed(Errno(raw))) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                Err(Error::os(what, e).with_hint("a member is stuck in the kernel"))
            }
            set => set.map_err(|e| Error::os(what, e)),
        })
    }

    /// Whether any of them is to be. One that has been removed is not.
    pub(crate) fn are_frozen(&self) -> Result<bool> {
        for cgroup in &self.0 {
            match read_job_text(*cgroup, c"cgroup.freeze") {
                Ok(word) if word.trim() == "1" => return Ok(true),
                Ok(_) => {}
                Err(e) if e.raw_os_error().is_some_and(|raw| is_removed(Errno(raw))) => {}
                Err(e) => return Err(Error::os("read whether the job is frozen", e)),
            }
        }
        Ok(false)
    }

    /// What they and the dead before them have used.
    pub(crate) fn usage(&self) -> Result<Stats> {
        let mut total = Stats::default();
        for cgroup in &self.0 {
            total = stats::sum(total, stats::usage(*cgroup)?);
        }
        Ok(total)
    }

    /// What limits have done to them.
    pub(crate) fn limit_reached(&self, before: Stats) -> Option<StopReason> {
        let events = self.0.iter().map(|cgroup| stats::events(*cgroup).unwrap_or_default());
        stats::limit_reached(&events.fold(before, stats::sum))
    }
}

/// The kernel sends no two events of a cgroup within 10 ms, so that of its emptiness comes late if
/// it has just got its first member. A wait that begins then watches a member, too; one that has
/// lasted longer need not.
pub(crate) struct EmptyEventGrace(Instant);

impl EmptyEventGrace {
    pub(crate) fn new() -> EmptyEventGrace {
        EmptyEventGrace(Instant::now() + Duration::from_millis(20))
    }

    /// Whom to wait for besides the event, and until when.
    pub(crate) fn also(
        &self,
        cgroup: i32,
        deadline: Option<Instant>,
    ) -> (Option<syscall::Fd>, Option<Instant>) {
        if has_passed(Some(self.0)) {
            return (None, deadline);
        }
        let somebody = floor::last_member(cgroup);
        let soon = Instant::now() + Duration::from_millis(1);
        let until = if somebody.is_some() { self.0 } else { soon };
        (somebody, Some(deadline.map_or(until, |deadline| deadline.min(until))))
    }
}

/// The pauses of a loop that has no event to wait for: each is twice the one before.
pub(crate) struct Pauses(Duration);

impl Pauses {
    pub(crate) fn new() -> Pauses {
        Pauses(Duration::from_millis(1))
    }

    /// The end of the next pause, at the deadline at the latest.
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Option<Instant> {
        let end = Instant::now() + self.0;
        self.0 = (self.0 * 2).min(Duration::from_secs(1));
        Some(deadline.map_or(end, |deadline| deadline.min(end)))
    }
}

fn cannot_list(errno: Errno) -> Error {
    let error = Error::os("list the members of the job", errno);
    match errno {
        Errno::ACCES | Errno::PERM => {
            error.with_hint("this process may no longer do what it could when the job was made")
        }
        _ => error,
    }
}

fn set_frozen(cgroup: BorrowedFd<'_>, frozen: bool) -> io::Result<()> {
    let (word, event): (_, &[u8]) = if frozen { ("1", b"frozen 1") } else { ("0", b"frozen 0") };
    write_job_text(cgroup, c"cgroup.freeze", word)?;
    let events = Events::open(cgroup.as_raw_fd())?;
    let deadline = Instant::now() + KILL_TIMEOUT;
    while !events.is(event)? {
        if has_passed(Some(deadline)) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        events.wait(milliseconds_until(Some(deadline)));
    }
    Ok(())
}

/// Refusing to start a process in a frozen job: a child born frozen never gets to its program, and
/// we would wait for that.
pub(crate) fn frozen_error() -> Error {
    Error::unsupported("a frozen job cannot take new members").with_hint("thaw it first")
}

pub(crate) fn freezes_caller_error() -> Error {
    Error::unsupported("a member cannot freeze its own job")
        .with_hint("from outside it can be frozen")
}

pub(crate) fn not_owner_error() -> Error {
    Error::unsupported("only its owner can release a job")
}

/// No process could be started, because the job was killed again at each attempt.
pub(crate) fn killed_meanwhile() -> Error {
    let canceled = io::Error::from_raw_os_error(Errno::CANCELED.0);
    Error::os("start a process: the job was killed meanwhile", canceled)
}

/// Moves a running process into a cgroup; it is the one that is meant, or it is moved back.
pub(crate) fn adopt(cgroup: BorrowedFd<'_>, process: &ProcessId) -> Result<()> {
    if process.pid == 1 {
        return Err(Error::invalid("process 1 cannot be a member of a job"));
    }
    let pidfd = identity::reopen(process)?;
    let pid = process.pid;
    write_job_text(cgroup, c"cgroup.procs", &pid.to_string()).map_err(|e| {
        if e.raw_os_error() == Some(Errno::SRCH.0) {
            return Error::stale(format!("process {pid} is gone"));
        }
        Error::os(format!("move process {pid} into the cgroup of the job"), e)
    })?;
    if syscall::pidfd_send_signal(pidfd.as_raw_fd(), 0) != Err(Errno::SRCH) {
        // It was there all the time, so it was it that was moved.
        return Ok(());
    }
    move_back(pid, cgroup);
    Err(Error::stale(format!("process {pid} is gone")))
}

/// Somebody took the number over just before the move: it goes back to where its parent is, which
/// is where it was born.
fn move_back(pid: u32, from: BorrowedFd<'_>) {
    let moved = Members(vec![from]).pids().is_ok_and(|pids| pids.contains(&pid));
    let proc = Proc::open().ok().filter(|_| moved);
    let parent = proc.and_then(|proc| proc.stat(pid as i32).ok()).map(|stat| stat.parent);
    let home = parent.and_then(|parent| location::cgroup_of(parent).ok());
    let home = home.and_then(|path| {
        rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
    });
    if let Some(home) = home {
        let _ = write_text(home.as_fd(), "cgroup.procs", &pid.to_string());
    }
}
