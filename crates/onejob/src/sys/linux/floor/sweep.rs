//! Killing everything below a process, so that nothing forks its way out.
//!
//! A scan that kills what it finds does not converge against processes that keep forking. So each
//! process is first stopped, which makes its forks fail, then its children are visited, and then it
//! is killed: nobody below a stopped parent can be orphaned unseen. Whatever slips through comes
//! back to the root, which is a subreaper, and is met by the next round.

use super::{
    call::{Errno, Fd, Result, SIGKILL, SIGSTOP, dup_above, pidfd_send_signal},
    walk::{Coverage, Found, Visitor, Walk},
};

/// What one round met.
pub(crate) struct Round {
    /// Living processes.
    pub(crate) seen: usize,
    /// Those among them that may not be killed by us.
    pub(crate) refused: usize,
    /// A pidfd of the root's last child that was killed: when it is dead, most others are.
    pub(crate) last: Option<Fd>,
    pub(crate) coverage: Coverage,
}

struct Killer {
    root: i32,
    seen: usize,
    refused: usize,
    last: Option<Fd>,
}

impl Visitor for Killer {
    fn enter(&mut self, found: &Found) {
        self.seen += 1;
        let _ = pidfd_send_signal(found.pidfd, SIGSTOP);
    }

    fn leave(&mut self, found: &Found) {
        match pidfd_send_signal(found.pidfd, SIGKILL) {
            Ok(()) if found.parent == self.root => {
                self.last = dup_above(found.pidfd, 0).ok().map(Fd);
            }
            Ok(()) => {}
            Err(Errno::PERM) => self.refused += 1,
            Err(_) => self.seen = self.seen.saturating_sub(1),
        }
    }
}

/// One pass over everybody below `root`: all that are met are killed.
pub(crate) fn round(walk: &mut Walk<'_>, root: i32, root_fd: i32) -> Result<Round> {
    let mut killer = Killer { root, seen: 0, refused: 0, last: None };
    let coverage = walk.below(root, root_fd, &mut killer)?;
    Ok(Round { seen: killer.seen, refused: killer.refused, last: killer.last, coverage })
}
