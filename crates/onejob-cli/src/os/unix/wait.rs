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

/// Sleeps until a descriptor is ready, the lifeline is lost or the deadline expires. If several are
/// ready, the first of this list counts.
pub(crate) fn wait_for(
    first: &impl Waitable,
    second: &impl Waitable,
    lifeline: Option<&Lifeline>,
    deadline: Option<Instant>,
) -> io::Result<WaitEvent> {
    let mut release_at = Some(Instant::now() + RELEASE_MEMORY_AFTER);
    loop {
        let until = [deadline, release_at].into_iter().flatten().min();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // A duration beyond a timespec's range is longer than any wait: no timeout.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let unused = PollFd::new(second, PollFlags::IN);
        let mut fds = [
            PollFd::new(first, PollFlags::IN),
            PollFd::new(second, PollFlags::IN),
            lifeline.map_or(unused, Lifeline::poll_fd),
        ];
        // A descriptor that is polled twice may be reported in one of its places only.
        let count = if lifeline.is_some() { 3 } else { 2 };
        let polled = poll(&mut fds[..count], timeout.as_ref());
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
            (Ok(_), [_, true, _]) => return Ok(WaitEvent::Second),
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
