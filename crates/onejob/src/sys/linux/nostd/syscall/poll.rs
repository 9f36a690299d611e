//! Waiting for descriptors, and the clock.

use core::marker::PhantomData;

use super::{
    errno::Errno,
    fd::{AsFd, BorrowedFd},
    raw::{nr, syscall},
};

pub(crate) const POLLIN: i16 = 1;
pub(crate) const POLLPRI: i16 = 2;
pub(crate) const POLLOUT: i16 = 4;

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PollFd<'fd> {
    fd: i32,
    events: i16,
    revents: i16,
    owner: PhantomData<BorrowedFd<'fd>>,
}

impl<'fd> PollFd<'fd> {
    /// Not a descriptor: never has events.
    pub(crate) const NONE: PollFd<'static> =
        PollFd { fd: -1, events: 0, revents: 0, owner: PhantomData };

    pub(crate) fn new(fd: &'fd impl AsFd, events: i16) -> PollFd<'fd> {
        PollFd { fd: fd.as_fd().raw(), events, revents: 0, owner: PhantomData }
    }

    pub(crate) fn maybe(fd: Option<&'fd impl AsFd>, events: i16) -> PollFd<'fd> {
        fd.map_or(PollFd::NONE, |fd| PollFd::new(fd, events))
    }

    pub(crate) fn fired(&self) -> bool {
        self.revents != 0
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.revents & POLLIN != 0
    }
}

/// Waits up to `milliseconds` (negative: without limit). Returns how many descriptors have events: 0 also after an
/// interruption, or if the kernel has no memory for the call. In that case it has slept for up to ten milliseconds:
/// so a loop around this call does not spin.
pub(crate) fn poll(fds: &mut [PollFd<'_>], milliseconds: i32) -> usize {
    let timeout = [i64::from(milliseconds / 1000), i64::from(milliseconds % 1000) * 1_000_000];
    let timeout_at = if milliseconds < 0 { 0 } else { timeout.as_ptr() as usize };
    // SAFETY: the kernel writes `revents` of exactly these entries and reads the timeout.
    let polled =
        unsafe { syscall(nr::PPOLL, [fds.as_mut_ptr() as usize, fds.len(), timeout_at, 0, 0, 0]) };
    match polled {
        Ok(ready) => ready,
        Err(Errno::INTR) => 0,
        Err(_) => {
            sleep(if milliseconds < 0 { LONGEST_SLEEP } else { milliseconds.min(LONGEST_SLEEP) });
            0
        }
    }
}

/// In milliseconds.
const LONGEST_SLEEP: i32 = 10;

/// Sleeps, which needs no memory of the kernel.
fn sleep(milliseconds: i32) {
    let time = [0, i64::from(milliseconds) * 1_000_000];
    // SAFETY: the kernel reads one timespec.
    let _ = unsafe { syscall(nr::NANOSLEEP, [time.as_ptr() as usize, 0, 0, 0, 0, 0]) };
}

/// Microseconds of the monotonic clock.
pub(crate) fn now() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    let mut time = [0_u64; 2];
    let at = time.as_mut_ptr() as usize;
    // SAFETY: the kernel writes one timespec.
    let _ = unsafe { syscall(nr::CLOCK_GETTIME, [CLOCK_MONOTONIC, at, 0, 0, 0, 0]) };
    time[0].wrapping_mul(1_000_000).wrapping_add(time[1] / 1000)
}
