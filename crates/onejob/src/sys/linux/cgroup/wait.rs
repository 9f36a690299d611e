//! Waiting until a cgroup is empty.

use std::{
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use super::job_cgroup::JobCgroup;
use crate::sys::linux::{
    deadline::{has_passed, wait_for},
    nostd::{
        cgroup::{self as nostd_cgroup, Events},
        syscall::{self, Errno, POLLIN, PollFd},
    },
    process::dropped_children,
};

/// Waits until the kernel reports that a cgroup is empty; returns whether it did before the deadline.
pub(crate) fn wait_until_empty(
    cgroup: &JobCgroup,
    deadline: Option<Instant>,
) -> Result<bool, Errno> {
    wait_on(&Events::open(cgroup.dir.as_raw_fd())?, cgroup, deadline)
}

/// The same with the events of the cgroup, which are open already.
pub(crate) fn wait_on(
    events: &Events,
    cgroup: &JobCgroup,
    deadline: Option<Instant>,
) -> Result<bool, Errno> {
    let dir = cgroup.dir.as_raw_fd();
    let grace = EmptyEventGrace::new();
    loop {
        dropped_children::reap();
        if events.is(b"populated 0")? {
            return Ok(true);
        }
        if has_passed(deadline) {
            return Ok(false);
        }
        let (member, deadline) = grace.member(dir, deadline);
        let member = PollFd::maybe(member.as_ref(), POLLIN);
        wait_for(&mut [events.poll_fd(), cgroup.end_poll_fd(), member], deadline);
    }
}

/// The kernel sends two events of a cgroup at least 10 ms apart, so the event of its emptiness comes late
/// if it has just got its first member. A wait also watches a member in its first 20 ms.
struct EmptyEventGrace(Instant);

impl EmptyEventGrace {
    fn new() -> EmptyEventGrace {
        EmptyEventGrace(Instant::now() + Duration::from_millis(20))
    }

    /// The member to watch besides the events, and the end of this wait.
    fn member(
        &self,
        cgroup: i32,
        deadline: Option<Instant>,
    ) -> (Option<syscall::OwnedFd>, Option<Instant>) {
        if has_passed(Some(self.0)) {
            return (None, deadline);
        }
        let member = nostd_cgroup::last_member(cgroup);
        let soon = Instant::now() + Duration::from_millis(1);
        let until = if member.is_some() { self.0 } else { soon };
        (member, Some(deadline.map_or(until, |deadline| deadline.min(until))))
    }
}

/// The pauses of a loop that has no event to wait for: each is twice as long as the one before.
pub(crate) struct Pauses(Duration);

impl Pauses {
    pub(crate) fn new() -> Pauses {
        Pauses(Duration::from_millis(1))
    }

    /// The end of the next pause, at the latest the deadline.
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Option<Instant> {
        let end = Instant::now() + self.0;
        self.0 = (self.0 * 2).min(Duration::from_secs(1));
        Some(deadline.map_or(end, |deadline| deadline.min(end)))
    }
}
