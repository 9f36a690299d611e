//! Killing everything below a process, so that nothing forks its way out.
//!
//! The first rounds kill top-down and stop nothing ([`TopDownKill`]), as long as fewer processes are
//! started than are killed, and a round meets at most an eighth as many new ones as the round before.
//! Most trees need no other rounds.
//!
//! A scan that kills what it finds does not converge against processes that keep forking. So in the
//! rounds after that each process is first stopped, which makes its forks fail, then its children are
//! visited, and then it is killed: no process below a stopped parent can be orphaned unseen. Whatever
//! slips through comes back to the root, which is a subreaper, and is met by the next round.
//!
//! In those rounds all are stopped before the first is killed, in passes until a pass meets nothing new:
//! for a fork bomb at its limit, every death is room for another process, and a single one that still runs
//! fills it.
//!
//! Where many members want the processor, each turn of the killer is followed by a turn of every member. So
//! there the first round stops, too, and the killer has a better scheduling ([`Boost`]).

use super::{
    boost::{self, Boost},
    procfs::Load,
    syscall::{
        Errno, Fd, Result, SIGKILL, SIGSTOP, dup_above, is_dead, pidfd_open, pidfd_send_signal,
    },
    tree_walk::{Coverage, Found, Visitor, Walk},
};

/// What one round met.
pub(crate) struct Round {
    /// Living processes.
    pub(crate) seen: usize,
    /// Those among them that this process has no permission to kill.
    pub(crate) refused: usize,
    /// A pidfd of the last process, or of the root's last child, that was killed: when it is dead, most
    /// others are.
    pub(crate) last: Option<Fd>,
    pub(crate) coverage: Coverage,
}

impl Round {
    const EMPTY: Round = Round { seen: 0, refused: 0, last: None, coverage: Coverage::Whole };
}

/// A bit for every number a process can have.
pub(crate) type PidSet = [u64; 1 << 16];

/// Whether `pid` was not in the set; it is now.
fn insert(set: &mut PidSet, pid: i32) -> bool {
    let bit = 1_u64 << (pid & 63);
    let Some(word) = set.get_mut(pid as usize >> 6) else { return false };
    let is_new = *word & bit == 0;
    *word |= bit;
    is_new
}

/// Rounds against everything below one process.
pub(crate) struct KillTree<'a> {
    met: &'a mut PidSet,
    /// How many new processes a round may meet, or `None` when all are stopped first.
    new_limit: Option<usize>,
    boost: Option<Boost>,
}

