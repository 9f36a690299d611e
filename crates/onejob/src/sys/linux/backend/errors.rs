//! Errors that several mechanisms have in common.

use std::io;

use crate::{Error, sys::linux::nostd::syscall::Errno};

/// A process in a frozen job would freeze before it executes its program, and its parent would wait for
/// that.
pub(crate) fn frozen() -> Error {
    Error::unsupported("cannot add a process to a frozen job").with_hint("thaw the job first")
}

pub(crate) fn freezes_caller() -> Error {
    Error::unsupported("a member cannot freeze its own job")
        .with_hint("freeze the job from a process that is not a member")
}

pub(crate) fn not_owner() -> Error {
    Error::unsupported("only the owner of a job can release it")
}

/// No process could be started, because the job was killed again at each attempt.
pub(crate) fn killed_meanwhile() -> Error {
    let canceled = io::Error::from_raw_os_error(Errno::CANCELED.0);
    Error::os("start a process: the job was killed meanwhile", canceled)
}
