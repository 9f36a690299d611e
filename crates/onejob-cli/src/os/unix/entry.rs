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

/// The entries of the environment that are no variables, which `std::env` does not show: those without a
/// `=` after their first byte.
static ODD_ENTRIES: OnceLock<Vec<&OsStr>> = OnceLock::new();

/// What CMD gets of the environment besides variables, as it would from env(1).
pub(super) fn odd_entries() -> impl Iterator<Item = &'static OsStr> {
    ODD_ENTRIES.get().into_iter().flatten().copied()
}

/// Saves the inherited signal settings, the argument vector and odd entries of the environment, and opens closed standard streams.
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
    // SAFETY: no other thread exists that could change it.
    let _ = ODD_ENTRIES.set(unsafe { find_odd_entries() });
}

/// # Safety
/// No other thread may change the environment meanwhile.
#[cfg_attr(test, allow(dead_code, reason = "the test harness has its own entry point"))]
unsafe fn find_odd_entries() -> Vec<&'static OsStr> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut odd = Vec::new();
    // SAFETY: an array of strings that ends with a null, or none; its strings were laid down by the
    // kernel at the start of the process and stay.
    unsafe {
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            let entry = CStr::from_ptr(*at).to_bytes();
            if !entry.iter().skip(1).any(|byte| *byte == b'=') {
                odd.push(OsStr::from_bytes(entry));
            }
            at = at.add(1);
        }
    }
    odd
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
