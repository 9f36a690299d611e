//! Sleeping until something happens.

pub(crate) use std::os::fd::AsFd as Waitable;
use std::{
    io::{self, PipeReader},
    thread::{self, JoinHandle},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::os::Event;

/// Sleeps until a descriptor is ready or the time is over; the first one goes first.
pub(crate) fn wait_for(
    first: &impl Waitable,
    second: &impl Waitable,
    deadline: Option<Instant>,
) -> io::Result<Event> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // What does not fit is longer than anybody waits.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::new(first, PollFlags::IN), PollFd::new(second, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(Event::First),
            Ok(0) => return Ok(Event::Deadline),
            Ok(_) => return Ok(Event::Second),
        }
    }
}

/// Becomes readable when the work is done.
pub(crate) type Ended = PipeReader;

/// Does something in a thread of its own; the pipe hangs up when it is done.
pub(crate) fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<(JoinHandle<T>, Ended)> {
    let (ended, running) = io::pipe()?;
    let carry_out = move || {
        let result = work();
        drop(running);
        result
    };
    thread::Builder::new().spawn(carry_out).map(|thread| (thread, ended))
}
