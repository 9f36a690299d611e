//! Signalling whatever is below a process.

use std::{collections::HashSet, os::fd::AsRawFd};

use super::{Each, ROUNDS, Root, failure, visit};
use crate::{
    Error, Result, Signal,
    sys::linux::floor::{
        call::{self, Errno},
        proc::Proc,
        walk::{Coverage, Found},
    },
};

/// Sends a signal to everybody below the root, until a walk meets nobody new; and to one more.
pub(in crate::sys::linux) fn signal(
    proc: &Proc,
    root: Root<'_>,
    also: Option<Root<'_>>,
    signal: Signal,
) -> Result<usize> {
    let mut reached = Reached::new(signal);
    if let Some(also) = also {
        reached.send(also.pid, also.pidfd.as_raw_fd());
    }
    let mut coverage = Coverage::Partial;
    for _ in 0..ROUNDS {
        let before = reached.known.len();
        coverage =
            visit(proc, root, &mut Each(|found: &Found| reached.send(found.pid, found.pidfd)))
                .map_err(|e| Error::os("list the members of the job", e))?;
        if reached.known.len() == before && coverage == Coverage::Whole {
            break;
        }
    }
    match failure(coverage) {
        Some(errno) => Err(Error::os("list the members of the job", errno)),
        None => reached.count(),
    }
}

/// Who has been sent a signal, and how that went.
pub(in crate::sys::linux) struct Reached {
    signal: Signal,
    pub(in crate::sys::linux) known: HashSet<i32>,
    reached: usize,
    refused: Option<Errno>,
}

impl Reached {
    pub(in crate::sys::linux) fn new(signal: Signal) -> Reached {
        Reached { signal, known: HashSet::new(), reached: 0, refused: None }
    }

    pub(in crate::sys::linux) fn send(&mut self, pid: i32, pidfd: i32) {
        if !self.known.insert(pid) {
            return;
        }
        match call::pidfd_send_signal(pidfd, self.signal.as_raw()) {
            Ok(()) => self.reached += 1,
            Err(Errno::SRCH) => {}
            Err(errno) => self.refused = Some(errno),
        }
    }

    pub(in crate::sys::linux) fn count(self) -> Result<usize> {
        match self.refused {
            Some(errno) if self.reached == 0 => {
                Err(Error::os(format!("send {} to any member of the job", self.signal), errno))
            }
            _ => Ok(self.reached),
        }
    }
}
