//! Stopping whatever is below a process, and letting it go on.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::{Each, ROUNDS, Root, failure, pidfd_of, visit};
use crate::{
    Error, Result,
    sys::linux::nostd::{
        procfs::Proc,
        syscall::{self, Errno, SIGCONT, SIGSTOP},
        tree_walk::{Coverage, Found},
    },
};

/// Stops everybody below the root, and one more; answers those who were not stopped before. Each is
/// noted before it is stopped.
pub(crate) fn freeze(
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
        if !known.insert(pid) {
            return known.len();
        }
        match is_stopped(proc, pid) {
            Ok(false) => {}
            Ok(true) => return known.len(),
            Err(errno) => {
                error = Some(errno.into());
                return known.len();
            }
        }
        let kept = pidfd.try_clone_to_owned().and_then(|kept| note(pid, pidfd).map(|()| kept));
        match kept {
            Ok(kept) => match syscall::pidfd_send_signal(pidfd.as_raw_fd(), SIGSTOP) {
                Ok(()) => stopped.push(kept),
                Err(Errno::SRCH) => {}
                Err(errno) => error = Some(errno.into()),
            },
            Err(e) => error = Some(e),
        }
        known.len()
    };
    let mut met = also.map_or(0, |also| stop(also.pid, also.pidfd));
    let mut coverage = Coverage::Partial;
    for _ in 0..ROUNDS {
        let before = met;
        let mut visitor = Each(|found: &Found<'_>| met = stop(found.pid, pidfd_of(found)));
        coverage = match visit(proc, root, &mut visitor) {
            Ok(coverage) => coverage,
            Err(e) => {
                error = error.or(Some(e));
                break;
            }
        };
        if met == before && coverage == Coverage::Whole {
            break;
        }
    }
    match error.or(failure(coverage).map(Into::into)) {
        Some(error) => {
            let _ = thaw(stopped.iter().map(OwnedFd::as_fd));
            Err(failed(error))
        }
        None => Ok(stopped),
    }
}

fn is_stopped(proc: &Proc, pid: i32) -> std::result::Result<bool, Errno> {
    match proc.stat(pid) {
        Ok(stat) => Ok(matches!(stat.state, b'T' | b't')),
        // Gone, or hidden from us (hidepid).
        Err(Errno::NOENT | Errno::SRCH | Errno::PERM) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Lets these processes go on: all of them, also after an error, which is the answer then.
pub(crate) fn thaw<'a>(stopped: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<()> {
    let mut thawed = Ok(());
    for pidfd in stopped {
        match syscall::pidfd_send_signal(pidfd.as_raw_fd(), SIGCONT) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => thawed = Err(errno.into()),
        }
    }
    thawed
}
