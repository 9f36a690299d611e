//! Listing, signalling and killing whatever is below a process.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use super::{
    PATIENCE,
    floor::{
        call::{self, Errno, POLLIN, PollFd, SIGCONT, SIGSTOP},
        proc::Proc,
        sweep::{Marks, Sweep},
        walk::{Coverage, Found, Frame, Visitor, Walk},
    },
    identity, is_past, wait_for,
};
use crate::{Error, Process, Result, Signal};

/// A process whose descendants are meant.
#[derive(Clone, Copy)]
pub(super) struct Root<'a> {
    pub(super) pid: i32,
    pub(super) pidfd: BorrowedFd<'a>,
}

/// How often a walk is repeated to meet those that moved while it was under way.
const ROUNDS: usize = 16;

/// Visits everybody below the root but the calling process, unless that is the root.
pub(super) fn visit(
    proc: &Proc,
    root: Root<'_>,
    visitor: &mut dyn Visitor,
) -> io::Result<Coverage> {
    let me = std::process::id() as i32;
    let mut walk = Walk {
        proc,
        arena: &mut vec![0; 1 << 16],
        path: &mut vec![Frame::EMPTY; 512],
        spare: if root.pid == me { 0 } else { me },
    };
    Ok(walk.below(root.pid, root.pidfd.as_raw_fd(), visitor)?)
}

/// A visitor made of a closure.
struct Each<F: FnMut(&Found)>(F);

impl<F: FnMut(&Found)> Visitor for Each<F> {
    fn enter(&mut self, found: &Found) {
        (self.0)(found);
    }
}

/// A pidfd that the walk owns, for the time of a visit.
pub(super) fn pidfd_of(found: &Found) -> BorrowedFd<'_> {
    // SAFETY: the walk keeps it open while `found` lives.
    unsafe { BorrowedFd::borrow_raw(found.pidfd) }
}

/// Meets everybody alive below the root once.
fn meet(proc: &Proc, root: Root<'_>, mut each: impl FnMut(&Found)) -> io::Result<()> {
    let mut known = HashSet::new();
    for _ in 0..ROUNDS {
        let mut visitor = Each(|found: &Found| {
            if known.insert(found.pid) {
                each(found);
            }
        });
        if visit(proc, root, &mut visitor)? == Coverage::Whole {
            break;
        }
    }
    Ok(())
}

/// Everybody alive below the root.
pub(super) fn list(proc: &Proc, root: Root<'_>) -> io::Result<Vec<Process>> {
    let mut members = Vec::new();
    let describe = |found: &Found| {
        members.push(identity::describe(found.pid as u32, pidfd_of(found), Some(proc)));
    };
    meet(proc, root, describe)?;
    Ok(members)
}

/// Their numbers alone.
pub(super) fn pids(proc: &Proc, root: Root<'_>) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    meet(proc, root, |found| pids.push(found.pid as u32))?;
    Ok(pids)
}

/// Sends a signal to everybody below the root, until a walk meets nobody new; and to one more.
pub(super) fn signal(
    proc: &Proc,
    root: Root<'_>,
    also: Option<Root<'_>>,
    signal: Signal,
) -> Result<usize> {
    let mut reached = Reached::new(signal);
    if let Some(also) = also {
        reached.send(also.pid, also.pidfd.as_raw_fd());
    }
    for _ in 0..ROUNDS {
        let before = reached.known.len();
        let coverage =
            visit(proc, root, &mut Each(|found: &Found| reached.send(found.pid, found.pidfd)))
                .map_err(|e| Error::os("list the members of the job", e))?;
        if reached.known.len() == before && coverage == Coverage::Whole {
            break;
        }
    }
    reached.count()
}

/// Who has been sent a signal, and how that went.
pub(super) struct Reached {
    signal: Signal,
    pub(super) known: HashSet<i32>,
    reached: usize,
    refused: Option<Errno>,
}

impl Reached {
    pub(super) fn new(signal: Signal) -> Reached {
        Reached { signal, known: HashSet::new(), reached: 0, refused: None }
    }

    pub(super) fn send(&mut self, pid: i32, pidfd: i32) {
        if !self.known.insert(pid) {
            return;
        }
        match call::pidfd_send_signal(pidfd, self.signal.as_raw()) {
            Ok(()) => self.reached += 1,
            Err(Errno::SRCH) => {}
            Err(errno) => self.refused = Some(errno),
        }
    }

    pub(super) fn count(self) -> Result<usize> {
        match self.refused {
            Some(errno) if self.reached == 0 => {
                Err(Error::os(format!("send {} to any member of the job", self.signal), errno))
            }
            _ => Ok(self.reached),
        }
    }
}

