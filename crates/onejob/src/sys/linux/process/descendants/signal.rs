//! Signalling whatever is below a process.

use std::{collections::HashSet, os::fd::BorrowedFd};

use super::{Each, ROUNDS, Root, failure, pidfd_of, visit};
use crate::{
    Error, Result, Signal,
    sys::linux::nostd::{
        priority::{CROWD, Priority},
        procfs::Proc,
        syscall::{self, Errno, SIGSTOP},
        tree_walk::{Coverage, Found},
    },
};

/// Sends a signal to everybody below the root, until a walk meets nobody new; and to one more.
pub(crate) fn signal(
    proc: &Proc,
    root: Root<'_>,
    also: Option<Root<'_>>,
    signal: Signal,
) -> Result<usize> {
    let mut reached = SignalTally::new(signal);
    if let Some(also) = also {
        reached.send(also.pid, also.pidfd);
    }
    let mut coverage = Coverage::Partial;
    let mut most_new = usize::MAX;
    for _ in 0..ROUNDS {
        let before = reached.known.len();
        coverage = visit(
            proc,
            root,
            &mut Each(|found: &Found<'_>| reached.send(found.pid, pidfd_of(found))),
        )
        .map_err(|e| Error::os("list the members of the job", e))?;
        let new = reached.known.len() - before;
        if (new == 0 && coverage == Coverage::Whole) || !is_converging(&mut most_new, new) {
            break;
        }
    }
    match failure(coverage) {
        Some(errno) => Err(Error::os("list the members of the job", errno)),
        None => reached.count(),
    }
}

/// Stops whatever is below the root, until a walk meets nothing new: it neither starts others nor wants the
/// processor until it is continued.
pub(crate) fn hold(proc: &Proc, root: Root<'_>) -> Result<()> {
    let _priority = Priority::raise();
    let mut known = HashSet::new();
    for _ in 0..ROUNDS {
        let before = known.len();
        let mut stop = Each(|found: &Found<'_>| {
            known.insert(found.pid);
            let _ = syscall::pidfd_send_signal(found.pidfd, SIGSTOP);
        });
        let coverage = visit(proc, root, &mut stop)
            .map_err(|e| Error::os("list the members of the job", e))?;
        if known.len() == before && coverage == Coverage::Whole {
            break;
        }
    }
    Ok(())
}

/// Whether another round may meet what is left. Where processes are started as fast as they are signalled,
/// as by a fork bomb, no round ever meets the last one, and each takes long.
pub(crate) fn is_converging(most_new: &mut usize, new: usize) -> bool {
    let was = std::mem::replace(most_new, new);
    new < CROWD || new < was
}

/// Who has been sent a signal, and how that went.
pub(crate) struct SignalTally {
    signal: Signal,
    pub(crate) known: HashSet<i32>,
    reached: usize,
    refused: Option<Errno>,
    priority: Option<Priority>,
}

impl SignalTally {
    pub(crate) fn new(signal: Signal) -> SignalTally {
        SignalTally { signal, known: HashSet::new(), reached: 0, refused: None, priority: None }
    }

    pub(crate) fn send(&mut self, pid: i32, pidfd: BorrowedFd<'_>) {
        if !self.known.insert(pid) {
            return;
        }
        if self.known.len() == CROWD {
            self.raise_priority_if_crowded();
        }
        match syscall::pidfd_send_signal(pidfd, self.signal.as_raw()) {
            Ok(()) => self.reached += 1,
            Err(Errno::SRCH) => {}
            Err(errno) => self.refused = Some(errno),
        }
    }

    /// For many members: takes a better scheduling for the calling thread if it gets too little.
    pub(crate) fn raise_priority_if_crowded(&mut self) {
        if self.priority.is_none() {
            self.priority = Priority::raise_if_crowded();
        }
    }

    pub(crate) fn count(self) -> Result<usize> {
        match self.refused {
            Some(errno) if self.reached == 0 => {
                Err(Error::os(format!("send {} to any member of the job", self.signal), errno))
            }
            _ => Ok(self.reached),
        }
    }
}
