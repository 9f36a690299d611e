//! Killing everything below a process, so that nothing forks its way out.
//!
//! The first rounds kill top-down and stop nobody (see [`fell`]), as long as nobody forks as fast as we kill,
//! and hardly anybody new is met: an eighth of the round before. Most trees need no others.
//!
//! A scan that kills what it finds does not converge against processes that keep forking. So in the
//! rounds after that each process is first stopped, which makes its forks fail, then its children are
//! visited, and then it is killed: nobody below a stopped parent can be orphaned unseen. Whatever slips
//! through comes back to the root, which is a subreaper, and is met by the next round.
//!
//! In those rounds all are stopped before the first is killed: for a fork bomb at its limit, every death
//! is room for another one. One pass to stop is enough for nearly all; if the killing then meets more
//! processes than there were, or no fewer than in the last round, the next rounds are *careful*, and stop
//! in passes until one meets nobody new.

use super::{
    call::{Errno, Fd, Result, SIGKILL, SIGSTOP, dup_above, pidfd_send_signal},
    fell::fell,
    walk::{Coverage, Found, Visitor, Walk},
};

/// What one round met.
pub(crate) struct Round {
    /// Living processes.
    pub(crate) seen: usize,
    /// Those among them that may not be killed by us.
    pub(crate) refused: usize,
    /// A pidfd of the last one, or of the root's last child, that was killed: when it is dead, most
    /// others are.
    pub(crate) last: Option<Fd>,
    pub(crate) coverage: Coverage,
}

/// A bit for every number a process can have.
pub(crate) type Marks = [u64; 1 << 16];

/// Rounds against what is below one process.
pub(crate) struct Sweep<'a> {
    marks: &'a mut Marks,
    /// How many may be met anew, or `None` when everybody is stopped first.
    lenience: Option<usize>,
    careful: bool,
    last_seen: usize,
}

impl<'a> Sweep<'a> {
    /// `marks` is memory full of zeroes, of which only what is needed is touched.
    pub(crate) fn new(marks: &'a mut Marks) -> Sweep<'a> {
        Sweep { marks, lenience: Some(usize::MAX), careful: false, last_seen: usize::MAX }
    }

    /// One round over everybody below `root`: all that are met are killed.
    pub(crate) fn round(&mut self, walk: &mut Walk<'_>, root: i32, root_fd: i32) -> Result<Round> {
        // More than there are in the whole system have been born while we walked.
        let mut most = walk.proc.tasks().map_or(1024, |(tasks, _)| tasks) + 64;
        if let Some(lenience) = self.lenience {
            let lenience = lenience.min(most);
            let (round, anew) = fell(walk, self.marks, root, root_fd, lenience)?;
            self.lenience = anew.map(|anew| anew / 8);
            return Ok(round);
        }
        if self.careful {
            self.stop_all(walk, root, root_fd)?;
            most = usize::MAX;
        } else {
            let mut stopper = Stopper { met: false };
            let coverage = walk.below(root, root_fd, &mut stopper)?;
            if !stopper.met && coverage == Coverage::Whole {
                self.last_seen = 0;
                return Ok(Round { seen: 0, refused: 0, last: None, coverage });
            }
        }
        let mut killer = Killer { root, met: 0, most, seen: 0, refused: 0, last: None };
        let coverage = walk.below(root, root_fd, &mut killer)?;
        self.careful = killer.met >= most || killer.seen >= self.last_seen;
        self.last_seen = killer.seen;
        Ok(Round { seen: killer.seen, refused: killer.refused, last: killer.last, coverage })
    }

    fn stop_all(&mut self, walk: &mut Walk<'_>, root: i32, root_fd: i32) -> Result<()> {
        const PASSES: usize = 100;
        self.marks.fill(0);
        for _ in 0..PASSES {
            let mut stopper = Marker { marks: self.marks, anew: 0 };
            let coverage = walk.below(root, root_fd, &mut stopper)?;
            if stopper.anew == 0 && coverage == Coverage::Whole {
                break;
            }
        }
        Ok(())
    }
}

/// Stops everybody.
struct Stopper {
    met: bool,
}

impl Visitor for Stopper {
    fn enter(&mut self, found: &Found) {
        self.met = true;
        let _ = pidfd_send_signal(found.pidfd, SIGSTOP);
    }
}

/// Stops everybody and counts those it had not met before.
struct Marker<'a> {
    marks: &'a mut Marks,
    anew: usize,
}

/// Whether a number had no mark; it has one now.
pub(crate) fn mark(marks: &mut Marks, pid: i32) -> bool {
    let bit = 1_u64 << (pid & 63);
    let Some(word) = marks.get_mut(pid as usize >> 6) else { return false };
    let is_new = *word & bit == 0;
    *word |= bit;
    is_new
}

impl Visitor for Marker<'_> {
    fn enter(&mut self, found: &Found) {
        let _ = pidfd_send_signal(found.pidfd, SIGSTOP);
        self.anew += usize::from(mark(self.marks, found.pid));
    }
}

/// Stops everybody on the way down and kills them on the way up.
struct Killer {
    root: i32,
    met: usize,
    most: usize,
    seen: usize,
    refused: usize,
    last: Option<Fd>,
}

impl Visitor for Killer {
    fn enter(&mut self, found: &Found) {
        self.met += 1;
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

    fn goes_on(&self) -> bool {
        self.met < self.most
    }
}
