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

/// A timer that is signalled when the file is to be read again. Directory notifications report a write
/// only when the file is closed.
pub(crate) struct FileWatch(OwnedHandle);

impl FileWatch {
    pub(crate) fn new(_: &Path) -> io::Result<FileWatch> {
        const MILLISECONDS: i32 = 100;
        // SAFETY: null attributes and a null name are allowed; the handle is not inheritable. The timer
        // resets itself.
        let timer = unsafe { CreateWaitableTimerW(ptr::null(), 0, ptr::null()) };
        if timer.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so the handle is open, and no other value owns it.
        let timer = unsafe { OwnedHandle::from_raw_handle(timer) };
        // In units of 100 ns, from now.
        let first = -10_000 * i64::from(MILLISECONDS);
        // SAFETY: `timer` is open, `first` lives through the call, and no completion routine is given.
        let set = unsafe {
            let raw = timer.as_raw_handle();
            SetWaitableTimer(raw, &raw const first, MILLISECONDS, None, ptr::null(), 0)
        };
        if set == 0 { Err(io::Error::last_os_error()) } else { Ok(FileWatch(timer)) }
    }

    /// The timer resets itself. A closed standard output is noticed by the next write.
    pub(crate) fn reset(&self) -> bool {
        true
    }
}

impl AsHandle for FileWatch {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.as_handle()
    }
}
