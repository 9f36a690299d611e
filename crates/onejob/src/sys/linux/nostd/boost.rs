//! More of the processor for a process that ends others.
//!
//! Hundreds of members that want the processor leave a five-hundredth of it to the process that is to
//! kill them. So that process takes the best scheduling that it may have for as long as this lasts: a
//! real-time policy, else the highest priority, else a short slice, by which it waits less between its
//! turns (Linux 6.12).
//!
//! A real-time process reaps no other: the kernel removes the `/proc` entries of a reaped process and waits
//! for whichever process removes one of them too, without sleeping. If that process needs the same CPU it
//! runs again only when the real-time process has used up its share of a second (`sched(7)`).

use super::{
    procfs::{Load, parse_loadavg},
    syscall::{
        Errno, Result, is_unlimited, openat,
        raw::{nr, syscall},
        read,
    },
};

/// How many processes want the processor at once where a single one gets too little of it.
pub(crate) const CROWD: usize = 64;

/// And on each CPU.
const PER_CPU: usize = 16;

/// Nanoseconds: the shortest slice the kernel gives.
const SHORT_SLICE: u64 = 100_000;

const SCHED_NORMAL: u32 = 0;
const SCHED_FIFO: u32 = 1;
const SCHED_BATCH: u32 = 3;
const SCHED_IDLE: u32 = 5;
const BEST_NICE: i32 = -20;
const RLIMIT_RTTIME: usize = 15;

/// `struct sched_attr` in its first version (`sched_setattr(2)`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The calling thread has a better scheduling until this is dropped.
pub(crate) struct Boost(Option<SchedAttr>);

impl Boost {
    /// For the calling thread, which must not start a process or thread meanwhile: those would inherit it.
    pub(crate) fn begin() -> Boost {
        let Ok(before) = SchedAttr::current() else { return Boost(None) };
        Boost(before.improve().then_some(before))
    }

    /// The same, if so many processes want the processor that the caller gets too little of it.
    pub(crate) fn in_a_crowd() -> Option<Boost> {
        is_crowd().then(Boost::begin)
    }

    /// The best for a process that also reaps, until it ends.
    pub(crate) fn keep_without_real_time() {
        if let Ok(attr) = SchedAttr::current() {
            let _ = attr.is_ordinary() && attr.improve_ordinary();
        }
    }
}

impl Drop for Boost {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            // A thread may always give up what it has more than others.
            let _ = before.set();
        }
    }
}

/// Whether so many processes want the processor. Not where `/proc` does not show it.
pub(crate) fn is_crowd() -> bool {
    let mut text = [0_u8; 128];
    openat(-100, c"/proc/loadavg", 0)
        .and_then(|file| read(file.raw(), &mut text))
        .ok()
        .and_then(|len| parse_loadavg(text.get(..len)?))
        .is_some_and(is_crowded)
}

/// The same, where the load is known.
pub(crate) fn is_crowded(load: Load) -> bool {
    load.runnable >= CROWD && load.runnable >= PER_CPU * cpus()
}

/// How many CPUs the calling thread may use.
fn cpus() -> usize {
    let mut mask = [0_u64; 128];
    let (at, size) = (mask.as_mut_ptr() as usize, size_of_val(&mask));
    // SAFETY: the kernel writes at most `size` bytes of the mask.
    let _ = unsafe { syscall(nr::SCHED_GETAFFINITY, [0, size, at, 0, 0, 0]) };
    mask.iter().map(|word| word.count_ones() as usize).sum()
}

impl SchedAttr {
    fn current() -> Result<SchedAttr> {
        let mut attr = SchedAttr::default();
        let (at, size) = (&raw mut attr as usize, size_of::<SchedAttr>());
        // SAFETY: the kernel writes at most `size` bytes, for which there is room.
        unsafe { syscall(nr::SCHED_GETATTR, [0, at, size, 0, 0, 0]) }?;
        Ok(attr)
    }

    fn set(&self) -> Result<()> {
        let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*self };
        // SAFETY: the kernel reads the struct, whose size is in its first field.
        unsafe { syscall(nr::SCHED_SETATTR, [0, &raw const attr as usize, 0, 0, 0, 0]) }.map(drop)
    }

    /// Sets the best that is permitted, beginning with `self`; whether anything was set.
    fn improve(&self) -> bool {
        if !self.is_ordinary() {
            return false;
        }
        let real_time = SchedAttr {
            policy: SCHED_FIFO,
            flags: self.flags,
            priority: 1,
            ..SchedAttr::default()
        };
        // With a limit on it the kernel would kill a process that does not sleep for that long.
        let may_be_real_time = is_unlimited(RLIMIT_RTTIME);
        (may_be_real_time && real_time.set() != Err(Errno::PERM)) || self.improve_ordinary()
    }

    fn is_ordinary(&self) -> bool {
        matches!(self.policy, SCHED_NORMAL | SCHED_BATCH | SCHED_IDLE)
    }

    fn improve_ordinary(&self) -> bool {
        let first =
            SchedAttr { policy: SCHED_NORMAL, nice: BEST_NICE, runtime: SHORT_SLICE, ..*self };
        let short = SchedAttr { runtime: SHORT_SLICE, ..*self };
        first.set().is_ok() || short.set().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scheduling of the calling thread without its slice, which kernels before 6.12 do not tell.
    fn scheduling() -> (u32, u64, i32, u32) {
        let attr = SchedAttr::current().expect("readable");
        (attr.policy, attr.flags, attr.nice, attr.priority)
    }

    #[test]
    fn a_boost_is_given_back() {
        let (before, slice) = (scheduling(), SchedAttr::current().expect("readable").runtime);
        let boost = Boost::begin();
        let during = scheduling();
        let short = SchedAttr::current().expect("readable").runtime;
        drop(boost);
        assert_eq!(scheduling(), before);
        assert_eq!(SchedAttr::current().expect("readable").runtime, slice);
        // Without privileges there is only the slice, and not before Linux 6.12.
        let is_better = during != before || short != slice;
        assert!(is_better || !super::super::syscall::is_release(6, 12));
    }
}
