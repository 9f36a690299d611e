//! Sleeping until something happens.

pub(crate) use std::os::windows::io::AsHandle as Waitable;
use std::{
    io,
    os::windows::io::{AsRawHandle as _, OwnedHandle},
    thread::{self, JoinHandle},
    time::Instant,
};

use windows_sys::Win32::{
    Foundation::{WAIT_FAILED, WAIT_OBJECT_0},
    System::Threading::WaitForMultipleObjects,
};

use crate::os::{Event, Lifeline};

/// Sleeps until a handle is signalled or the time is over; the first one goes first.
pub(crate) fn wait_for(
    first: &impl Waitable,
    second: &impl Waitable,
    lifeline: Option<&Lifeline>,
    deadline: Option<Instant>,
) -> io::Result<Event> {
    const SECOND: u32 = WAIT_OBJECT_0 + 1;
    if lifeline.is_some_and(Lifeline::is_cut) {
        return Ok(Event::Cut);
    }
    let handles = [first.as_handle().as_raw_handle(), second.as_handle().as_raw_handle()];
    loop {
        // SAFETY: both handles are borrowed for the time of the call, and there are two.
        let woken =
            unsafe { WaitForMultipleObjects(2, handles.as_ptr(), 0, milliseconds_until(deadline)) };
        match woken {
            WAIT_OBJECT_0 => return Ok(Event::First),
            SECOND => return Ok(Event::Second),
            WAIT_FAILED => return Err(io::Error::last_os_error()),
            _ if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                return Ok(Event::Deadline);
            }
            // The longest time the call knows is over, and not yet ours.
            _ => {}
        }
    }
}

/// Rounded up so that it does not wake too early; the greatest number would mean for ever.
fn milliseconds_until(deadline: Option<Instant>) -> u32 {
    let Some(deadline) = deadline else { return u32::MAX };
    let left = deadline.saturating_duration_since(Instant::now());
    u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u32::MAX).min(u32::MAX - 1)
}

/// A thread's handle, which is signalled when it has ended.
pub(crate) type Ended = OwnedHandle;

/// Does something in a thread of its own.
pub(crate) fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<(JoinHandle<T>, Ended)> {
    let thread = thread::Builder::new().spawn(work)?;
    let ended = thread.as_handle().try_clone_to_owned()?;
    Ok((thread, ended))
}
