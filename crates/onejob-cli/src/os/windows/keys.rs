//! Single keys from the console.

use std::{
    io, mem,
    os::windows::io::{AsHandle, AsRawHandle as _, BorrowedHandle},
};

use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, ENABLE_ECHO_INPUT, ENABLE_LINE_INPUT, GetConsoleMode, INPUT_RECORD, KEY_EVENT,
    ReadConsoleInputW, SetConsoleMode,
};

/// Keys from the console on standard input, without echo and without waiting for a line. Dropping it restores the
/// modes of the console.
pub(crate) struct Keys {
    stdin: io::Stdin,
    mode: CONSOLE_MODE,
}

impl Keys {
    /// `None` if standard input is not a console.
    pub(crate) fn new() -> Option<Keys> {
        let stdin = io::stdin();
        let mut mode = 0;
        // SAFETY: the handle is open for the life of the process, and `mode` lives through the call.
        if unsafe { GetConsoleMode(stdin.as_raw_handle(), &raw mut mode) } == 0 {
            return None;
        }
        let raw = mode & !(ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT);
        // SAFETY: it is a console handle, as the call above has shown.
        (unsafe { SetConsoleMode(stdin.as_raw_handle(), raw) } != 0).then_some(Keys { stdin, mode })
    }

    /// The next event of the console: a key that was pressed, 0 for any other event. `None` if it cannot be read.
    pub(crate) fn read(&self) -> Option<u8> {
        // SAFETY: INPUT_RECORD consists of integers and a union of integers, for which zero is valid.
        let mut record: INPUT_RECORD = unsafe { mem::zeroed() };
        let mut count = 0;
        // SAFETY: the handle is open, and both variables live through the call, which writes one record.
        let read = unsafe {
            ReadConsoleInputW(self.stdin.as_raw_handle(), &raw mut record, 1, &raw mut count)
        };
        if read == 0 || count == 0 {
            return None;
        }
        if u32::from(record.EventType) != KEY_EVENT {
            return Some(0);
        }
        // SAFETY: the type of the event says that this field of the union is in use.
        let (is_pressed, unit) = unsafe {
            let key = record.Event.KeyEvent;
            (key.bKeyDown != 0, key.uChar.UnicodeChar)
        };
        Some(if is_pressed { u8::try_from(unit).unwrap_or(0) } else { 0 })
    }
}

impl AsHandle for Keys {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.stdin.as_handle()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // SAFETY: it is a console handle.
        unsafe { SetConsoleMode(self.stdin.as_raw_handle(), self.mode) };
    }
}
