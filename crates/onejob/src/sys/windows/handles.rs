//! Handles: text for the calls, waiting, copying.

use std::{
    ffi::OsStr,
    io,
    os::windows::{
        ffi::OsStrExt as _,
        io::{AsRawHandle as _, BorrowedHandle, FromRawHandle as _, OwnedHandle},
    },
    time::Instant,
};

use windows_sys::Win32::{
    Foundation::{DUPLICATE_SAME_ACCESS, DuplicateHandle, HANDLE, WAIT_FAILED, WAIT_OBJECT_0},
    System::Threading::{GetCurrentProcess, WaitForMultipleObjects},
};

/// Text as the calls want it, with a NUL at its end.
pub(super) fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

/// What a call gave that answers null for a failure.
pub(super) fn owned(handle: HANDLE) -> io::Result<OwnedHandle> {
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: callers pass what a call has just opened for them.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// What a call answered that answers 0 for a failure.
pub(super) fn check(answer: i32) -> io::Result<()> {
    if answer == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A copy that children may inherit.
pub(super) fn inheritable(handle: HANDLE) -> io::Result<OwnedHandle> {
    let mut copy = std::ptr::null_mut();
    // SAFETY: if the handle is none of ours, the call says so; the copy is written on success.
    check(unsafe {
        let us = GetCurrentProcess();
        DuplicateHandle(us, handle, us, &raw mut copy, 0, 1, DUPLICATE_SAME_ACCESS)
    })?;
    owned(copy)
}

/// Waits until one of them is signalled or the deadline has passed; which one.
pub(super) fn wait_any(
    handles: &[BorrowedHandle<'_>],
    deadline: Option<Instant>,
) -> io::Result<Option<usize>> {
    let raw: Vec<_> = handles.iter().map(|handle| handle.as_raw_handle()).collect();
    loop {
        // SAFETY: as many handles as are said, borrowed for the time of the call.
        let woken = unsafe {
            let (count, all) = (raw.len() as u32, 0);
            WaitForMultipleObjects(count, raw.as_ptr(), all, milliseconds_until(deadline))
        };
        match woken.wrapping_sub(WAIT_OBJECT_0) as usize {
            index if index < raw.len() => return Ok(Some(index)),
            _ if woken == WAIT_FAILED => return Err(io::Error::last_os_error()),
            _ if has_passed(deadline) => return Ok(None),
            // The longest time the call knows is over, and not yet ours.
            _ => {}
        }
    }
}

/// Whether a process has ended, an event has come.
pub(super) fn is_signalled(handle: BorrowedHandle<'_>) -> bool {
    wait_any(&[handle], Some(Instant::now())).is_ok_and(|woken| woken.is_some())
}

/// Whether a deadline has passed; one that is none never does.
pub(super) fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// Rounded up so that it does not wake too early; the greatest number would mean for ever.
pub(super) fn milliseconds_until(deadline: Option<Instant>) -> u32 {
    let Some(deadline) = deadline else { return u32::MAX };
    let left = deadline.saturating_duration_since(Instant::now());
    u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u32::MAX).min(u32::MAX - 1)
}
