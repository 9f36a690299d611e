//! The two guards of an owner as processes: known by their pidfds, continued, waited for and reaped.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::launch::Started;
use crate::sys::linux::{
    deadline::{has_passed, wait_for},
    nostd::{
        protocol::{self, Message},
        syscall::{self, POLLIN, PollFd, SIGCONT},
    },
    process::{dropped_children, privilege},
};

/// Two guards, as far as they are known.
pub(crate) struct GuardPair {
    pub(crate) inner: GuardProcess,
    pub(crate) outer: Arc<GuardProcess>,
}

/// One guard.
pub(crate) struct GuardProcess {
    pub(crate) pid: i32,
    /// `None` if it had ended before we could see it.
    pub(crate) pidfd: Option<OwnedFd>,
    is_outer: bool,
    /// Whether it is a child of this process, or can become one.
    is_ours: AtomicBool,
}

impl GuardProcess {
    /// The inner guard of this process.
    pub(crate) fn inner(pid: i32, pidfd: OwnedFd) -> GuardProcess {
        GuardProcess { pid, pidfd: Some(pidfd), is_outer: false, is_ours: AtomicBool::new(true) }
    }

    /// A guard of another process, or none.
    pub(crate) fn other(pid: i32, pidfd: Option<OwnedFd>) -> GuardProcess {
        GuardProcess { pid, pidfd, is_outer: false, is_ours: AtomicBool::new(false) }
    }

    /// Its pidfd, for a `poll`.
    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::maybe(self.pidfd.as_ref(), POLLIN)
    }

    pub(crate) fn is_dead(&self) -> bool {
        let is_dead = self.pidfd.as_ref().is_none_or(syscall::is_dead);
        if is_dead {
            self.reap();
        }
        is_dead
    }

    /// Below a subreaper or PID 1 a guard becomes a child of that process when its parent ends: the outer
    /// one at its birth, the inner one only if it outlives that. Whether it is a living one of this
    /// process; a dead one is reaped.
    pub(crate) fn reap(&self) -> bool {
        if !self.is_ours.load(Ordering::Relaxed) {
            return false;
        }
        let Some(pidfd) = &self.pidfd else { return false };
        let reaped = syscall::reap(pidfd, false);
        let can_still_come = reaped.is_err() && !self.is_outer;
        self.is_ours.store(matches!(reaped, Ok(None)) || can_still_come, Ordering::Relaxed);
        matches!(reaped, Ok(None))
    }

    /// Whether the calling thread may examine it. After its end the answer may be about another process
    /// with its number.
    pub(crate) fn may_be_examined(&self) -> bool {
        privilege::may_examine(self.pid)
    }

    /// In vain if it has ended.
    pub(crate) fn resume(&self) {
        if let Some(pidfd) = &self.pidfd {
            let _ = syscall::pidfd_send_signal(pidfd, SIGCONT);
        }
    }
}

impl Drop for GuardProcess {
    fn drop(&mut self) {
        if self.reap()
            && let Some(pidfd) = self.pidfd.take()
        {
            dropped_children::reap_later(pidfd.into());
        }
    }
}

impl GuardPair {
    /// Has both go on that were stopped. A guard does not notice that it was, no event tells us, and
    /// whoever can signal it can stop it: so it is done now and then while something is waited for.
    pub(crate) fn resume(&self) {
        self.outer.resume();
        self.inner.resume();
    }

    /// Whether no guard is left to end what they have started.
    pub(crate) fn are_dead(&self) -> bool {
        self.inner.is_dead() && self.outer.is_dead()
    }

    /// A pidfd of the outer guard, for a `poll`.
    pub(crate) fn outer_poll_fd(&self) -> PollFd<'_> {
        self.outer.poll_fd()
    }
}

/// The time after which guards that are waited for are continued the first time, and how it grows.
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) const NEW: Backoff = Backoff(Duration::from_millis(50));

    /// The next deadline, which is not after this one.
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Option<Instant> {
        const MOST: Duration = Duration::from_secs(2);
        let next = Instant::now() + self.0;
        self.0 = (self.0 * 2).min(MOST);
        Some(deadline.map_or(next, |deadline| deadline.min(next)))
    }
}

impl From<Started> for Arc<GuardProcess> {
    fn from(Started { pid, pidfd }: Started) -> Arc<GuardProcess> {
        Arc::new(GuardProcess {
            pid,
            pidfd: Some(pidfd),
            is_outer: true,
            is_ours: AtomicBool::new(true),
        })
    }
}

/// Waits until a guard has ended; whether that came before the deadline.
pub(crate) fn wait_dead(guard: &GuardProcess, deadline: Option<Instant>) -> bool {
    let mut patience = Backoff::NEW;
    while !guard.is_dead() {
        if has_passed(deadline) {
            return false;
        }
        guard.resume();
        wait_for(&mut [guard.poll_fd()], patience.next(deadline));
    }
    true
}

/// In the place of a guard that could not begin.
pub(crate) static NO_PROCESS: GuardProcess =
    GuardProcess { pid: 0, pidfd: None, is_outer: false, is_ours: AtomicBool::new(false) };

pub(crate) fn was_killed() -> io::Error {
    io::Error::other("it was killed before it could greet")
}

/// The pair that has sent this greeting.
pub(crate) fn met(
    hello: &Message,
    mut fds: Vec<OwnedFd>,
    outer: &Arc<GuardProcess>,
) -> io::Result<GuardPair> {
    let [inner, outer_pid] = hello.numbers;
    match (hello.kind, hello.errno, fds.pop()) {
        (protocol::HELLO, 0, Some(pidfd)) => {
            let inner = GuardProcess::inner(inner as i32, pidfd);
            Ok(GuardPair { inner, outer: outer.clone() })
        }
        (protocol::HELLO, 0, None) => Err(io::Error::other("its greeting carried no pidfd")),
        // An outer one that stands alone has an error and a number.
        (protocol::HELLO, _, _) if outer_pid != 0 => {
            Ok(GuardPair { inner: GuardProcess::other(0, None), outer: outer.clone() })
        }
        (protocol::HELLO, errno, _) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(was_killed()),
    }
}
