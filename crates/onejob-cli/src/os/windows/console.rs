//! Restores the modes of the console.

use std::{
    fs::File,
    os::windows::io::{AsRawHandle as _, OwnedHandle},
};

use onejob::Job;
use windows_sys::Win32::System::Console::{CONSOLE_MODE, GetConsoleMode, SetConsoleMode};

/// The console of this process: its input and output with their modes.
pub(crate) struct Terminal(Vec<(OwnedHandle, CONSOLE_MODE)>);

impl Terminal {
    /// `None` without a console.
    pub(crate) fn in_foreground() -> Option<Terminal> {
        let ends = ["CONIN$", "CONOUT$"].into_iter().filter_map(|name| {
            let end = File::options().read(true).write(true).open(name).ok()?;
            let mut mode = 0;
            // SAFETY: `end` is an open handle, and `mode` lives through the call.
            let known = unsafe { GetConsoleMode(end.as_raw_handle(), &raw mut mode) } != 0;
            known.then(|| (end.into(), mode))
        });
        let ends: Vec<_> = ends.collect();
        (!ends.is_empty()).then_some(Terminal(ends))
    }

    /// Restores the modes if `with_modes` is set. A console has no foreground process group.
    pub(crate) fn restore(&self, _: &Job, with_modes: bool) {
        for (end, mode) in self.0.iter().filter(|_| with_modes) {
            // SAFETY: `end` is an open console handle.
            unsafe { SetConsoleMode(end.as_raw_handle(), *mode) };
        }
    }
}
