//! Descriptors of the standard library for the functions of `nostd`, and the other way round.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
    sync::Arc,
};

use super::nostd::syscall;

impl<'fd> From<BorrowedFd<'fd>> for syscall::BorrowedFd<'fd> {
    fn from(fd: BorrowedFd<'fd>) -> syscall::BorrowedFd<'fd> {
        // SAFETY: the descriptor stays open for `'fd`.
        unsafe { syscall::BorrowedFd::borrow_raw(fd.as_raw_fd()) }
    }
}

impl<'fd> From<syscall::BorrowedFd<'fd>> for BorrowedFd<'fd> {
    fn from(fd: syscall::BorrowedFd<'fd>) -> BorrowedFd<'fd> {
        // SAFETY: the descriptor stays open for `'fd`.
        unsafe { BorrowedFd::borrow_raw(fd.raw()) }
    }
}

impl From<syscall::OwnedFd> for OwnedFd {
    fn from(fd: syscall::OwnedFd) -> OwnedFd {
        // SAFETY: `fd` has owned the descriptor and gives it up here.
        unsafe { OwnedFd::from_raw_fd(fd.into_raw()) }
    }
}

impl From<OwnedFd> for syscall::OwnedFd {
    fn from(fd: OwnedFd) -> syscall::OwnedFd {
        // SAFETY: `fd` has owned the descriptor and gives it up here.
        unsafe { syscall::OwnedFd::from_raw(fd.into_raw_fd()) }
    }
}

impl syscall::AsFd for OwnedFd {
    fn as_fd(&self) -> syscall::BorrowedFd<'_> {
        AsFd::as_fd(self).into()
    }
}

impl syscall::AsFd for BorrowedFd<'_> {
    fn as_fd(&self) -> syscall::BorrowedFd<'_> {
        (*self).into()
    }
}

impl<T: syscall::AsFd> syscall::AsFd for Arc<T> {
    fn as_fd(&self) -> syscall::BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl syscall::AsFd for File {
    fn as_fd(&self) -> syscall::BorrowedFd<'_> {
        AsFd::as_fd(self).into()
    }
}
