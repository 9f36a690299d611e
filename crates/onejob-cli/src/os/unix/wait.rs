//! Waiting for one of several events.

pub(crate) use std::os::fd::AsFd as Waitable;
use std::{
    io::{self, PipeReader},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::memory;
use crate::os::{Lifeline, WaitEvent};

/// After this time in a wait, memory is released.
const RELEASE_MEMORY_AFTER: Duration = Duration::from_millis(50);

/// At most this many lifelines are watched.
const MAX_LIFELINES: usize = 2;

/// Sleeps until a descriptor is ready, a lifeline is lost or the deadline expires. If several are
/// ready, the first of this list counts.
pub(crate) fn wait_for(
    first: &impl Waitable,
    second: &impl Waitable,
    lifelines: &[Lifeline],
    deadline: Option<Instant>,
) -> io::Result<WaitEvent> {
    let mut release_at = Some(Instant::now() + RELEASE_MEMORY_AFTER);
    loop {
        let until = [deadline, release_at].into_iter().flatten().min();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // A duration beyond a timespec's range is longer than any wait: no timeout.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds: [_; 2 + MAX_LIFELINES] = std::array::from_fn(|at| match at {
            0 => PollFd::new(first, PollFlags::IN),
            1 => PollFd::new(second, PollFlags::IN),
            // What is not polled is never ready.
            _ => {
                lifelines.get(at - 2).map_or(PollFd::new(second, PollFlags::IN), Lifeline::poll_fd)
            }
        });
        let polled = poll(&mut fds[..2 + lifelines.len()], timeout.as_ref());
        match (polled, fds.each_ref().map(|fd| !fd.revents().is_empty())) {
            (Err(Errno::INTR), _) => {}
            (Err(error), _) => return Err(error.into()),
            (Ok(0), _) if deadline.is_some() && until == deadline => {
                return Ok(WaitEvent::Deadline);
            }
            (Ok(0), _) => {
                release_at = None;
                memory::release_program_pages();
            }
            (Ok(_), [true, ..]) => return Ok(WaitEvent::First),
            (Ok(_), [_, true, ..]) => return Ok(WaitEvent::Second),
            (Ok(_), _) => return Ok(WaitEvent::LifelineLost),
        }
    }
}

/// Becomes readable when the thread is done.
pub(crate) type Completion = PipeReader;

/// Runs `work` in a new thread; the pipe hangs up when it is done.
pub(crate) fn spawn_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<(JoinHandle<T>, Completion)> {
    let (completion, running) = io::pipe()?;
    let run = move || {
        let result = work();
        drop(running);
        result
    };
    thread::Builder::new().spawn(run).map(|thread| (thread, completion))
}
