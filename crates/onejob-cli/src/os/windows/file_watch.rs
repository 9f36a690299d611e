//! Waiting for a file to grow.

use std::{
    io,
    os::windows::io::{
        AsHandle, AsRawHandle as _, BorrowedHandle, FromRawHandle as _, OwnedHandle,
    },
    path::Path,
    ptr,
};

use windows_sys::Win32::System::Threading::{CreateWaitableTimerW, SetWaitableTimer};

/// Signalled when it is time to look again: a folder's notifications tell of a file that somebody
/// goes on writing only when it is closed.
pub(crate) struct Changes(OwnedHandle);

impl Changes {
    pub(crate) fn of(_: &Path) -> io::Result<Changes> {
        const MILLISECONDS: i32 = 100;
        // SAFETY: no name and no attributes: a handle that no child inherits. It resets itself.
        let timer = unsafe { CreateWaitableTimerW(ptr::null(), 0, ptr::null()) };
        if timer.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so this is an open handle that nobody else owns.
        let timer = unsafe { OwnedHandle::from_raw_handle(timer) };
        // In units of 100 ns, from now.
        let first = -10_000 * i64::from(MILLISECONDS);
        // SAFETY: an open timer, a number that lives through the call, and nothing to be called.
        let set = unsafe {
            let raw = timer.as_raw_handle();
            SetWaitableTimer(raw, &raw const first, MILLISECONDS, None, ptr::null(), 0)
        };
        if set == 0 { Err(io::Error::last_os_error()) } else { Ok(Changes(timer)) }
    }

    /// It has reset itself; a reader that has gone shows when it is written to.
    pub(crate) fn forget(&self) -> bool {
        true
    }
}

impl AsHandle for Changes {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.as_handle()
    }
}
