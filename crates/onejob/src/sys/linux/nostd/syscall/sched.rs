//! Scheduling of threads.

use super::{
    errno::Result,
    raw::{nr, syscall},
};

pub(crate) const SCHED_NORMAL: u32 = 0;
pub(crate) const SCHED_FIFO: u32 = 1;
pub(crate) const SCHED_RR: u32 = 2;
pub(crate) const SCHED_BATCH: u32 = 3;
pub(crate) const SCHED_IDLE: u32 = 5;
pub(crate) const SCHED_DEADLINE: u32 = 6;
pub(crate) const SCHED_FLAG_RESET_ON_FORK: u64 = 1;

/// `struct sched_attr` in its first version (`sched_setattr(2)`).
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct SchedAttr {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

impl SchedAttr {
    pub(crate) const SIZE: u32 = size_of::<SchedAttr>() as u32;

    /// The scheduling of a thread; 0 stands for the calling one.
    pub(crate) fn of(thread: i32) -> Result<SchedAttr> {
        let mut attr = SchedAttr::default();
        let (at, size) = (&raw mut attr as usize, size_of::<SchedAttr>());
        // SAFETY: the kernel writes at most `size` bytes, the size of the struct.
        unsafe { syscall(nr::SCHED_GETATTR, [thread as usize, at, size, 0, 0, 0]) }?;
        Ok(attr)
    }

    /// Sets the scheduling of the calling thread.
    pub(crate) fn set(&self) -> Result<()> {
        let attr = SchedAttr { size: SchedAttr::SIZE, ..*self };
        // SAFETY: the kernel reads the struct, whose size is in its first field.
        unsafe { syscall(nr::SCHED_SETATTR, [0, &raw const attr as usize, 0, 0, 0, 0]) }.map(drop)
    }

    /// The bytes of the struct.
    pub(crate) fn to_words(self) -> [u64; 6] {
        // SAFETY: the struct has 48 bytes without padding, and any bytes are numbers.
        unsafe { core::mem::transmute(self) }
    }
}

/// Restricts the calling thread to the CPUs of a mask.
pub(crate) fn set_cpus(mask: &[u64]) -> Result<()> {
    let (at, size) = (mask.as_ptr() as usize, size_of_val(mask));
    // SAFETY: the kernel reads `size` bytes of the mask.
    unsafe { syscall(nr::SCHED_SETAFFINITY, [0, size, at, 0, 0, 0]) }.map(drop)
}

/// How many CPUs the calling thread may use.
pub(crate) fn cpu_count() -> usize {
    let mut mask = [0_u64; 128];
    let (at, size) = (mask.as_mut_ptr() as usize, size_of_val(&mask));
    // SAFETY: the kernel writes at most `size` bytes of the mask.
    let _ = unsafe { syscall(nr::SCHED_GETAFFINITY, [0, size, at, 0, 0, 0]) };
    mask.iter().map(|word| word.count_ones() as usize).sum()
}
