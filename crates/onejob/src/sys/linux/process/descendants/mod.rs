//! What is below a process: listing, signalling, freezing, waiting for its end, and killing it.

mod freeze;
mod kill;
mod signal;
mod wait;

use std::{
    collections::HashSet,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

pub(crate) use freeze::{StoppedProcess, freeze, thaw, wait_stopped};
pub(crate) use kill::kill;
pub(crate) use signal::{SignalTally, hold, is_converging, signal};
pub(crate) use wait::{wait, wait_dead};

use super::{identity, snapshot::Listed};
use crate::{
    Process,
    sys::linux::nostd::{
        procfs::Proc,
        syscall::{self, Errno},
        tree_walk::{Coverage, Found, Frame, Visitor, Walk},
    },
};

/// A process whose descendants are meant.
#[derive(Clone, Copy)]
pub(crate) struct Root<'a> {
    pub(crate) pid: i32,
    pub(crate) pidfd: BorrowedFd<'a>,
}

/// How often a walk is repeated to meet those that moved while it was under way.
const ROUNDS: usize = 16;

/// Visits everybody below the root but the calling process, unless that is the root.
pub(crate) fn visit(
    proc: &Proc,
    root: Root<'_>,
    visitor: &mut dyn Visitor,
) -> io::Result<Coverage> {
    Ok(WalkMemory::new().walk(proc, root).below(root.pid, root.pidfd.into(), visitor)?)
}

/// The memory of a walk in this process, on the heap: a thread may have a small stack.
struct WalkMemory {
    arena: Vec<i32>,
    path: Vec<Frame>,
}

impl WalkMemory {
    fn new() -> WalkMemory {
        WalkMemory { arena: vec![0; 1 << 16], path: (0..512).map(|_| Frame::EMPTY).collect() }
    }

    /// A walk that ignores the caller, unless that is the root.
    fn walk<'a>(&'a mut self, proc: &'a Proc, root: Root<'_>) -> Walk<'a> {
        let me = std::process::id() as i32;
        let exclude = if root.pid == me { 0 } else { me };
        Walk { proc, arena: &mut self.arena, path: &mut self.path, exclude }
    }
}

/// A visitor made of a closure.
struct Each<F: FnMut(&Found<'_>)>(F);

impl<F: FnMut(&Found<'_>)> Visitor for Each<F> {
    fn enter(&mut self, found: &Found<'_>) {
        (self.0)(found);
    }
}

/// A pidfd that the walk owns, for the time of a visit.
pub(crate) fn pidfd_of<'walk>(found: &Found<'walk>) -> BorrowedFd<'walk> {
    found.pidfd.into()
}

/// Meets everybody alive below the root once.
fn for_each_live(proc: &Proc, root: Root<'_>, mut each: impl FnMut(&Found<'_>)) -> io::Result<()> {
    let mut known = HashSet::new();
    let mut coverage = Coverage::Partial;
    for _ in 0..ROUNDS {
        let mut visitor = Each(|found: &Found<'_>| {
            if known.insert(found.pid) {
                each(found);
            }
        });
        coverage = visit(proc, root, &mut visitor)?;
        if coverage == Coverage::Whole {
            break;
        }
    }
    failure(coverage).map_or(Ok(()), |errno| Err(errno.into()))
}

/// Why the last of several walks may not have seen all, if it was not the members' moving.
pub(crate) fn failure(coverage: Coverage) -> Option<Errno> {
    match coverage {
        Coverage::Failed(errno) => Some(errno),
        Coverage::Whole | Coverage::Partial => None,
    }
}

/// Everybody alive below the root.
pub(crate) fn list(proc: &Proc, root: Root<'_>) -> io::Result<Vec<Process>> {
    Ok(list_with_stat(proc, root)?.into_iter().map(|(process, _)| process).collect())
}

/// The same, with the statistics of each.
pub(crate) fn list_with_stat(proc: &Proc, root: Root<'_>) -> io::Result<Vec<Listed>> {
    let mut members = Vec::new();
    let describe = |found: &Found<'_>| {
        members.push(identity::describe_with_stat(found.pid as u32, pidfd_of(found), Some(proc)));
    };
    for_each_live(proc, root, describe)?;
    Ok(members)
}

/// Their numbers alone.
pub(crate) fn pids(proc: &Proc, root: Root<'_>) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for_each_live(proc, root, |found| pids.push(found.pid as u32))?;
    Ok(pids)
}

/// What is directly below the root.
enum Children {
    /// Nobody at all, read at one instant: everybody further below would have come back to it.
    None,
    /// Only zombies, which have no children.
    Dead(Vec<i32>),
    /// Somebody who lives.
    Alive(OwnedFd),
}

fn children(proc: &Proc, root: Root<'_>) -> io::Result<Children> {
    let mut pids = Vec::new();
    proc.children(root.pid, &mut |pid| pids.push(pid))?;
    // Of a dead root they are somebody else's by now, and its number may be, too.
    if syscall::is_dead(root.pidfd.as_raw_fd()) {
        return Err(Errno::SRCH.into());
    }
    let me = std::process::id() as i32;
    // The last one first: those before it have been here for longer, and may have ended.
    for pid in pids.iter().rev() {
        // A number that is somebody else's by now is only waited for, and looked at again then.
        let Some(pidfd) = identity::held(*pid as u32)? else { continue };
        // Hidden from us (hidepid) does not mean gone.
        let is_child = || proc.stat(*pid).map_or(true, |stat| stat.parent == root.pid);
        if *pid != me && !syscall::is_dead(pidfd.as_raw_fd()) && is_child() {
            return Ok(Children::Alive(pidfd));
        }
    }
    Ok(if pids.is_empty() { Children::None } else { Children::Dead(pids) })
}