/// Kills everybody below the root until `is_empty` says so.
pub(super) fn kill(proc: &Proc, root: Root<'_>, is_empty: &dyn Fn() -> Result<bool>) -> Result<()> {
    // What is given back is empty most often, and needs none of the memory below.
    if let Ok(Children::None) = children(proc, root) {
        return Ok(());
    }
    let me = std::process::id() as i32;
    let (mut arena, mut path) = (vec![0; 1 << 16], vec![Frame::EMPTY; 512]);
    let spare = if root.pid == me { 0 } else { me };
    let start = Instant::now();
    let mut last_death = start;
    let mut fewest = usize::MAX;
    let mut refusals = 0;
    let mut marks = vec![0; 1 << 16];
    let marks: &mut Marks = marks.as_mut_slice().try_into().expect("of that size");
    let mut sweep = Sweep::new(marks);
    loop {
        let mut walk = Walk { proc, arena: &mut arena, path: &mut path, spare };
        let round = sweep.round(&mut walk, root.pid, root.pidfd.as_raw_fd());
        let round = match round {
            // The root has gone: whoever asks about emptiness knows what that means.
            Err(Errno::NOENT | Errno::SRCH) => return is_empty().map(drop),
            round => round.map_err(|e| Error::os("list the members of the job", e))?,
        };
        if round.seen == 0 && is_empty()? {
            return Ok(());
        }
        // A round among hundreds that all want the processor can take longer than our patience:
        // only what comes after it can show that nobody dies.
        if round.seen < fewest {
            fewest = round.seen;
            last_death = Instant::now();
        }
        refusals = if round.seen > 0 && round.seen == round.refused { refusals + 1 } else { 0 };
        if refusals > 2 || last_death.elapsed() > PATIENCE {
            let survivors = list(proc, root).map_err(|e| Error::os("list the survivors", e))?;
            return if survivors.is_empty() && is_empty()? {
                Ok(())
            } else {
                Err(Error::still_alive(survivors, start.elapsed()))
            };
        }
        let died = match &round.last {
            Some(last) => call::poll(&mut [PollFd::new(last.raw(), POLLIN)], 50) == 1,
            // Nobody was left to kill, but not all are reaped, or somebody is on the move.
            None => {
                call::poll(&mut [], 1);
                false
            }
        };
        if died {
            last_death = Instant::now();
        }
    }
}

/// Waits until a process is dead; whether that came before the deadline.
pub(super) fn wait_for_end(process: Root<'_>, deadline: Option<Instant>) -> bool {
    let pidfd = process.pidfd.as_raw_fd();
    while !call::is_dead(pidfd) {
        if is_past(deadline) {
            return false;
        }
        wait_for(&mut [PollFd::new(pidfd, POLLIN)], deadline);
    }
    true
}

/// Stops everybody below the root, and one more; answers those who were not stopped before. Each is
/// noted before it is stopped.
pub(super) fn freeze(
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

pub(super) fn thaw<'a>(stopped: impl Iterator<Item = BorrowedFd<'a>>) {
    for pidfd in stopped {
        let _ = call::pidfd_send_signal(pidfd.as_raw_fd(), SIGCONT);
    }
}

/// What is directly below the root.
pub(super) enum Children {
    /// Nobody at all, read at one instant: everybody further below would have come back to it.
    None,
    /// Only zombies, which have no children.
    Dead(Vec<i32>),
    /// Somebody who lives.
    Alive(OwnedFd),
}

pub(super) fn children(proc: &Proc, root: Root<'_>) -> io::Result<Children> {
    let mut pids = Vec::new();
    proc.children(root.pid, &mut |pid| pids.push(pid))?;
    // Of a dead root they are somebody else's by now, and its number may be, too.
    if call::is_dead(root.pidfd.as_raw_fd()) {
        return Err(Errno::SRCH.into());
    }
    let me = std::process::id() as i32;
    for pid in &pids {
        // A number that is somebody else's by now is only waited for, and looked at again then.
        let Ok(pidfd) = identity::pidfd_open(*pid as u32) else { continue };
        // Hidden from us (hidepid) does not mean gone.
        let is_child = || proc.stat(*pid).map_or(true, |stat| stat.parent == root.pid);
        if *pid != me && !call::is_dead(pidfd.as_raw_fd()) && is_child() {
            return Ok(Children::Alive(pidfd));
        }
    }
    Ok(if pids.is_empty() { Children::None } else { Children::Dead(pids) })
}

/// Waits until nobody lives below the root, or until the root itself has gone (`false`, before the
/// deadline). `settle` is called when only zombies are seen, to have them reaped.
pub(super) fn wait(
    proc: &Proc,
    root: Root<'_>,
    deadline: Option<Instant>,
    settle: &dyn Fn(),
) -> io::Result<bool> {
    let mut zombies = Vec::new();
    loop {
        match children(proc, root)? {
            Children::None => return Ok(true),
            // Twice the same: nobody reaps them, a tracer holds them.
            Children::Dead(pids) if pids == zombies => return Ok(true),
            Children::Dead(pids) => {
                settle();
                zombies = pids;
            }
            Children::Alive(member) => {
                zombies.clear();
                if is_past(deadline) {
                    return Ok(false);
                }
                let mut fds = [
                    PollFd::new(member.as_raw_fd(), POLLIN),
                    PollFd::new(root.pidfd.as_fd().as_raw_fd(), POLLIN),
                ];
                wait_for(&mut fds, deadline);
                if fds[1].fired() {
                    return Ok(false);
                }
            }
        }
    }
}
