//! The first rounds of a sweep: whoever is met is killed before its children.
//!
//! Nobody may see a child of its die while it lives: a shell would go on to the next command. So the
//! children of a process are held before it is killed, and killed after it; what it starts in between
//! comes back to the root, and is the next round's. That needs no one to be stopped.
//!
//! Every child that is held was seen to have this parent (see [`Walk`]); that the parent was still
//! there, the signal that kills it proves for all of them. How many can be held at once depends on
//! the descriptors: who is not held comes back to the root as well.

use super::{
    call::{Errno, Fd, Result, SIGKILL, is_dead, pidfd_open, pidfd_send_signal},
    sweep::{Marks, Round, mark},
    walk::{Coverage, Walk},
};

/// What is known of a round that is under way.
struct Felling<'a, 'w> {
    walk: &'a mut Walk<'w>,
    /// How many are yet to be killed. Each has two places in the arena: its number, and its pidfd
    /// or -1 for a child of the root, which stays and can be asked later.
    waiting: usize,
    /// Who has been killed, in the rounds before, too: it can take a while to die.
    marks: &'a mut Marks,
    anew: usize,
    round: Round,
}

/// Kills everybody below the root, and answers how many have been met that were not met before: `None` if
/// there were more than `most`, or if processes are started as fast as we kill, and it gave up.
pub(crate) fn fell(
    walk: &mut Walk<'_>,
    marks: &mut Marks,
    root: i32,
    root_fd: i32,
    most: usize,
) -> Result<(Round, Option<usize>)> {
    let start = latest(walk);
    let mut next_look = BETWEEN_LOOKS;
    let round = Round { seen: 0, refused: 0, last: None, coverage: Coverage::Whole };
    let mut felling = Felling { walk, waiting: 0, marks, anew: 0, round };
    felling.list(root)?;
    let mut is_calm = true;
    while is_calm && let Some((pid, held)) = felling.next() {
        // The root is not killed, so it is asked whether it was still there.
        let has_root = |_: &Fd| pidfd_send_signal(root_fd, 0) != Err(Errno::SRCH);
        if let Some(held) = held.or_else(|| felling.hold(pid, root).filter(has_root)) {
            felling.kill(pid, held);
        }
        is_calm = felling.anew <= most;
        if felling.anew >= next_look {
            next_look += BETWEEN_LOOKS;
            // Numbers begin again at the highest one: that looks like nobody, for once.
            let started = latest(felling.walk).saturating_sub(start);
            is_calm &= started <= felling.anew / 2;
        }
    }
    felling.let_go(0);
    Ok((felling.round, is_calm.then_some(felling.anew)))
}

/// How many are killed before it is asked again how many the whole system has started meanwhile.
const BETWEEN_LOOKS: usize = 64;

/// The latest number that was given to a process.
fn latest(walk: &Walk<'_>) -> usize {
    walk.proc.tasks().map_or(0, |(_, latest)| latest)
}

impl Felling<'_, '_> {
    fn kill(&mut self, pid: i32, held: Fd) {
        let first = self.waiting;
        let listed = self.list(pid);
        self.hold_all(first, pid);
        if listed.is_err() {
            self.round.coverage = Coverage::Partial;
        }
        match pidfd_send_signal(held.raw(), SIGKILL) {
            Ok(()) => self.round.last = Some(held),
            Err(Errno::PERM) => self.round.refused += 1,
            Err(_) => {
                // Reaped: while we looked, its number may have been another's.
                self.let_go(first);
                return;
            }
        }
        self.round.seen += 1;
        self.anew += usize::from(mark(self.marks, pid));
    }

    /// Adds the children of a process to those who wait.
    fn list(&mut self, pid: i32) -> Result<()> {
        let (proc, arena) = (self.walk.proc, &mut *self.walk.arena);
        let (waiting, coverage) = (&mut self.waiting, &mut self.round.coverage);
        proc.children(pid, &mut |child| match arena.get_mut(2 * *waiting..2 * *waiting + 2) {
            Some(place) => {
                place.copy_from_slice(&[child, -1]);
                *waiting += 1;
            }
            None => *coverage = Coverage::Partial,
        })
    }

    /// Holds those who wait from `first` on, children of `parent`, and leaves out the others.
    fn hold_all(&mut self, first: usize, parent: i32) {
        let mut kept = first;
        for at in first..self.waiting {
            let Some(&mut [pid, _]) = self.place(at) else { break };
            let Some(held) = self.hold(pid, parent) else { continue };
            if let Some(place) = self.place(kept) {
                *place = [pid, held.into_raw()];
                kept += 1;
            }
        }
        self.waiting = kept;
    }

    /// A pidfd of a living child of `parent`.
    fn hold(&mut self, pid: i32, parent: i32) -> Option<Fd> {
        if pid <= 0 || pid == self.walk.spare {
            return None;
        }
        let held = pidfd_open(pid).ok();
        if held.as_ref().is_some_and(|held| is_dead(held.raw())) {
            return None;
        }
        let held = held.filter(|held| self.walk.has_parent(pid, held.raw(), parent));
        if held.is_none() {
            self.round.coverage = Coverage::Partial;
        }
        held
    }

    fn place(&mut self, at: usize) -> Option<&mut [i32; 2]> {
        self.walk.arena.get_mut(2 * at..2 * at + 2)?.try_into().ok()
    }

    /// The last of those who wait.
    fn next(&mut self) -> Option<(i32, Option<Fd>)> {
        self.waiting = self.waiting.checked_sub(1)?;
        let &mut [pid, held] = self.place(self.waiting)?;
        Some((pid, (held >= 0).then_some(Fd(held))))
    }

    /// Gives up who waits from `first` on.
    fn let_go(&mut self, first: usize) {
        while self.waiting > first && self.next().is_some() {
            self.round.coverage = Coverage::Partial;
        }
    }
}
