//! A process started into a job: our own child, or a guard's.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::ExitStatus,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use super::{
    floor::{
        call::{self, Errno, POLLIN, PollFd},
        message,
        proc::Proc,
    },
    identity, wait_for,
};
use crate::{Error, ProcessId, Result, Signal};

pub(crate) struct Child {
    pid: u32,
    /// Shared with [`UNWAITED`] once dropped, which must not need another descriptor.
    pidfd: Arc<OwnedFd>,
    id: OnceLock<ProcessId>,
    parent: Parent,
    ended: bool,
}

/// Who can wait for it.
enum Parent {
    Us,
    /// A guard, which sends the status to this socket.
    Guard(OwnedFd),
}

impl Child {
    pub(super) fn ours(pid: u32, pidfd: OwnedFd) -> Child {
        Child { pid, pidfd: pidfd.into(), id: OnceLock::new(), parent: Parent::Us, ended: false }
    }

    pub(super) fn of_guard(pid: u32, pidfd: OwnedFd, status: OwnedFd) -> Child {
        Child {
            pid,
            pidfd: pidfd.into(),
            id: OnceLock::new(),
            parent: Parent::Guard(status),
            ended: false,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn id(&self) -> ProcessId {
        let proc = || Proc::open().ok();
        *self.id.get_or_init(|| identity::of_pidfd(self.pid, self.pidfd.as_fd(), proc().as_ref()))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        match call::pidfd_send_signal(self.pidfd.as_raw_fd(), signal.as_raw()) {
            Err(Errno::SRCH) | Ok(()) => Ok(()),
            Err(e) => Err(Error::os(format!("send {signal} to process {}", self.pid), e)),
        }
    }

    pub(crate) fn signal_group(&self, signal: Signal) -> Result<()> {
        let (pidfd, number) = (self.pidfd.as_raw_fd(), signal.as_raw());
        let sent = match call::pidfd_signal_group(pidfd, number) {
            Err(Errno::INVAL) if call::is_dead(pidfd) => Err(Errno::SRCH),
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
        loop {
            // Without a deadline the wait for its status is the wait for its end.
            let at_once = deadline.is_none();
            let mut fds = [PollFd::new(self.as_fd().as_raw_fd(), POLLIN)];
            if !at_once {
                wait_for(&mut fds, deadline);
            }
            if at_once || fds[0].fired() {
                let status = match &self.parent {
                    Parent::Us => self.reap(deadline),
                    Parent::Guard(socket) => match told(socket.as_fd()) {
                        // It was killed; the other guard ends and reaps what it had started.
                        Err(_) if !self.is_dead_by(deadline) => return Ok(None),
                        told => told.map(Some),
                    },
                };
                let status = status.or_else(|e| self.exit_info().map(Some).ok_or(e));
                self.ended = !matches!(status, Ok(None));
                return status
                    .map(|status| status.map(ExitStatus::from_raw))
                    .map_err(|e| Error::os(format!("learn how process {} ended", self.pid), e));
            }
            if super::is_past(deadline) {
                return Ok(None);
            }
        }
    }

    fn is_dead_by(&self, deadline: Option<Instant>) -> bool {
        let pidfd = self.pidfd.as_raw_fd();
        while !call::is_dead(pidfd) && !super::is_past(deadline) {
            wait_for(&mut [PollFd::new(pidfd, POLLIN)], deadline);
        }
        call::is_dead(pidfd)
    }

    /// The kernel's own record, which it shows once somebody has reaped the process.
    fn exit_info(&self) -> Option<i32> {
        const TRIES: usize = 100;
        for _ in 0..TRIES {
            if let Some(status) = call::exit_code(self.pidfd.as_raw_fd()) {
                return Some(status);
            }
            if call::pidfd_send_signal(self.pidfd.as_raw_fd(), 0) == Err(Errno::SRCH) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        call::exit_code(self.pidfd.as_raw_fd())
    }

    /// Takes the status of our dead child: `None` if a tracer did not let go of it by the deadline.
    fn reap(&self, deadline: Option<Instant>) -> io::Result<Option<i32>> {
        loop {
            match call::reap(self.pidfd.as_raw_fd(), deadline.is_none()) {
                Ok(Some(ended)) => return Ok(Some(ended.wait_status())),
                Ok(None) if super::is_past(deadline) => return Ok(None),
                // No descriptor tells when a tracer lets go.
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(Errno::CHILD) => return Err(stolen()),
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

fn stolen() -> io::Error {
    io::Error::other(
        "somebody else in this process has waited for it (waitpid(-1), or SIGCHLD is ignored)",
    )
}

/// The status as the guard tells it.
fn told(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let told = loop {
        match message::receive_bare(socket.as_raw_fd()) {
            Err(Errno::INTR) => {}
            told => break told?,
        }
    };
    match told {
        Some(ended) if ended.kind == message::ENDED => Ok(ended.numbers[0] as i32),
        _ => Err(io::Error::other("the guard that was its parent was killed")),
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.parent {
            Parent::Us => self.pidfd.as_fd(),
            Parent::Guard(status) => status.as_fd(),
        }
    }
}

/// Children of ours whose `Child` was dropped: nobody else will reap them.
static UNWAITED: Mutex<Vec<Arc<OwnedFd>>> = Mutex::new(Vec::new());

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended || !matches!(self.parent, Parent::Us) {
            return;
        }
        if let Ok(None) = call::reap(self.pidfd.as_raw_fd(), false) {
            let mut unwaited = UNWAITED.lock().unwrap_or_else(PoisonError::into_inner);
            unwaited.push(self.pidfd.clone());
        }
    }
}

/// Reaps those who have ended meanwhile.
pub(super) fn reap_unwaited() {
    let mut unwaited = UNWAITED.lock().unwrap_or_else(PoisonError::into_inner);
    unwaited.retain(|pidfd| matches!(call::reap(pidfd.as_raw_fd(), false), Ok(None)));
}
