//! A process that was started into a job, as a child of this process or of a guard.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::process::ExitStatusExt,
    },
    process::ExitStatus,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    process::{Pid, kill_process_group},
};

use super::{
    descendants::{self, Root},
    dropped_children, identity,
    tree::Tree,
};
use crate::{
    Error, ProcessId, Result, Signal,
    stop::Stoppable as _,
    sys::linux::{
        deadline::{has_passed, wait_for},
        file::read_proc,
        guard::pair::{Backoff, GuardPair},
        nostd::{
            procfs::Proc,
            protocol,
            syscall::{self, Errno, POLLIN, PollFd},
        },
    },
};

pub(crate) struct ChildProcess {
    pid: u32,
    /// Shared with [`dropped_children`] after a drop, which must not need another descriptor.
    pidfd: Arc<OwnedFd>,
    id: OnceLock<ProcessId>,
    parent: Parent,
    ended: bool,
}

/// The parent of the child, which reaps it.
enum Parent {
    Caller,
    Guard(GuardLink),
}

/// The connection to the guard that is the parent of the child.
struct GuardLink {
    /// The guard sends the wait status here.
    status: OwnedFd,
    guards: Option<Arc<GuardPair>>,
    /// Whether the child is killed when both guards are dead.
    ends_with_guards: bool,
    /// Ready when the status has arrived, the guard was killed, or the child is dead: a stopped guard
    /// sends nothing. Created for a caller that wants to poll.
    any: OnceLock<Option<OwnedFd>>,
}

impl ChildProcess {
    pub(crate) fn of_caller(pid: u32, pidfd: OwnedFd) -> ChildProcess {
        let (id, parent) = (OnceLock::new(), Parent::Caller);
        ChildProcess { pid, pidfd: pidfd.into(), id, parent, ended: false }
    }

    pub(crate) fn of_guard(
        pid: u32,
        pidfd: OwnedFd,
        status: OwnedFd,
        guards: Option<Arc<GuardPair>>,
        ends_with_guards: bool,
    ) -> ChildProcess {
        let any = OnceLock::new();
        let parent = Parent::Guard(GuardLink { status, guards, ends_with_guards, any });
        ChildProcess { pid, pidfd: pidfd.into(), id: OnceLock::new(), parent, ended: false }
    }

