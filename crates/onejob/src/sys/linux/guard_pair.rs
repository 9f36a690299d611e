//! The two guards of an owner as processes: known by their pidfds, continued, waited for and reaped.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    floor::{
        call::{self, POLLIN, PollFd, SIGCONT},
        message::{self, Message},
    },
    is_past,
    launch::Started,
    unwaited, wait_for,
};

/// Two guards, as far as they are known.
pub(super) struct Pair {
    pub(super) inner: Process,
    pub(super) outer: Arc<Process>,
}

/// One guard.
pub(super) struct Process {
    pub(super) pid: i32,
    /// `None` if it had ended before we could see it.
    pub(super) pidfd: Option<OwnedFd>,
    is_outer: bool,
    /// Whether it is a child of this process, or can become one.
    is_ours: AtomicBool,
}

impl Process {
    /// The inner guard of this process.
    pub(super) fn inner(pid: i32, pidfd: OwnedFd) -> Process {
        Process { pid, pidfd: Some(pidfd), is_outer: false, is_ours: AtomicBool::new(true) }
    }

    /// A guard of another process, or none.
    pub(super) fn other(pid: i32, pidfd: Option<OwnedFd>) -> Process {
        Process { pid, pidfd, is_outer: false, is_ours: AtomicBool::new(false) }
    }

    pub(super) fn raw(&self) -> i32 {
        self.pidfd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    pub(super) fn is_dead(&self) -> bool {
        let is_dead = self.pidfd.is_none() || call::is_dead(self.raw());
        if is_dead {
            self.reap();
        }
        is_dead
    }

    /// Below a subreaper or PID 1 a guard becomes a child of that process when its parent ends: the outer
    /// one at its birth, the inner one only if it outlives that. Whether it is a living one of this
    /// process; a dead one is reaped.
    pub(super) fn reap(&self) -> bool {
        if !self.is_ours.load(Ordering::Relaxed) || self.pidfd.is_none() {
            return false;
        }
        let reaped = call::reap(self.raw(), false);
        let can_still_come = reaped.is_err() && !self.is_outer;
        self.is_ours.store(matches!(reaped, Ok(None)) || can_still_come, Ordering::Relaxed);
        matches!(reaped, Ok(None))
    }

    /// In vain if it has ended.
    pub(super) fn go_on(&self) {
        if self.pidfd.is_some() {
            let _ = call::pidfd_send_signal(self.raw(), SIGCONT);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reap()
            && let Some(pidfd) = self.pidfd.take()
        {
            unwaited::leave(pidfd.into());
        }
    }
}

impl Pair {
    /// Has both go on that were stopped. A guard does not notice that it was, no event tells us, and
    /// whoever can signal it can stop it: so it is done now and then while something is waited for.
    pub(super) fn go_on(&self) {
        self.outer.go_on();
        self.inner.go_on();
    }

    /// Whether no guard is left to end what they have started.
    pub(super) fn are_dead(&self) -> bool {
        self.inner.is_dead() && self.outer.is_dead()
    }

    /// A pidfd of the outer guard, for a `poll`.
    pub(super) fn outer_poll_fd(&self) -> PollFd {
        PollFd::new(self.outer.raw(), POLLIN)
    }
}

/// The time after which guards that are waited for are continued the first time, and how it grows.
pub(super) struct Patience(Duration);

impl Patience {
    pub(super) const NEW: Patience = Patience(Duration::from_millis(50));

    /// The next deadline, which is not after this one.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> Option<Instant> {
        const MOST: Duration = Duration::from_secs(2);
        let next = Instant::now() + self.0;
        self.0 = (self.0 * 2).min(MOST);
        Some(deadline.map_or(next, |deadline| deadline.min(next)))
    }
}

impl From<Started> for Arc<Process> {
    fn from(Started { pid, pidfd }: Started) -> Arc<Process> {
        Arc::new(Process {
            pid,
            pidfd: Some(pidfd),
            is_outer: true,
            is_ours: AtomicBool::new(true),
        })
    }
}

/// Waits until a guard has ended; whether that came before the deadline.
pub(super) fn wait_for_end(guard: &Process, deadline: Option<Instant>) -> bool {
    let mut patience = Patience::NEW;
    while !guard.is_dead() {
        if is_past(deadline) {
            return false;
        }
        guard.go_on();
        wait_for(&mut [PollFd::new(guard.raw(), POLLIN)], patience.next(deadline));
    }
    true
}

/// In the place of a guard that could not begin.
pub(super) static NOBODY: Process =
    Process { pid: 0, pidfd: None, is_outer: false, is_ours: AtomicBool::new(false) };

pub(super) fn was_killed() -> io::Error {
    io::Error::other("it was killed before it could greet")
}

/// The pair that has sent this greeting.
pub(super) fn met(
    hello: &Message,
    mut fds: Vec<OwnedFd>,
    outer: &Arc<Process>,
) -> io::Result<Pair> {
    let [inner, outer_pid] = hello.numbers;
    match (hello.kind, hello.errno, fds.pop()) {
        (message::HELLO, 0, Some(pidfd)) => {
            let inner = Process::inner(inner as i32, pidfd);
            Ok(Pair { inner, outer: outer.clone() })
        }
        (message::HELLO, 0, None) => Err(io::Error::other("its greeting carried no pidfd")),
        // An outer one that stands alone has an error and a number.
        (message::HELLO, _, _) if outer_pid != 0 => {
            Ok(Pair { inner: Process::other(0, None), outer: outer.clone() })
        }
        (message::HELLO, errno, _) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(was_killed()),
    }
}
