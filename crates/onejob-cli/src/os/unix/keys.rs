//! Single keys from the terminal.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    process::getpgrp,
    stdio::stdin,
    termios::{
        LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
    },
};

/// Keys from the terminal on standard input, without echo and without waiting for a line. Dropping it restores the
/// modes of the terminal.
pub(crate) struct Keys {
    modes: Termios,
}

impl Keys {
    /// `None` if standard input is not a terminal with this process in its foreground.
    pub(crate) fn new() -> Option<Keys> {
        let modes = tcgetattr(stdin()).ok()?;
        // In the background, tcsetattr would stop this process.
        if tcgetpgrp(stdin()).ok()? != getpgrp() {
            return None;
        }
        let mut raw = modes.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Keys { modes })
    }

    /// The next byte; `None` at the end of the input.
    pub(crate) fn read(&self) -> Option<u8> {
        let mut byte = [0];
        loop {
            match rustix::io::read(stdin(), &mut byte).map_err(io::Error::from) {
                Ok(1) => return Some(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return None,
            }
        }
    }
}

impl AsFd for Keys {
    fn as_fd(&self) -> BorrowedFd<'_> {
        stdin()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // In the background it would stop this process; then the foreground process has its own modes.
        super::signals::while_blocked(onejob::Signal::TTOU, || {
            if tcgetpgrp(stdin()).is_ok_and(|group| group == getpgrp()) {
                let _ = tcsetattr(stdin(), OptionalActions::Now, &self.modes);
            }
        });
    }
}