    /// The pid, and the pidfd as long as this value exists.
    pub(crate) fn downgrade(&self) -> (u32, Weak<OwnedFd>) {
        (self.pid, Arc::downgrade(&self.pidfd))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn id(&self) -> ProcessId {
        let proc = || Proc::open().ok();
        *self.id.get_or_init(|| identity::of_pidfd(self.pid, self.pidfd.as_fd(), proc().as_ref()))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        match syscall::pidfd_send_signal(self.pidfd.as_raw_fd(), signal.as_raw()) {
            Err(Errno::SRCH) | Ok(()) => Ok(()),
            Err(e) => Err(Error::os(format!("send {signal} to process {}", self.pid), e)),
        }
    }

    pub(crate) fn signal_group(&self, signal: Signal) -> Result<()> {
        match signal_group(self.pid, self.pidfd.as_raw_fd(), signal.as_raw()) {
            Err(Errno::SRCH) | Ok(()) => Ok(()),
            Err(e) => Err(Error::os(format!("send {signal} to the process group {}", self.pid), e)),
        }
    }

    /// The exit status, if the child ends before the deadline.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        let status = match &self.parent {
            Parent::Caller => self.wait_as_parent(deadline),
            Parent::Guard(link) => self.wait_for_guard(link, deadline),
        };
        let status = status.or_else(|e| self.exit_info().map(Some).ok_or(e));
        self.ended = !matches!(status, Ok(None));
        status
            .map(|status| status.map(ExitStatus::from_raw))
            .map_err(|e| Error::os(format!("read the exit status of process {}", self.pid), e))
    }

    fn wait_as_parent(&self, deadline: Option<Instant>) -> io::Result<Option<i32>> {
        // Without a deadline one call waits for the end and reaps.
        if deadline.is_some() && !self.is_dead_by(deadline) {
            return Ok(None);
        }
        self.reap(deadline)
    }

    /// Waits for the status from the guard, which reaps the child and sends the status at once, unless
    /// the guard was stopped, which a member can do, or a tracer holds the child.
    fn wait_for_guard(
        &self,
        link: &GuardLink,
        deadline: Option<Instant>,
    ) -> io::Result<Option<i32>> {
        let (mut backoff, mut is_dead) = (Backoff::NEW, false);
        loop {
            let pidfd = (!is_dead).then_some(&self.pidfd);
            let status = PollFd::new(&link.status, POLLIN);
            let mut fds = [status, PollFd::maybe(pidfd, POLLIN)];
            wait_for(&mut fds, if is_dead { backoff.next(None) } else { deadline });
            if fds[0].fired() {
                return match recv_status(link.status.as_fd()) {
                    Ok(status) => Ok(Some(status)),
                    // The guard was killed; the other one kills and reaps the child.
                    Err(_) if !self.ends_without_guard(link, deadline)? => Ok(None),
                    Err(error) => Err(error),
                };
            }
            if is_dead {
                link.guards.iter().for_each(|guards| guards.resume());
                if has_passed(deadline) && self.is_traced() {
                    return Ok(None);
                }
            } else if !fds[1].fired() && has_passed(deadline) {
                return Ok(None);
            }
            is_dead |= fds[1].fired();
        }
    }

    /// Whether a tracer holds the child; true also if that cannot be read.
    fn is_traced(&self) -> bool {
        let status = read_proc(&format!("/proc/{}/status", self.pid)).unwrap_or_default();
        !status.lines().any(|line| line == "TracerPid:\t0")
    }

    /// Waits until a child whose guard was killed has ended; returns whether it did before the deadline.
    /// The other guard kills it; if both are dead, this process does.
    fn ends_without_guard(&self, link: &GuardLink, deadline: Option<Instant>) -> io::Result<bool> {
        let Some(guards) = link.guards.as_ref().filter(|_| link.ends_with_guards) else {
            return Ok(self.is_dead_by(deadline));
        };
        let mut backoff = Backoff::NEW;
        while !syscall::is_dead(&self.pidfd) {
            if guards.are_dead() {
                let root = Root { pid: self.pid as i32, pidfd: self.pidfd.as_fd() };
                Tree::new(root).and_then(|tree| tree.kill()).map_err(io::Error::other)?;
                return Err(io::Error::other(
                    "both guards of the job were killed, so its processes were killed, too",
                ));
            }
            guards.resume();
            if has_passed(deadline) {
                return Ok(false);
            }
            let mut fds = [PollFd::new(&self.pidfd, POLLIN), guards.outer_poll_fd()];
            wait_for(&mut fds, backoff.next(deadline));
        }
        Ok(true)
    }

    fn is_dead_by(&self, deadline: Option<Instant>) -> bool {
        let root = Root { pid: self.pid as i32, pidfd: self.pidfd.as_fd() };
        descendants::wait_dead(root, deadline)
    }

    /// The wait status from the kernel, which shows it once the process is reaped (Linux 6.15).
    fn exit_info(&self) -> Option<i32> {
        const TRIES: usize = 100;
        for _ in 0..TRIES {
            if let Some(status) = syscall::exit_code(self.pidfd.as_raw_fd()) {
                return Some(status);
            }
            if syscall::pidfd_send_signal(self.pidfd.as_raw_fd(), 0) == Err(Errno::SRCH) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        syscall::exit_code(self.pidfd.as_raw_fd())
    }

    /// Reaps the dead child of this process: `None` if a tracer holds it beyond the deadline.
    fn reap(&self, deadline: Option<Instant>) -> io::Result<Option<i32>> {
        loop {
            match syscall::reap(self.pidfd.as_raw_fd(), deadline.is_none()) {
                Ok(Some(ended)) => return Ok(Some(ended.wait_status())),
                Ok(None) if has_passed(deadline) => return Ok(None),
                // No descriptor reports that a tracer detaches.
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(Errno::CHILD) => return Err(status_taken()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Sends a signal to the process group that a process leads.
pub(crate) fn signal_group(
    leader: u32,
    pidfd: RawFd,
    number: i32,
) -> std::result::Result<(), Errno> {
    match syscall::pidfd_signal_group(pidfd, number) {
        Err(Errno::INVAL) if syscall::is_dead(pidfd) => Err(Errno::SRCH),
        // Before Linux 6.9. The leader was alive a moment ago: the kernel uses all other pids before
        // it uses this one again.
        Err(Errno::INVAL) => kill_group(leader, number),
        sent => sent,
    }
}

fn kill_group(leader: u32, signal: i32) -> std::result::Result<(), Errno> {
    let group = Pid::from_raw(leader as i32).ok_or(Errno::SRCH)?;
    // SAFETY: a `Signal` holds only numbers that the kernel accepts, real-time signals included.
    let signal = unsafe { rustix::process::Signal::from_raw_unchecked(signal) };
    kill_process_group(group, signal).map_err(|e| Errno(e.raw_os_error()))
}

fn status_taken() -> io::Error {
    io::Error::other(
        "other code in this process has waited for it (waitpid(-1), or SIGCHLD is ignored)",
    )
}

/// Receives the wait status from the guard.
fn recv_status(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let received = loop {
        match protocol::receive_bare(socket.as_raw_fd()) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    match received {
        Some(ended) if ended.kind == protocol::ENDED => Ok(ended.numbers[0] as i32),
        _ => Err(io::Error::other("the guard that was its parent was killed")),
    }
}

impl AsFd for ChildProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let Parent::Guard(link) = &self.parent else { return self.pidfd.as_fd() };
        let any = link.any.get_or_init(|| {
            let any = epoll::create(epoll::CreateFlags::CLOEXEC).ok()?;
            for fd in [link.status.as_fd(), self.pidfd.as_fd()] {
                epoll::add(&any, fd, EventData::new_u64(0), EventFlags::IN).ok()?;
            }
            Some(any)
        });
        any.as_ref().map_or(link.status.as_fd(), AsFd::as_fd)
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if self.ended || !matches!(self.parent, Parent::Caller) {
            return;
        }
        if let Ok(None) = syscall::reap(self.pidfd.as_raw_fd(), false) {
            dropped_children::reap_later(self.pidfd.clone());
        }
    }
}
