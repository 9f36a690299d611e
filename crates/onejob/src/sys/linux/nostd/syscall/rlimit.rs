//! Resource limits (`getrlimit(2)`).

use super::{
    errno::Result,
    raw::{nr, syscall},
};

// These numbers are the same on every architecture that the library supports.
pub(crate) const RLIMIT_CPU: u64 = 0;
pub(crate) const RLIMIT_FSIZE: u64 = 1;
pub(crate) const RLIMIT_DATA: u64 = 2;
pub(crate) const RLIMIT_STACK: u64 = 3;
pub(crate) const RLIMIT_NPROC: u64 = 6;
pub(crate) const RLIMIT_NOFILE: u64 = 7;
pub(crate) const RLIMIT_AS: u64 = 9;
pub(crate) const RLIMIT_RTTIME: u64 = 15;

pub(crate) const UNLIMITED: u64 = u64::MAX;

/// The soft and the hard limit of a process (0: of this one).
pub(crate) fn get_rlimit(pid: i32, resource: u64) -> Result<[u64; 2]> {
    let mut values = [0_u64; 2];
    let at = values.as_mut_ptr() as usize;
    // SAFETY: the kernel writes one rlimit64: two numbers.
    unsafe { syscall(nr::PRLIMIT64, [pid as usize, resource as usize, 0, at, 0, 0]) }?;
    Ok(values)
}

/// Sets the soft and the hard limit of this process, but not of others that share its memory.
pub(crate) fn set_rlimit(resource: u64, values: [u64; 2]) -> Result<()> {
    let at = values.as_ptr() as usize;
    // SAFETY: the kernel reads one rlimit64: two numbers.
    unsafe { syscall(nr::PRLIMIT64, [0, resource as usize, at, 0, 0, 0]) }.map(drop)
}
