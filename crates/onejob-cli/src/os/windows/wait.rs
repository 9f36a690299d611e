//! Waiting for one of several events.

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

use crate::os::{Lifeline, WaitEvent};

/// Sleeps until a handle is signalled, the lifeline is lost or the deadline expires. If several are
/// signalled, the first of this list counts.
pub(crate) fn wait_for(
    first: &impl Waitable,
    second: &impl Waitable,
    lifelines: &[Lifeline],
    deadline: Option<Instant>,
) -> io::Result<WaitEvent> {
    const SECOND: u32 = WAIT_OBJECT_0 + 1;
    const LIFELINE: u32 = WAIT_OBJECT_0 + 2;
    let mut handles = vec![first.as_handle().as_raw_handle(), second.as_handle().as_raw_handle()];
    handles.extend(lifelines.iter().map(|lifeline| lifeline.as_handle().as_raw_handle()));
    loop {
        let (count, timeout) = (handles.len() as u32, milliseconds_until(deadline));
        // SAFETY: `handles` has `count` handles, all of them borrowed for the time of the call.
        let woken = unsafe { WaitForMultipleObjects(count, handles.as_ptr(), 0, timeout) };
        match woken {
            WAIT_OBJECT_0 => return Ok(WaitEvent::First),
            SECOND => return Ok(WaitEvent::Second),
            LIFELINE => return Ok(WaitEvent::LifelineLost),
            WAIT_FAILED => return Err(io::Error::last_os_error()),
            _ if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                return Ok(WaitEvent::Deadline);
            }
            // The longest timeout of the call has expired before the deadline.
            _ => {}
        }
    }
}

/// Rounded up so that the wait does not end early. `u32::MAX` is INFINITE.
fn milliseconds_until(deadline: Option<Instant>) -> u32 {
    let Some(deadline) = deadline else { return u32::MAX };
    let left = deadline.saturating_duration_since(Instant::now());
    u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u32::MAX).min(u32::MAX - 1)
}

/// A thread's handle, which is signalled when the thread has ended.
pub(crate) type Completion = OwnedHandle;

/// Runs `work` in a new thread.
pub(crate) fn spawn_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<(JoinHandle<T>, Completion)> {
    let thread = thread::Builder::new().spawn(work)?;
    let completion = thread.as_handle().try_clone_to_owned()?;
    Ok((thread, completion))
}
