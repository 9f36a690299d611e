//! New processes.

use super::{
    errno::Result,
    fd::OwnedFd,
    raw::{self, nr, syscall},
};

pub(crate) const CLONE_VM: u64 = 0x100;
pub(crate) const CLONE_FILES: u64 = 0x400;
pub(crate) const CLONE_PIDFD: u64 = 0x1000;
pub(crate) const CLONE_VFORK: u64 = 0x4000;
pub(crate) const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
pub(crate) const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Creates a child with a copy of this memory by the old `clone` call, which no seccomp filter refuses.
/// Returns its pid and a pidfd of it, or `None` in the child.
///
/// # Safety
/// In a multithreaded process the child may only use `nostd`.
pub(crate) unsafe fn fork(exit_signal: i32) -> Result<Option<(i32, OwnedFd)>> {
    let mut pidfd = -1_i32;
    let flags = CLONE_PIDFD as usize | exit_signal as usize;
    // SAFETY: without CLONE_VM the child has its own copy of the stack on which this function returns;
    // the kernel writes one descriptor.
    let pid = unsafe { syscall(nr::CLONE, [flags, 0, &raw mut pidfd as usize, 0, 0, 0]) }?;
    // SAFETY: in the parent the kernel has written a new descriptor.
    Ok((pid != 0).then(|| (pid as i32, unsafe { OwnedFd::from_raw(pidfd) })))
}

/// The arguments of the old `clone` call, which no seccomp filter refuses.
pub(crate) fn clone_args(
    flags: u64,
    exit_signal: i32,
    stack: *mut u8,
    pidfd: &mut i32,
) -> [usize; 5] {
    [(flags | exit_signal as u64) as usize, stack as usize, &raw mut *pidfd as usize, 0, 0]
}

/// The index of the argument of `clone` that is the address for the pidfd, …
pub(crate) const PIDFD: usize = 2;

/// … and of the one that is the address of the child's thread id.
pub(crate) const CHILD_TID: usize = if cfg!(target_arch = "x86_64") { 3 } else { 4 };

/// The argument of `clone3(2)`, in its version of 88 bytes (Linux 5.7).
#[repr(C)]
#[derive(Default)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

/// `clone3` without a stack: creates a child with a copy of this memory. Returns `None` in the child.
///
/// # Safety
/// In a multithreaded process the child may only use `nostd`. `args` must not have `CLONE_VM` or a stack,
/// and its addresses must be 0 or valid for what the kernel writes there.
pub(crate) unsafe fn clone3(args: &CloneArgs) -> Result<Option<i32>> {
    let (at, size) = (&raw const *args as usize, size_of::<CloneArgs>());
    // SAFETY: without CLONE_VM the child has its own copy of the stack on which this function returns;
    // the kernel reads `size` bytes.
    let pid = unsafe { syscall(raw::CLONE3, [at, size, 0, 0, 0, 0]) }?;
    Ok((pid != 0).then_some(pid as i32))
}
