//! Kills every process below another, so that no process escapes by forking.
//!
//! The first rounds kill top-down and stop no process ([`TopDownKill`]), as long as fewer processes are started
//! than killed, and a round meets at most an eighth as many new processes as the round before. Most trees need
//! no other rounds.
//!
//! To kill the processes of a scan does not converge if processes keep forking. So the rounds after that first
//! stop each process, which makes its forks fail, then visit its children, and then kill it: no process below a
//! stopped parent can become an orphan unseen. A process that these rounds miss becomes a child of the root,
//! which is a subreaper, and the next round meets it.
//!
//! These rounds stop all processes before they kill the first one, in passes until a pass meets no new process:
//! if a fork bomb is at the limit of processes, every death lets another process start, and a single running
//! process starts it.
//!
//! If many members compete for the CPUs, every member may run between two system calls of this process. Then
//! already the first round stops them, and this process takes a higher priority ([`Priority`]).

use super::{
    priority::{self, Priority},
    procfs::Load,
    syscall::{
        BorrowedFd, Errno, OwnedFd, Result, SIGKILL, SIGSTOP, dup_above, is_dead, pidfd_open,
        pidfd_send_signal,
    },
    tree_walk::{Coverage, Found, Visitor, Walk},
};

/// The result of one round.
pub(crate) struct Round {
    /// How many live processes it met.
    pub(crate) seen: usize,
    /// How many of them this process has no permission to kill.
    pub(crate) refused: usize,
    /// A pidfd of the last process, or of the root's last child, that was killed. When it is dead, most others
    /// are dead, too.
    pub(crate) last: Option<OwnedFd>,
    pub(crate) coverage: Coverage,
}

impl Round {
    const EMPTY: Round = Round { seen: 0, refused: 0, last: None, coverage: Coverage::Whole };
}

/// A bit for every possible pid.
pub(crate) type PidSet = [u64; 1 << 16];

/// Adds `pid` to the set. Returns whether it is new.
fn insert(set: &mut PidSet, pid: i32) -> bool {
    let bit = 1_u64 << (pid & 63);
    let Some(word) = set.get_mut(pid as usize >> 6) else { return false };
    let is_new = *word & bit == 0;
    *word |= bit;
    is_new
}

/// The state of the rounds below one process.
pub(crate) struct KillTree<'a> {
    met: &'a mut PidSet,
    /// How many new processes a round may meet; `None` for rounds that stop all processes first.
    new_limit: Option<usize>,
    priority: Option<Priority>,
}

impl<'a> KillTree<'a> {
    /// `met` must be empty. Only the pages that are needed are touched.
    pub(crate) fn new(met: &'a mut PidSet) -> KillTree<'a> {
        KillTree { met, new_limit: Some(usize::MAX), priority: None }
    }

    /// Gives the priority back. To be called before the caller reaps, see [`priority`]. A later round raises it again
    /// if necessary.
    pub(crate) fn end_priority(&mut self) {
        self.priority = None;
    }

    /// Kills every process below `root` that one round meets. `root_fd` is the pidfd of the root.
    pub(crate) fn round(
        &mut self,
        walk: &mut Walk<'_>,
        root: i32,
        root_fd: BorrowedFd<'_>,
    ) -> Result<Round> {
        let load = walk.proc.load();
        // A walk that meets more processes than the system has does not end.
        let limit = load.map_or(1024, |load| load.tasks) + 64;
        if load.is_some_and(priority::is_crowded) {
            self.new_limit = None;
        }
        if let Some(new_limit) = self.new_limit {
            let (met, round) = (&mut *self.met, Round::EMPTY);
            let mut kill = TopDownKill { walk, pending: 0, met, new: 0, round };
            let is_calm = kill.run(root, root_fd, new_limit.min(limit), load)?;
            self.new_limit = is_calm.then_some(kill.new / 8);
            if is_calm {
                return Ok(kill.round);
            }
        }
        self.priority.get_or_insert_with(Priority::raise);
        self.stop_first(walk, root, root_fd)
    }

    fn stop_first(
        &mut self,
        walk: &mut Walk<'_>,
        root: i32,
        root_fd: BorrowedFd<'_>,
    ) -> Result<Round> {
        const PASSES: usize = 32;
        self.met.fill(0);
        let mut stopped = 0;
        for _ in 0..PASSES {
            let mut stopper = Stopper { met: self.met, new: 0 };
            let coverage = walk.below(root, root_fd, &mut stopper)?;
            stopped += stopper.new;
            if stopper.new == 0 && coverage == Coverage::Whole {
                break;
            }
        }
        if stopped == 0 {
            return Ok(Round::EMPTY);
        }
        let mut killer = Killer { root, round: Round::EMPTY };
        let coverage = walk.below(root, root_fd, &mut killer)?;
        Ok(Round { coverage, ..killer.round })
    }
}

/// Stops every process and counts those that are new.
struct Stopper<'a> {
    met: &'a mut PidSet,
    new: usize,
}

impl Visitor for Stopper<'_> {
    fn enter(&mut self, found: &Found<'_>) {
        let _ = pidfd_send_signal(found.pidfd, SIGSTOP);
        self.new += usize::from(insert(self.met, found.pid));
    }
}

/// Stops every process on the way down and kills it on the way up.
struct Killer {
    root: i32,
    round: Round,
}

impl Visitor for Killer {
    fn enter(&mut self, found: &Found<'_>) {
        self.round.seen += 1;
        let _ = pidfd_send_signal(found.pidfd, SIGSTOP);
    }

    fn leave(&mut self, found: &Found<'_>) {
        match pidfd_send_signal(found.pidfd, SIGKILL) {
            Ok(()) if found.parent == self.root => {
                self.round.last = dup_above(found.pidfd, 0).ok();
            }
            Ok(()) => {}
            Err(Errno::PERM) => self.round.refused += 1,
            Err(_) => self.round.seen = self.round.seen.saturating_sub(1),
        }
    }
}

