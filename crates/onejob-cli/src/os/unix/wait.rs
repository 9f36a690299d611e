//! Sleeping until something happens.

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
use crate::os::{Event, Lifeline};

/// A wait that lasts longer is worth being small for.
const HASTE: Duration = Duration::from_millis(50);

/// Sleeps until a descriptor is ready, the lifeline is cut or the time is over; what is named first
/// goes first.
pub(crate) fn wait_for(
    first: &impl Waitable,
    second: &impl Waitable,
    lifeline: Option<&Lifeline>,
    deadline: Option<Instant>,
) -> io::Result<Event> {
    let mut calm = Some(Instant::now() + HASTE);
    loop {
        let until = [deadline, calm].into_iter().flatten().min();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // What does not fit is longer than anybody waits.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let unwatched = PollFd::new(second, PollFlags::IN);
        let mut fds = [
            PollFd::new(first, PollFlags::IN),
            PollFd::new(second, PollFlags::IN),
            lifeline.map_or(unwatched, Lifeline::polled),
        ];
        // Polled twice, one descriptor may be ready in its second place only.
        let watched = if lifeline.is_some() { 3 } else { 2 };
        let polled = poll(&mut fds[..watched], timeout.as_ref());
        match (polled, fds.each_ref().map(|fd| !fd.revents().is_empty())) {
            (Err(Errno::INTR), _) => {}
            (Err(error), _) => return Err(error.into()),
            (Ok(0), _) if deadline.is_some() && until == deadline => return Ok(Event::Deadline),
            (Ok(0), _) => {
                calm = None;
                memory::give_back_program();
            }
            (Ok(_), [true, ..]) => return Ok(Event::First),
            (Ok(_), [_, true, _]) => return Ok(Event::Second),
            (Ok(_), _) => return Ok(Event::Cut),
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
