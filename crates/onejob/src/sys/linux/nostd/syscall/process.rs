//! The calling process: its pid, group, session and directory, and the release of its kernel.

use core::ffi::CStr;

use super::{
    errno::Result,
    raw::{nr, syscall},
};

pub(crate) const PR_SET_NAME: usize = 15;
pub(crate) const PR_SET_CHILD_SUBREAPER: usize = 36;

pub(crate) fn getpid() -> i32 {
    // SAFETY: no pointer is passed.
    unsafe { syscall(nr::GETPID, [0; 6]) }.unwrap_or(0) as i32
}

/// The process group; 0 if its leader is not in this PID namespace.
pub(crate) fn own_group() -> i32 {
    // SAFETY: no pointer is passed.
    unsafe { syscall(nr::GETPGID, [0; 6]) }.unwrap_or(0) as i32
}

/// Moves this process to a process group of its session, or to a new one (0).
pub(crate) fn join_group(group: i32) {
    // SAFETY: no pointer is passed.
    let _ = unsafe { syscall(nr::SETPGID, [0, group as usize, 0, 0, 0, 0]) };
}

/// The session of a process (0: of this process); 0 if its leader is not in this PID namespace.
pub(crate) fn session_of(pid: i32) -> i32 {
    // SAFETY: no pointer is passed.
    unsafe { syscall(nr::GETSID, [pid as usize, 0, 0, 0, 0, 0]) }.unwrap_or(0) as i32
}

/// Moves this process to a new session. Fails if it leads a process group.
pub(crate) fn setsid() -> Result<()> {
    // SAFETY: no pointer is passed.
    unsafe { syscall(nr::SETSID, [0; 6]) }.map(drop)
}

pub(crate) fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: the path ends with NUL.
    unsafe { syscall(nr::CHDIR, [path.as_ptr() as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

pub(crate) fn prctl(option: usize, argument: usize) -> Result<()> {
    // SAFETY: used with options that take a number or a static name.
    unsafe { syscall(nr::PRCTL, [option, argument, 0, 0, 0, 0]) }.map(drop)
}

pub(crate) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: no pointer is passed, and the call does not return.
        let _ = unsafe { syscall(nr::EXIT_GROUP, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Whether the kernel has this release or a later one.
pub(crate) fn is_release(major: u32, minor: u32) -> bool {
    const FIELD: usize = 65;
    const RELEASE: usize = 2;
    let mut names = [0_u8; 6 * FIELD];
    let at = names.as_mut_ptr() as usize;
    // SAFETY: the kernel writes one utsname: six names of 65 bytes.
    if unsafe { syscall(nr::UNAME, [at, 0, 0, 0, 0, 0]) }.is_err() {
        return false;
    }
    let release = names.get(RELEASE * FIELD..).unwrap_or(&[]);
    let mut numbers = release.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        let digit =
            |number: u32, digit: &u8| number.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'));
        digits.iter().fold(0, digit)
    });
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}