impl<'a> KillTree<'a> {
    /// `met` is memory full of zeroes, of which only what is needed is touched.
    pub(crate) fn new(met: &'a mut PidSet) -> KillTree<'a> {
        KillTree { met, new_limit: Some(usize::MAX), boost: None }
    }

    /// Before the caller reaps: see [`boost`]. The next round that needs it begins it again.
    pub(crate) fn end_boost(&mut self) {
        self.boost = None;
    }

    /// One round over everything below `root`: all that are met are killed.
    pub(crate) fn round(&mut self, walk: &mut Walk<'_>, root: i32, root_fd: i32) -> Result<Round> {
        let load = walk.proc.load();
        // A walk that meets more than the whole system has does not come to an end.
        let limit = load.map_or(1024, |load| load.tasks) + 64;
        if load.is_some_and(boost::is_crowded) {
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
        self.boost.get_or_insert_with(Boost::begin);
        self.stop_first(walk, root, root_fd)
    }

    fn stop_first(&mut self, walk: &mut Walk<'_>, root: i32, root_fd: i32) -> Result<Round> {
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

/// Stops all and counts those it had not met before.
struct Stopper<'a> {
    met: &'a mut PidSet,
    new: usize,
}

impl Visitor for Stopper<'_> {
    fn enter(&mut self, found: &Found) {
        let _ = pidfd_send_signal(found.pidfd, SIGSTOP);
        self.new += usize::from(insert(self.met, found.pid));
    }
}

/// Stops all on the way down and kills them on the way up.
struct Killer {
    root: i32,
    round: Round,
}

impl Visitor for Killer {
    fn enter(&mut self, found: &Found) {
        self.round.seen += 1;
        let _ = pidfd_send_signal(found.pidfd, SIGSTOP);
    }

    fn leave(&mut self, found: &Found) {
        match pidfd_send_signal(found.pidfd, SIGKILL) {
            Ok(()) if found.parent == self.root => {
                self.round.last = dup_above(found.pidfd, 0).ok().map(Fd);
            }
            Ok(()) => {}
            Err(Errno::PERM) => self.round.refused += 1,
            Err(_) => self.round.seen = self.round.seen.saturating_sub(1),
        }
    }
}

/// A round that kills each process before its children.
///
/// No process may see a child of its die while it lives: a shell would go on to the next command. So the
/// children of a process are held before it is killed, and killed after it; what it starts in between
/// comes back to the root, and is met by the next round. Nothing has to be stopped for that.
///
/// Every child that is held was seen to have this parent (see [`Walk`]); that the parent was still
/// there, the signal that kills it proves for all of them. How many can be held at once depends on
/// the descriptors: a child that is not held comes back to the root as well.
struct TopDownKill<'a, 'w> {
    walk: &'a mut Walk<'w>,
    /// How many are yet to be killed. Each has two places in the arena: its number, and its pidfd
    /// or -1 for a child of the root, which stays and can be verified later.
    pending: usize,
    /// The processes that were killed, in the rounds before, too: it can take a while to die.
    met: &'a mut PidSet,
    /// How many were killed that had not been met before.
    new: usize,
    round: Round,
}

/// How many new processes are killed between two looks at what the whole system is doing.
const BETWEEN_LOOKS: usize = 64;

impl TopDownKill<'_, '_> {
    /// Whether it has come to the end: not if it met more than `new_limit` new processes, nor if processes
    /// are started as fast as they are killed or leave this one hardly any processor time.
    fn run(
        &mut self,
        root: i32,
        root_fd: i32,
        new_limit: usize,
        before: Option<Load>,
    ) -> Result<bool> {
        let mut next_look = BETWEEN_LOOKS;
        self.list(root)?;
        let mut is_calm = true;
        while is_calm && let Some((pid, held)) = self.next() {
            // The root is not killed, so a signal 0 shows whether it was still there.
            let has_root = |_: &Fd| pidfd_send_signal(root_fd, 0) != Err(Errno::SRCH);
            if let Some(held) = held.or_else(|| self.hold(pid, root).filter(has_root)) {
                self.kill(pid, held);
            }
            is_calm = self.new <= new_limit;
            if self.new >= next_look {
                next_look += BETWEEN_LOOKS;
                is_calm &= !self.is_outrun(before);
            }
        }
        self.drop_pending(0);
        Ok(is_calm)
    }

    fn is_outrun(&self, before: Option<Load>) -> bool {
        let (Some(before), Some(now)) = (before, self.walk.proc.load()) else { return false };
        // Numbers begin again at the highest one: that looks like none, for once.
        let started = now.latest.saturating_sub(before.latest);
        started > self.new / 2 || boost::is_crowded(now)
    }

    fn kill(&mut self, pid: i32, held: Fd) {
        let first = self.pending;
        let listed = self.list(pid);
        self.hold_all(first, pid);
        if listed.is_err() {
            self.round.coverage = Coverage::Partial;
        }
        match pidfd_send_signal(held.raw(), SIGKILL) {
            Ok(()) => self.round.last = Some(held),
            Err(Errno::PERM) => self.round.refused += 1,
            Err(_) => {
                // Reaped: while its children were listed, its number may have been another process'.
                self.drop_pending(first);
                return;
            }
        }
        self.round.seen += 1;
        self.new += usize::from(insert(self.met, pid));
    }

    /// Adds the children of a process to the pending ones.
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

    /// Holds the pending ones from `first` on, children of `parent`, and leaves out the others.
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

    /// A pidfd of a living child of `parent`.
    fn hold(&mut self, pid: i32, parent: i32) -> Option<Fd> {
        if pid <= 0 || pid == self.walk.exclude {
            return None;
        }
        let held = pidfd_open(pid).ok();
        if held.as_ref().is_some_and(|held| is_dead(held.raw())) {
            return None;
        }
        let held = held.filter(|held| self.walk.has_parent(pid, held.raw(), parent) == Ok(true));
        if held.is_none() {
            self.round.coverage = Coverage::Partial;
        }
        held
    }

    fn place(&mut self, at: usize) -> Option<&mut [i32; 2]> {
        self.walk.arena.get_mut(2 * at..2 * at + 2)?.try_into().ok()
    }

    /// The last of the pending ones.
    fn next(&mut self) -> Option<(i32, Option<Fd>)> {
        self.pending = self.pending.checked_sub(1)?;
        let &mut [pid, held] = self.place(self.pending)?;
        Some((pid, (held >= 0).then_some(Fd(held))))
    }

    /// Gives up the pending ones from `first` on.
    fn drop_pending(&mut self, first: usize) {
        while self.pending > first && self.next().is_some() {
            self.round.coverage = Coverage::Partial;
        }
    }
}
