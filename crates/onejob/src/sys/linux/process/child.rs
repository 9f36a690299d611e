//! A process started into a job: our own child, or a guard's.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::ExitStatus,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::{
    descendants::{self, Root},
    dropped_children, identity,
    tree::Tree,
};
use crate::{
    Error, ProcessId, Result, Signal,
    stop::Stoppable as _,
    sys::linux::{
        deadline::wait_for,
        guard::pair::{Backoff, GuardPair},
        nostd::{
            procfs::Proc,
            protocol,
            syscall::{self, Errno, POLLIN, PollFd},
        },
    },
};

pub(crate) struct Child {
    pid: u32,
    /// Shared with [`unwaited`] once dropped, which must not need another descriptor.
    pidfd: Arc<OwnedFd>,
    id: OnceLock<ProcessId>,
    parent: Parent,
    ended: bool,
}

/// Who can wait for it.
enum Parent {
    Us,
    Guard(Guarded),
}

/// A child of a guard.
struct Guarded {
    /// Where the guard sends the status.
    status: OwnedFd,
    guards: Option<Arc<GuardPair>>,
    /// Whether it is to end when no guard is left.
    ends_with_guards: bool,
    /// Ready when the status is there or the guard was killed, and when the child is dead: a guard that
    /// was stopped does not tell. Only made for a caller that wants to poll.
    any: OnceLock<Option<OwnedFd>>,
}

impl Child {
    pub(crate) fn ours(pid: u32, pidfd: OwnedFd) -> Child {
        Child { pid, pidfd: pidfd.into(), id: OnceLock::new(), parent: Parent::Us, ended: false }
    }

    pub(crate) fn from_guard(
        pid: u32,
        pidfd: OwnedFd,
        status: OwnedFd,
        guards: Option<Arc<GuardPair>>,
        ends_with_guards: bool,
    ) -> Child {
        let any = OnceLock::new();
        let parent = Parent::Guard(Guarded { status, guards, ends_with_guards, any });
        Child { pid, pidfd: pidfd.into(), id: OnceLock::new(), parent, ended: false }
    }

    /// What it is held by, as long as somebody holds it.
    pub(crate) fn held(&self) -> (u32, Weak<OwnedFd>) {
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
        let (pidfd, number) = (self.pidfd.as_raw_fd(), signal.as_raw());
        let sent = match syscall::pidfd_signal_group(pidfd, number) {
            Err(Errno::INVAL) if syscall::is_dead(pidfd) => Err(Errno::SRCH),
            // It was alive a moment ago: its number comes round again only after all the others.
            Err(Errno::INVAL) => kill_group(self.pid, number),
            sent => sent,
        };
        match sent {
            Err(Errno::SRCH) | Ok(()) => Ok(()),
            Err(e) => Err(Error::os(format!("send {signal} to the process group {}", self.pid), e)),
        }
    }

