//! Stopping whatever is below a process, and letting it go on.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use super::{Each, ROUNDS, Root, failure, pidfd_of, visit};
use crate::{
    Error, Result,
    sys::linux::{
        deadline::has_passed,
        nostd::{
            procfs::Proc,
            syscall::{self, Errno, SIGCONT, SIGSTOP},
            tree_walk::{Coverage, Found},
        },
    },
};

/// A process that a freeze has sent SIGSTOP.
pub(crate) struct StoppedProcess {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

impl AsFd for StoppedProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Sends SIGSTOP to every process below the root, and to one more. Returns those that were not stopped
/// before. Each is noted before it gets the signal.
pub(crate) fn freeze(
    proc: &Proc,
    root: Root<'_>,
    also: Option<Root<'_>>,
    note: &mut dyn FnMut(i32, BorrowedFd<'_>) -> io::Result<()>,
) -> Result<Vec<StoppedProcess>> {
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
                Ok(()) => stopped.push(StoppedProcess { pid, pidfd: kept }),
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
            let _ = thaw(stopped.iter().map(AsFd::as_fd));
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

/// Waits until none of these processes runs, or until `ends`. The signal takes effect when a process next
/// leaves the kernel, and no event reports that of another process' child, so their states are read.
pub(crate) fn wait_stopped(
    proc: &Proc,
    stopped: &[StoppedProcess],
    ends: &dyn Fn() -> Result<bool>,
) -> Result<()> {
    // A process that the scheduler does not let run for longer than this is not waited for.
    const MAX: Duration = Duration::from_secs(2);
    const PAUSES: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(5)];
    let deadline = Instant::now() + MAX;
    let mut pause = PAUSES[0];
    // A process that cannot be read is gone or hidden (hidepid). A parent that waits for its vfork child is
    // in state D, and does not run.
    let runs = |process: &&StoppedProcess| {
        !syscall::is_dead(process.as_fd())
            && proc.stat(process.pid).is_ok_and(|stat| matches!(stat.state, b'R' | b'S'))
    };
    while stopped.iter().any(|process| runs(&process)) && !has_passed(Some(deadline)) {
        if ends()? {
            return Ok(());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSES[1]);
    }
    Ok(())
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
