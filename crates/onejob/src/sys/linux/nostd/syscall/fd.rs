//! File descriptors, owned and borrowed as in `std::os::fd`.

use core::{marker::PhantomData, num::NonZeroI32};

use super::{
    errno::{Errno, Result},
    raw::{self, nr, syscall},
};

/// An open descriptor of this process. Dropping it closes it.
///
/// It stores the complement of the number, which is never 0. So `None` is all zeroes, as the memory of a
/// guard must be at first.
#[repr(transparent)]
pub(crate) struct OwnedFd(NonZeroI32);

/// An open descriptor that stays open for `'fd`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct BorrowedFd<'fd> {
    raw: i32,
    owner: PhantomData<&'fd OwnedFd>,
}

/// The working directory in `openat(2)` and its like. If the path is absolute they ignore it.
pub(crate) const CWD: BorrowedFd<'static> = BorrowedFd { raw: -100, owner: PhantomData };

/// A type that has an open descriptor.
pub(crate) trait AsFd {
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl OwnedFd {
    /// # Safety
    /// `raw` must be an open descriptor that nothing else owns.
    pub(crate) const unsafe fn from_raw(raw: i32) -> OwnedFd {
        // SAFETY: an open descriptor is not negative, so its complement is not 0.
        OwnedFd(unsafe { NonZeroI32::new_unchecked(!raw) })
    }

    pub(crate) const fn raw(&self) -> i32 {
        !self.0.get()
    }

    /// Returns the number and leaves the descriptor open.
    pub(crate) const fn into_raw(self) -> i32 {
        let raw = self.raw();
        core::mem::forget(self);
        raw
    }
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        // SAFETY: this owns the descriptor, and nothing uses it after this.
        let _ = unsafe { syscall(nr::CLOSE, [self.as_fd().arg(), 0, 0, 0, 0, 0]) };
    }
}

impl<'fd> BorrowedFd<'fd> {
    /// # Safety
    /// `raw` must be a descriptor that stays open for `'fd`.
    pub(crate) const unsafe fn borrow_raw(raw: i32) -> BorrowedFd<'fd> {
        BorrowedFd { raw, owner: PhantomData }
    }

    pub(crate) const fn raw(self) -> i32 {
        self.raw
    }

    /// The descriptor as an argument of a system call.
    pub(super) const fn arg(self) -> usize {
        self.raw as isize as usize
    }
}

impl AsFd for BorrowedFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        *self
    }
}

impl AsFd for OwnedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        BorrowedFd { raw: self.raw(), owner: PhantomData }
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

/// Makes a system call that returns a new descriptor.
///
/// # Safety
/// As for [`syscall`]; and the result of the call must be a new descriptor.
pub(super) unsafe fn syscall_fd(number: usize, args: [usize; 6]) -> Result<OwnedFd> {
    // SAFETY: the caller guarantees that the call is allowed and that its result is a new descriptor.
    unsafe { syscall(number, args).map(|raw| OwnedFd::from_raw(raw as i32)) }
}

/// Closes every descriptor from `first` on.
///
/// # Safety
/// Nothing may own or use one of these descriptors.
pub(crate) unsafe fn close_from(first: i32) {
    // SAFETY: the caller guarantees that nothing owns or uses one of these descriptors.
    if unsafe { close_range(first, i32::MAX) }.is_err() {
        // `close_range` exists since Linux 5.9. Before: as many as a process usually may have.
        const USUAL: i32 = 4096;
        for raw in first..USUAL {
            // SAFETY: the caller guarantees that nothing owns or uses this descriptor.
            let _ = unsafe { syscall(nr::CLOSE, [raw as usize, 0, 0, 0, 0, 0]) };
        }
    }
}

/// Closes these descriptors: in one call if their numbers are consecutive, as those of one message mostly
/// are. The first ones may have been taken.
pub(crate) fn close_all(fds: &mut [Option<OwnedFd>]) {
    let taken = fds.iter().take_while(|fd| fd.is_none()).count();
    let Some(fds) = fds.get_mut(taken..) else { return };
    let raw = |fd: &Option<OwnedFd>| fd.as_ref().map(OwnedFd::raw);
    let follows = |pair: &[Option<OwnedFd>]| match pair {
        [Some(before), Some(after)] => after.raw() == before.raw() + 1,
        _ => false,
    };
    if fds.len() > 1
        && fds.windows(2).all(follows)
        && let (Some(first), Some(last)) = (fds.first().and_then(raw), fds.last().and_then(raw))
        // SAFETY: `fds` owns every descriptor of this range, and does not after this.
        && unsafe { close_range(first, last) }.is_ok()
    {
        fds.iter_mut().for_each(|fd| _ = fd.take().map(OwnedFd::into_raw));
    } else {
        fds.fill_with(|| None);
    }
}

/// # Safety
/// Nothing may use one of these descriptors afterwards.
unsafe fn close_range(first: i32, last: i32) -> Result<()> {
    let args = [first as usize, last as usize, 0, 0, 0, 0];
    // SAFETY: the caller guarantees that nothing uses the closed descriptors.
    unsafe { syscall(raw::CLOSE_RANGE, args) }.map(drop)
}

/// Makes the number `to` a copy of a descriptor, which stays open on exec.
///
/// # Safety
/// Nothing may own or use the descriptor `to`, which this closes.
pub(crate) unsafe fn dup_to(from: impl AsFd, to: i32) -> Result<()> {
    // SAFETY: the caller guarantees that nothing owns or uses the descriptor that is closed.
    unsafe { syscall(nr::DUP3, [from.as_fd().arg(), to as usize, 0, 0, 0, 0]) }.map(drop)
}

const F_DUPFD_CLOEXEC: usize = 1030;
const F_SETFD: usize = 2;

/// A copy with a number of at least `least`, closed on exec.
pub(crate) fn dup_above(from: impl AsFd, least: i32) -> Result<OwnedFd> {
    let args = [from.as_fd().arg(), F_DUPFD_CLOEXEC, least as usize, 0, 0, 0];
    // SAFETY: no pointer is passed, and the kernel returns a new descriptor.
    unsafe { syscall_fd(nr::FCNTL, args) }
        // The kernel returns `INVAL` if RLIMIT_NOFILE does not allow the number.
        .map_err(|errno| if errno == Errno::INVAL { Errno::MFILE } else { errno })
}

pub(crate) fn set_cloexec(fd: impl AsFd, on: bool) -> Result<()> {
    // SAFETY: no pointer is passed.
    unsafe { syscall(nr::FCNTL, [fd.as_fd().arg(), F_SETFD, usize::from(on), 0, 0, 0]) }.map(drop)
}