/// A round that kills each process before its children.
///
/// No live process may see a child of it die: a shell would start its next command. So this opens pidfds of the
/// children of a process before it kills the process, and kills the children after it. A child that the process
/// starts in between becomes a child of the root, and the next round meets it.
///
/// Every child with a pidfd had this parent (see [`Walk`]). If the signal that kills the parent succeeds, the
/// parent had not been reaped, which completes the verification of all its children. If there are not enough
/// descriptors for all children, those without a pidfd become children of the root as well.
struct TopDownKill<'a, 'w> {
    walk: &'a mut Walk<'w>,
    /// How many processes are to be killed. Each has two words in the arena: its pid, and the number of its
    /// pidfd, which the arena owns, or -1 for a child of the root, which lives on, so that it can be verified
    /// later.
    pending: usize,
    /// The processes that this round and those before have killed: they may not be dead yet.
    met: &'a mut PidSet,
    /// How many processes were killed that are new.
    new: usize,
    round: Round,
}

/// How many new processes are killed between two checks of the load.
const CHECK_INTERVAL: usize = 64;

impl TopDownKill<'_, '_> {
    /// Returns whether the round is complete: not if it met more than `new_limit` new processes, or if processes
    /// are started as fast as they are killed, or if too many compete for the CPUs.
    fn run(
        &mut self,
        root: i32,
        root_fd: BorrowedFd<'_>,
        new_limit: usize,
        before: Option<Load>,
    ) -> Result<bool> {
        let mut next_check = CHECK_INTERVAL;
        self.list(root)?;
        let mut is_calm = true;
        while is_calm && let Some((pid, held)) = self.next() {
            // No signal kills the root, so signal 0 verifies that it had not been reaped.
            let has_root = |_: &OwnedFd| pidfd_send_signal(root_fd, 0) != Err(Errno::SRCH);
            if let Some(held) = held.or_else(|| self.hold(pid, root).filter(has_root)) {
                self.kill(pid, held);
            }
            is_calm = self.new <= new_limit;
            if self.new >= next_check {
                next_check += CHECK_INTERVAL;
                is_calm &= !self.is_outrun(before);
            }
        }
        self.drop_pending(0);
        Ok(is_calm)
    }

    fn is_outrun(&self, before: Option<Load>) -> bool {
        let (Some(before), Some(now)) = (before, self.walk.proc.load()) else { return false };
        // After the highest pid they begin again: then this check counts none.
        let started = now.latest.saturating_sub(before.latest);
        started > self.new / 2 || priority::is_crowded(now)
    }

    fn kill(&mut self, pid: i32, held: OwnedFd) {
        let first = self.pending;
        let listed = self.list(pid);
        self.hold_all(first, pid);
        if listed.is_err() {
            self.round.coverage = Coverage::Partial;
        }
        match pidfd_send_signal(&held, SIGKILL) {
            Ok(()) => self.round.last = Some(held),
            Err(Errno::PERM) => self.round.refused += 1,
            Err(_) => {
                // It was reaped: its pid may have been another process' when the children were listed.
                self.drop_pending(first);
                return;
            }
        }
        self.round.seen += 1;
        self.new += usize::from(insert(self.met, pid));
    }

    /// Adds the children of a process to the pending processes.
    fn list(&mut self, pid: i32) -> Result<()> {
        let (proc, arena) = (self.walk.proc, &mut *self.walk.arena);
        let (pending, coverage) = (&mut self.pending, &mut self.round.coverage);
        proc.children(pid, &mut |child| match arena.get_mut(2 * *pending..2 * *pending + 2) {
            Some(place) => {
                place.copy_from_slice(&[child, -1]);
                *pending += 1;
            }
            None => *coverage = Coverage::Partial,
        })
    }

    /// Opens pidfds of the pending processes from `first` on, which are children of `parent`. Removes those
    /// that are not.
    fn hold_all(&mut self, first: usize, parent: i32) {
        let mut kept = first;
        for at in first..self.pending {
            let Some(&mut [pid, _]) = self.place(at) else { break };
            let Some(held) = self.hold(pid, parent) else { continue };
            if let Some(place) = self.place(kept) {
                *place = [pid, held.into_raw()];
                kept += 1;
            }
        }
        self.pending = kept;
    }

    /// A pidfd of a live child of `parent`.
    fn hold(&mut self, pid: i32, parent: i32) -> Option<OwnedFd> {
        if pid <= 0 || pid == self.walk.exclude {
            return None;
        }
        let held = pidfd_open(pid).ok();
        if held.as_ref().is_some_and(is_dead) {
            return None;
        }
        let held = held.filter(|held| self.walk.has_parent(pid, held, parent) == Ok(true));
        if held.is_none() {
            self.round.coverage = Coverage::Partial;
        }
        held
    }

    fn place(&mut self, at: usize) -> Option<&mut [i32; 2]> {
        self.walk.arena.get_mut(2 * at..2 * at + 2)?.try_into().ok()
    }

    /// Removes the last pending process.
    fn next(&mut self) -> Option<(i32, Option<OwnedFd>)> {
        self.pending = self.pending.checked_sub(1)?;
        let &mut [pid, held] = self.place(self.pending)?;
        // SAFETY: `hold_all` has stored the number of a descriptor and left it open, and this removes it.
        Some((pid, (held >= 0).then(|| unsafe { OwnedFd::from_raw(held) })))
    }

    /// Removes the pending processes from `first` on.
    fn drop_pending(&mut self, first: usize) {
        while self.pending > first && self.next().is_some() {
            self.round.coverage = Coverage::Partial;
        }
    }
}
