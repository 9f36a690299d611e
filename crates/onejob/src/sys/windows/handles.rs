//! Handles: strings for the calls, waiting, duplicating.

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

/// A UTF-16 string with a NUL at its end, as the calls expect.
pub(super) fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

/// The result of a call that returns a null handle on failure.
pub(super) fn owned(handle: HANDLE) -> io::Result<OwnedHandle> {
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: callers pass a handle that a call has just opened for them.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// The result of a call that returns 0 on failure.
pub(super) fn check(answer: i32) -> io::Result<()> {
    if answer == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An inheritable duplicate.
pub(super) fn inheritable(handle: HANDLE) -> io::Result<OwnedHandle> {
    let mut copy = std::ptr::null_mut();
    // SAFETY: an invalid handle makes the call fail; the copy is written on success.
    check(unsafe {
        let us = GetCurrentProcess();
        DuplicateHandle(us, handle, us, &raw mut copy, 0, 1, DUPLICATE_SAME_ACCESS)
    })?;
    owned(copy)
}

/// Waits until one of them is signalled or the deadline has passed; returns its index, if any.
pub(super) fn wait_any(
    handles: &[BorrowedHandle<'_>],
    deadline: Option<Instant>,
) -> io::Result<Option<usize>> {
    let raw: Vec<_> = handles.iter().map(|handle| handle.as_raw_handle()).collect();
    loop {
        // SAFETY: the given number of handles, borrowed for the duration of the call.
        let woken = unsafe {
            let (count, all) = (raw.len() as u32, 0);
            WaitForMultipleObjects(count, raw.as_ptr(), all, milliseconds_until(deadline))
        };
        match woken.wrapping_sub(WAIT_OBJECT_0) as usize {
            index if index < raw.len() => return Ok(Some(index)),
            _ if woken == WAIT_FAILED => return Err(io::Error::last_os_error()),
            _ if has_passed(deadline) => return Ok(None),
            // The longest timeout of the call has passed, but the deadline has not.
            _ => {}
        }
    }
}

/// Whether the handle is signalled: a process has ended, or an event is set.
pub(super) fn is_signalled(handle: BorrowedHandle<'_>) -> bool {
    wait_any(&[handle], Some(Instant::now())).is_ok_and(|woken| woken.is_some())
}

/// Whether a deadline has passed; `None` never passes.
pub(super) fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// The milliseconds until the deadline, rounded up so that a wait does not end too early. Less than
/// `u32::MAX`, which means no timeout, unless there is no deadline.
pub(super) fn milliseconds_until(deadline: Option<Instant>) -> u32 {
    let Some(deadline) = deadline else { return u32::MAX };
    let left = deadline.saturating_duration_since(Instant::now());
    u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u32::MAX).min(u32::MAX - 1)
}