    /// Its status, if it has ended by the deadline.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        let status = match &self.parent {
            Parent::Us => self.wait_as_parent(deadline),
            Parent::Guard(guarded) => self.wait_to_be_told(guarded, deadline),
        };
        let status = status.or_else(|e| self.exit_info().map(Some).ok_or(e));
        self.ended = !matches!(status, Ok(None));
        status
            .map(|status| status.map(ExitStatus::from_raw))
            .map_err(|e| Error::os(format!("learn how process {} ended", self.pid), e))
    }

    fn wait_as_parent(&self, deadline: Option<Instant>) -> io::Result<Option<i32>> {
        // Without a deadline the wait for its status is the wait for its end.
        if deadline.is_some() && !self.is_dead_by(deadline) {
            return Ok(None);
        }
        self.reap(deadline)
    }

    /// A guard reaps it and tells how it ended: at once, unless the guard was stopped, which a member
    /// can do, or a tracer holds the child.
    fn wait_to_be_told(
        &self,
        guarded: &Guarded,
        deadline: Option<Instant>,
    ) -> io::Result<Option<i32>> {
        let (mut patience, mut is_dead) = (Backoff::NEW, false);
        loop {
            let pidfd = if is_dead { -1 } else { self.pidfd.as_raw_fd() };
            let status = PollFd::new(guarded.status.as_raw_fd(), POLLIN);
            let mut fds = [status, PollFd::new(pidfd, POLLIN)];
            wait_for(&mut fds, if is_dead { patience.next(None) } else { deadline });
            if fds[0].fired() {
                return match recv_status(guarded.status.as_fd()) {
                    Ok(status) => Ok(Some(status)),
                    // It was killed; the other guard ends and reaps what it had started.
                    Err(_) if !self.ends_unguarded(guarded, deadline)? => Ok(None),
                    Err(error) => Err(error),
                };
            }
            if is_dead {
                guarded.guards.iter().for_each(|guards| guards.go_on());
                if crate::sys::linux::deadline::has_passed(deadline) && self.is_traced() {
                    return Ok(None);
                }
            } else if !fds[1].fired() && crate::sys::linux::deadline::has_passed(deadline) {
                return Ok(None);
            }
            is_dead |= fds[1].fired();
        }
    }

    /// Whether a tracer holds it; also if that cannot be seen.
    fn is_traced(&self) -> bool {
        let status = crate::sys::linux::file::read_proc(&format!("/proc/{}/status", self.pid))
            .unwrap_or_default();
        !status.lines().any(|line| line == "TracerPid:\t0")
    }

    /// Waits for the end of a child whose guard was killed; whether that came before the deadline. The
    /// other guard sees to it, and where none is left we do.
    fn ends_unguarded(&self, guarded: &Guarded, deadline: Option<Instant>) -> io::Result<bool> {
        let pidfd = self.pidfd.as_raw_fd();
        let Some(guards) = guarded.guards.as_ref().filter(|_| guarded.ends_with_guards) else {
            return Ok(self.is_dead_by(deadline));
        };
        let mut patience = Backoff::NEW;
        while !syscall::is_dead(pidfd) {
            if guards.are_dead() {
                let root = Root { pid: self.pid as i32, pidfd: self.pidfd.as_fd() };
                Tree::new(root).and_then(|tree| tree.kill()).map_err(io::Error::other)?;
                return Err(io::Error::other(
                    "both guards of the job were killed, so the processes below it were ended",
                ));
            }
            guards.go_on();
            if crate::sys::linux::deadline::has_passed(deadline) {
                return Ok(false);
            }
            let mut fds = [PollFd::new(pidfd, POLLIN), guards.outer_poll_fd()];
            wait_for(&mut fds, patience.next(deadline));
        }
        Ok(true)
    }

    fn is_dead_by(&self, deadline: Option<Instant>) -> bool {
        let root = Root { pid: self.pid as i32, pidfd: self.pidfd.as_fd() };
        descendants::wait_dead(root, deadline)
    }

    /// The kernel's own record, which it shows once somebody has reaped the process.
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

    /// Takes the status of our dead child: `None` if a tracer did not let go of it by the deadline.
    fn reap(&self, deadline: Option<Instant>) -> io::Result<Option<i32>> {
        loop {
            match syscall::reap(self.pidfd.as_raw_fd(), deadline.is_none()) {
                Ok(Some(ended)) => return Ok(Some(ended.wait_status())),
                Ok(None) if crate::sys::linux::deadline::has_passed(deadline) => return Ok(None),
                // No descriptor tells when a tracer lets go.
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(Errno::CHILD) => return Err(status_taken()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

fn kill_group(leader: u32, signal: i32) -> std::result::Result<(), Errno> {
    use rustix::process::{Pid, Signal, kill_process_group};
    let group = Pid::from_raw(leader as i32).ok_or(Errno::SRCH)?;
    // SAFETY: `signal` is one that our own type knows, real-time ones included.
    let signal = unsafe { Signal::from_raw_unchecked(signal) };
    kill_process_group(group, signal).map_err(|e| Errno(e.raw_os_error()))
}

fn status_taken() -> io::Error {
    io::Error::other(
        "somebody else in this process has waited for it (waitpid(-1), or SIGCHLD is ignored)",
    )
}

/// The status as the guard tells it.
fn recv_status(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let told = loop {
        match protocol::receive_bare(socket.as_raw_fd()) {
            Err(Errno::INTR) => {}
            told => break told?,
        }
    };
    match told {
        Some(ended) if ended.kind == protocol::ENDED => Ok(ended.numbers[0] as i32),
        _ => Err(io::Error::other("the guard that was its parent was killed")),
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let Parent::Guard(guarded) = &self.parent else { return self.pidfd.as_fd() };
        let any = guarded.any.get_or_init(|| {
            let any = epoll::create(epoll::CreateFlags::CLOEXEC).ok()?;
            for fd in [guarded.status.as_fd(), self.pidfd.as_fd()] {
                epoll::add(&any, fd, EventData::new_u64(0), EventFlags::IN).ok()?;
            }
            Some(any)
        });
        any.as_ref().map_or(guarded.status.as_fd(), AsFd::as_fd)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended || !matches!(self.parent, Parent::Us) {
            return;
        }
        if let Ok(None) = syscall::reap(self.pidfd.as_raw_fd(), false) {
            dropped_children::reap_later(self.pidfd.clone());
        }
    }
}
