//! Where the program begins. Not in Rust's runtime: to catch an overflow of the stack, that reads
//! `/proc/self/maps`, maps memory and unmaps it again, which takes longer than reading our arguments.

use std::{
    ffi::{CStr, OsStr, OsString, c_char, c_int},
    os::unix::ffi::OsStrExt as _,
    sync::OnceLock,
};

use crate::exit::Exit;

static ARGS: OnceLock<Vec<&OsStr>> = OnceLock::new();

/// What we were called with, our name first.
pub(crate) fn args() -> impl Iterator<Item = OsString> {
    ARGS.get().into_iter().flatten().map(|word| (*word).to_owned())
}

/// # Safety
/// As the C library calls it: once, before any other thread, with that many strings.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code, reason = "the test harness has its own"))]
unsafe extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    super::signals::begin();
    hold_closed_streams();
    let words = (0..count as usize).map(|at| {
        // SAFETY: the caller's; nobody changes them, and they live as long as the process.
        OsStr::from_bytes(unsafe { CStr::from_ptr(*words.add(at)) }.to_bytes())
    });
    let _ = ARGS.set(words.collect());
    crate::begin()
}

/// No file of ours may get the number of a standard stream that is closed. CMD must find it closed
/// all the same, so the substitute does not survive an exec.
fn hold_closed_streams() {
    for stream in 0..3 {
        // SAFETY: plain system calls on numbers. A number that is not open belongs to nobody yet.
        unsafe {
            if libc::fcntl(stream, libc::F_GETFD) == -1
                && libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) == -1
            {
                // Nor is there anywhere to say so.
                libc::_exit(Exit::Ours.code());
            }
        }
    }
}
