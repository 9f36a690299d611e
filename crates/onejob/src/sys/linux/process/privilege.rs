//! Which processes this one, or a guard, may signal: a matter of capabilities and user namespaces, not
//! of being root. Uid 0 without `CAP_KILL` (a container's root, for example) reaches its own user only.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::thread::{CapabilitySet, capabilities};

use crate::sys::linux::{
    file::read_proc,
    nostd::syscall::{
        self, Errno,
        raw::{nr, syscall},
    },
};

/// Whether the calling thread may signal the processes of every user of its user namespace.
pub(crate) fn crosses_users() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::KILL))
}

/// Whether another process may do so in the user namespace of the calling thread. The program of a guard
/// has the capabilities that an `execve` leaves: not always those of the process that started it.
pub(crate) fn process_crosses_users(pid: i32) -> bool {
    const CAP_KILL: u64 = 5;
    let effective = read_proc(&format!("/proc/{pid}/status")).ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    let namespace = |entry: &str| rustix::fs::stat(format!("/proc/{entry}/ns/user"));
    let is_ours = match (namespace("thread-self"), namespace(&pid.to_string())) {
        (Ok(ours), Ok(its)) => (ours.st_dev, ours.st_ino) == (its.st_dev, its.st_ino),
        _ => false,
    };
    is_ours && effective.is_some_and(|set| set & 1 << CAP_KILL != 0)
}

/// Whether a signal to a process is allowed at all: seccomp filters, security modules and a change of
/// user can forbid it. A process that has ended does not matter.
pub(crate) fn may_signal(pidfd: BorrowedFd<'_>) -> bool {
    matches!(syscall::pidfd_send_signal(pidfd.as_raw_fd(), 0), Ok(()) | Err(Errno::SRCH))
}

/// Whether the calling thread may examine a process (`PTRACE_MODE_READ`, `ptrace(2)`). A process that has
/// ended does not matter.
pub(crate) fn may_examine(pid: i32) -> bool {
    let (mut head, mut len) = (0_usize, 0_usize);
    let (head, len) = (&raw mut head as usize, &raw mut len as usize);
    // SAFETY: the kernel writes an address and a length, of which no use is made.
    let read = unsafe { syscall(nr::GET_ROBUST_LIST, [pid as usize, head, len, 0, 0, 0]) };
    read != Err(Errno::PERM)
}
