//! Signal masks, dispositions and signalfds of the calling process.

use super::{
    errno::Result,
    fd::{OwnedFd, syscall_fd},
    raw::{nr, syscall},
};

pub(crate) const SIGKILL: i32 = 9;
pub(crate) const SIGPIPE: i32 = 13;
pub(crate) const SIGCHLD: i32 = 17;
pub(crate) const SIGCONT: i32 = 18;
pub(crate) const SIGSTOP: i32 = 19;

/// How many bytes a signal set of the kernel has.
const SET: usize = 8;

/// Sets the signal mask of the calling thread and returns the old one.
pub(crate) fn set_mask(mask: u64) -> u64 {
    const SIG_SETMASK: usize = 2;
    let mut old = 0_u64;
    let (new_at, old_at) = (&raw const mask as usize, &raw mut old as usize);
    // SAFETY: both point to signal sets of 8 bytes, whose size is passed.
    let _ = unsafe { syscall(nr::RT_SIGPROCMASK, [SIG_SETMASK, new_at, old_at, SET, 0, 0]) };
    old
}

/// Sets the disposition of every signal: ignored if it is in `ignored`, otherwise default. Leaves 32 and 33
/// as they are: they belong to the C library, and std leaves them, too.
pub(crate) fn set_dispositions(ignored: u64) {
    for signal in (1..=31).chain(34..=64) {
        set_disposition(signal, ignored & (1 << (signal - 1)) != 0);
    }
}

/// Makes a signal ignored or gives it its default action. Fails without effect for KILL and STOP.
pub(crate) fn set_disposition(signal: i32, ignored: bool) {
    let action = [usize::from(ignored), 0, 0, 0];
    let at = action.as_ptr() as usize;
    // SAFETY: the kernel reads one sigaction: a handler (0 default, 1 ignore), flags, a restorer where
    // the architecture has one, and a mask of 8 bytes. These are at most the four words of `action`.
    let _ = unsafe { syscall(nr::RT_SIGACTION, [signal as usize, at, 0, SET, 0, 0]) };
}

/// Whether a signal is ignored.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let mut action = [0_usize; 4];
    let at = action.as_mut_ptr() as usize;
    // SAFETY: the kernel writes one sigaction, which has at most the four words of `action`.
    let _ = unsafe { syscall(nr::RT_SIGACTION, [signal as usize, 0, at, SET, 0, 0]) };
    action[0] == 1
}

/// A descriptor that is readable while a blocked signal of the set is pending.
pub(crate) fn signalfd(set: u64) -> Result<OwnedFd> {
    const NONBLOCK_CLOEXEC: usize = 0o2004000;
    const NEW: usize = usize::MAX;
    let at = &raw const set as usize;
    // SAFETY: the kernel reads a signal set of 8 bytes, whose size is passed, and returns a new descriptor.
    unsafe { syscall_fd(nr::SIGNALFD4, [NEW, at, SET, NONBLOCK_CLOEXEC, 0, 0]) }
}
