//! File descriptors, owned and borrowed as in `std::os::fd`.

use core::marker::PhantomData;

use super::{
    errno::{Errno, Result},
    raw::{self, nr, syscall},
};

/// An open descriptor of this process, which is closed when this is dropped.
pub(crate) struct Fd(pub(crate) i32);

/// An open descriptor that stays open for `'fd`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct BorrowedFd<'fd> {
    raw: i32,
    owner: PhantomData<&'fd Fd>,
}

/// Stands for the working directory in `openat(2)` and its like, and for any directory if the path is
/// absolute.
pub(crate) const CWD: BorrowedFd<'static> = BorrowedFd { raw: -100, owner: PhantomData };

/// A type that has an open descriptor.
pub(crate) trait AsFd {
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl Fd {
    pub(crate) fn raw(&self) -> i32 {
        self.0
    }

    /// Returns the number and leaves the descriptor open.
    pub(crate) fn into_raw(self) -> i32 {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        if self.0 >= 0 {
            close(self.0);
        }
    }
}

impl<'fd> BorrowedFd<'fd> {
    /// # Safety
    /// The descriptor `raw` must stay open for `'fd`.
    pub(crate) const unsafe fn borrow_raw(raw: i32) -> BorrowedFd<'fd> {
        BorrowedFd { raw, owner: PhantomData }
    }

    pub(crate) fn raw(self) -> i32 {
        self.raw
    }

    /// The descriptor as an argument of a system call.
    pub(super) fn arg(self) -> usize {
        self.raw as isize as usize
    }
}

impl AsFd for BorrowedFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        *self
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        BorrowedFd { raw: self.0, owner: PhantomData }
    }
}

impl<T: AsFd> AsFd for &T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl AsFd for i32 {
    fn as_fd(&self) -> BorrowedFd<'_> {
        BorrowedFd { raw: *self, owner: PhantomData }
    }
}

pub(crate) fn close(raw: i32) {
    // SAFETY: the caller owns the descriptor.
    let _ = unsafe { syscall(nr::CLOSE, [raw as isize as usize, 0, 0, 0, 0, 0]) };
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_range(first: i32) {
    // SAFETY: only a guard or a child calls this, in a descriptor table of its own.
    let closed =
        unsafe { syscall(raw::CLOSE_RANGE, [first as usize, u32::MAX as usize, 0, 0, 0, 0]) };
    if closed.is_err() {
        // Before Linux 5.9: as many as a process usually may have.
        const USUAL: i32 = 4096;
        (first..USUAL).for_each(close);
    }
}

/// Closes these descriptors, which the caller owns.
pub(crate) fn close_all(fds: &[i32]) {
    let follows = |pair: &[i32]| matches!(*pair, [before, after] if after == before + 1);
    // The descriptors of one message mostly have consecutive numbers.
    if let [first, .., last] = *fds
        && first >= 0
        && fds.windows(2).all(follows)
    {
        let (first, last) = (first as usize, last as usize);
        // SAFETY: the caller owns the descriptors.
        if unsafe { syscall(raw::CLOSE_RANGE, [first, last, 0, 0, 0, 0]) }.is_ok() {
            return;
        }
    }
    fds.iter().filter(|fd| **fd >= 0).for_each(|fd| close(*fd));
}

/// Makes the number `to` a copy of a descriptor.
pub(crate) fn dup_to(from: impl AsFd, to: i32, flags: i32) -> Result<()> {
    let args = [from.as_fd().arg(), to as usize, flags as usize, 0, 0, 0];
    // SAFETY: only a child or a guard calls this, in a descriptor table of its own.
    unsafe { syscall(nr::DUP3, args) }.map(drop)
}

const F_DUPFD_CLOEXEC: usize = 1030;
const F_SETFD: usize = 2;

/// A copy with a number of at least `least`, closed on exec.
pub(crate) fn dup_above(from: impl AsFd, least: i32) -> Result<i32> {
    let args = [from.as_fd().arg(), F_DUPFD_CLOEXEC, least as usize, 0, 0, 0];
    // SAFETY: no pointer is passed.
    unsafe { syscall(nr::FCNTL, args) }
        .map(|raw| raw as i32)
        // The kernel returns `INVAL` if RLIMIT_NOFILE does not allow the number.
        .map_err(|errno| if errno == Errno::INVAL { Errno::MFILE } else { errno })
}

pub(crate) fn set_cloexec(fd: impl AsFd, on: bool) -> Result<()> {
    // SAFETY: no pointer is passed.
    unsafe { syscall(nr::FCNTL, [fd.as_fd().arg(), F_SETFD, usize::from(on), 0, 0, 0]) }.map(drop)
}
