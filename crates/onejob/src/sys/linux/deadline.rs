//! Waiting until a deadline.

use std::time::{Duration, Instant};

use super::nostd::syscall::{self, PollFd};

/// A kill that makes no progress fails after this time.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Milliseconds until a deadline for `poll`, rounded up so that it does not return too early; -1 for no
/// deadline.
pub(crate) fn milliseconds_until(deadline: Option<Instant>) -> i32 {
    let Some(deadline) = deadline else { return -1 };
    let left = deadline.saturating_duration_since(Instant::now());
    i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// Whether the deadline has passed; `None` never passes.
pub(crate) fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// Waits until one of the descriptors is ready or the deadline has passed.
pub(crate) fn wait_for(fds: &mut [PollFd], deadline: Option<Instant>) {
    syscall::poll(fds, milliseconds_until(deadline));
}
