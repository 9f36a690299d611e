//! Children of this process that its own code will not reap: those whose `Child` was dropped, and guards
//! that came back to a subreaper. No other child of the process is ever waited for.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use crate::sys::linux::nostd::syscall;

static DROPPED: Mutex<Vec<Arc<OwnedFd>>> = Mutex::new(Vec::new());

/// Has a child reaped by the next operation after its end.
pub(crate) fn reap_later(pidfd: Arc<OwnedFd>) {
    DROPPED.lock().unwrap_or_else(PoisonError::into_inner).push(pidfd);
}

/// Reaps those that have ended meanwhile.
pub(crate) fn reap() {
    let mut unwaited = DROPPED.lock().unwrap_or_else(PoisonError::into_inner);
    unwaited.retain(|pidfd| matches!(syscall::reap(pidfd.as_raw_fd(), false), Ok(None)));
}
