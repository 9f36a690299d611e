//! Stopping whatever is below a process, and letting it go on.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::{Each, ROUNDS, Root, pidfd_of, visit};
use crate::{
    Error, Result,
    sys::linux::floor::{
        call::{self, Errno, SIGCONT, SIGSTOP},
        proc::Proc,
        walk::{Coverage, Found},
    },
};

/// Stops everybody below the root, and one more; answers those who were not stopped before. Each is
/// noted before it is stopped.
pub(in crate::sys::linux) fn freeze(
    proc: &Proc,
    root: Root<'_>,
    also: Option<Root<'_>>,
    note: &mut dyn FnMut(i32, BorrowedFd<'_>) -> io::Result<()>,
) -> Result<Vec<OwnedFd>> {
    let failed = |e: io::Error| Error::os("freeze the job", e);
    let mut stopped = Vec::new();
    let mut known = HashSet::new();
    let mut error = None;
    let mut stop = |pid: i32, pidfd: BorrowedFd<'_>| {
        if !known.insert(pid) || is_stopped(proc, pid) {
            return known.len();
        }
        let kept = pidfd.try_clone_to_owned().and_then(|kept| note(pid, pidfd).map(|()| kept));
        match kept {
            Ok(kept) => match call::pidfd_send_signal(pidfd.as_raw_fd(), SIGSTOP) {
                Ok(()) => stopped.push(kept),
                Err(Errno::SRCH) => {}
                Err(errno) => error = Some(errno.into()),
            },
            Err(e) => error = Some(e),
        }
        known.len()
    };
    let mut met = also.map_or(0, |also| stop(also.pid, also.pidfd));
    for _ in 0..ROUNDS {
        let before = met;
        let mut visitor = Each(|found: &Found| met = stop(found.pid, pidfd_of(found)));
        let coverage = visit(proc, root, &mut visitor).map_err(failed)?;
        if met == before && coverage == Coverage::Whole {
            break;
        }
    }
    match error {
        Some(error) => {
            thaw(stopped.iter().map(OwnedFd::as_fd));
            Err(failed(error))
        }
        None => Ok(stopped),
    }
}

fn is_stopped(proc: &Proc, pid: i32) -> bool {
    proc.stat(pid).is_ok_and(|stat| matches!(stat.state, b'T' | b't'))
}

pub(in crate::sys::linux) fn thaw<'a>(stopped: impl Iterator<Item = BorrowedFd<'a>>) {
    for pidfd in stopped {
        let _ = call::pidfd_send_signal(pidfd.as_raw_fd(), SIGCONT);
    }
}
