//! The start of the process, instead of Rust's runtime: that prepares for a stack overflow by reading
//! `/proc/self/maps` and mapping memory, which takes longer than parsing the arguments.

use std::{
    ffi::{CStr, OsStr, OsString, c_char, c_int},
    os::unix::ffi::OsStrExt as _,
    sync::OnceLock,
};

static ARGS: OnceLock<Vec<&OsStr>> = OnceLock::new();

/// The argument vector, with the program's name first.
pub(crate) fn args() -> impl Iterator<Item = OsString> {
    ARGS.get().into_iter().flatten().map(|arg| (*arg).to_owned())
}

/// Saves the inherited signal settings and the argument vector, and opens closed standard streams.
///
/// # Safety
/// To be called once, before any other thread exists, with the argument vector of the process.
#[cfg_attr(test, allow(dead_code, reason = "the test harness has its own entry point"))]
pub(crate) unsafe fn init_process(argc: c_int, argv: *const *const c_char) {
    super::signals::save_inherited();
    open_closed_streams();
    let args = (0..argc as usize).map(|at| {
        // SAFETY: `argv` has `argc` strings, which are not changed and live as long as the process.
        OsStr::from_bytes(unsafe { CStr::from_ptr(*argv.add(at)) }.to_bytes())
    });
    let _ = ARGS.set(args.collect());
}

/// Opens `/dev/null` for each closed standard stream, so that no other file gets its number. It is
/// closed on exec: CMD finds the stream closed.
fn open_closed_streams() {
    /// The status of an internal failure. No message can be printed yet.
    const INTERNAL_ERROR: c_int = 125;
    for stream in 0..3 {
        // SAFETY: F_GETFD changes nothing. `open` returns the lowest free number, which is `stream`:
        // the lower ones are open by now, and no other thread can take it.
        unsafe {
            if libc::fcntl(stream, libc::F_GETFD) == -1
                && libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) == -1
            {
                libc::_exit(INTERNAL_ERROR);
            }
        }
    }
}
