//! The console's modes are put back as they were found.

use std::{
    fs::File,
    os::windows::io::{AsRawHandle as _, OwnedHandle},
};

use onejob::Job;
use windows_sys::Win32::System::Console::{CONSOLE_MODE, GetConsoleMode, SetConsoleMode};

/// The console we are in.
pub(crate) struct Terminal(Vec<(OwnedHandle, CONSOLE_MODE)>);

impl Terminal {
    /// The console, if there is one.
    pub(crate) fn held() -> Option<Terminal> {
        let halves = ["CONIN$", "CONOUT$"].into_iter().filter_map(|name| {
            let half = File::options().read(true).write(true).open(name).ok()?;
            let mut mode = 0;
            // SAFETY: an open handle and a number to write to.
            let known = unsafe { GetConsoleMode(half.as_raw_handle(), &raw mut mode) } != 0;
            known.then(|| (half.into(), mode))
        });
        let halves: Vec<_> = halves.collect();
        (!halves.is_empty()).then_some(Terminal(halves))
    }

    /// Puts the modes back if they are to be restored. There is no foreground to take back.
    pub(crate) fn give_back(&self, _: &Job, with_modes: bool) {
        for (half, mode) in self.0.iter().filter(|_| with_modes) {
            // SAFETY: an open handle of a console.
            unsafe { SetConsoleMode(half.as_raw_handle(), *mode) };
        }
    }
}
