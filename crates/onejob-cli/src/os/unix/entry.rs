//! The start of the process, instead of Rust's runtime: that prepares for a stack overflow by reading
//! `/proc/self/maps` and mapping memory, which takes longer than parsing the arguments.

use std::{
    ffi::{CStr, OsStr, OsString, c_char, c_int},
    os::unix::ffi::OsStrExt as _,
    sync::OnceLock,
};

/// The status of an internal failure, before anything can be reported.
const INTERNAL_ERROR: c_int = 125;

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
    check_stack();
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

/// With a smaller stack the kernel would end this process without a message.
fn check_stack() {
    const MIN_STACK: libc::rlim_t = if cfg!(debug_assertions) { 1 << 20 } else { 96 << 10 };
    const MESSAGE: &[u8] =
        b"onejob: failed to start: the stack limit (RLIMIT_STACK) is too small\n\
        hint: raise it: ulimit -s 1024\n";
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call fills in a live structure.
    unsafe { libc::getrlimit(libc::RLIMIT_STACK, &mut limit) };
    if limit.rlim_cur < MIN_STACK {
        // SAFETY: the bytes are static.
        unsafe {
            libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
            libc::_exit(INTERNAL_ERROR);
        }
    }
}

/// Opens `/dev/null` for each closed standard stream, so that no other file gets its number. It is
/// closed on exec: CMD finds the stream closed.
fn open_closed_streams() {
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
