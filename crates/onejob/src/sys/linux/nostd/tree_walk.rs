//! Everybody below a process, each proven to be there before anything is done to it.
//!
//! A number read from `/proc` proves nothing: by the time it is used it may be a stranger's. So the
//! walk goes from parent to child, holding a pidfd of every process on the way, and takes a child
//! `c` of `P` only if, after `c`'s pidfd was opened, number `c` is seen to have the parent `P`
//! while `P` is still there. If the pidfd is not that very process, then its process is dead, and
//! whatever is sent through it reaches nobody.

use super::{
    procfs::Proc,
    syscall::{Errno, Fd, Result, is_dead, parent_of, pidfd_open, pidfd_send_signal},
};

/// A process found alive below the root.
pub(crate) struct Found {
    pub(crate) pid: i32,
    pub(crate) pidfd: i32,
    /// Its parent's number.
    pub(crate) parent: i32,
}

/// What is done on the way.
pub(crate) trait Visitor {
    /// Before the children of `found` are looked at.
    fn enter(&mut self, found: &Found);
    /// After all below it have been visited.
    fn leave(&mut self, _found: &Found) {}
    /// Whether anybody else is to be visited.
    fn goes_on(&self) -> bool {
        true
    }
}

/// A process whose children are being visited: those that are left are `arena[next..end]`.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pid: i32,
    pidfd: i32,
    parent: i32,
    next: usize,
    end: usize,
}

impl Frame {
    pub(crate) const EMPTY: Frame = Frame { pid: 0, pidfd: 0, parent: 0, next: 0, end: 0 };
}

/// The memory a walk needs: `arena` for the numbers of brothers and sisters yet to come, `path` for
/// the processes from the root down to where we are.
pub(crate) struct Walk<'a> {
    pub(crate) proc: &'a Proc,
    pub(crate) arena: &'a mut [i32],
    pub(crate) path: &'a mut [Frame],
    /// The calling process: seen, but neither visited nor descended into unless it is the root.
    pub(crate) exclude: i32,
}

/// Whether a walk saw all there was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coverage {
    Whole,
    /// Something moved or ran out of room: another walk will see more.
    Partial,
    /// The kernel refused to say something, so that processes may live that were not seen.
    Failed(Errno),
}

impl Coverage {
    /// After an error with which a process could not be looked at. One that says that it is gone means
    /// that it has moved.
    fn worsen(&mut self, errno: Errno) {
        match errno {
            // A number that is a thread's by now is `INVAL` or `NOENT`, a process that `/proc` hides from
            // us (hidepid) `PERM` or `NOENT`.
            Errno::SRCH | Errno::NOENT | Errno::INVAL | Errno::PERM => {
                if *self == Coverage::Whole {
                    *self = Coverage::Partial;
                }
            }
            errno => *self = Coverage::Failed(errno),
        }
    }
}

impl Walk<'_> {
    /// Visits every living process below `root`, which `root_fd` holds. The root is not visited.
    pub(crate) fn below(
        &mut self,
        root: i32,
        root_fd: i32,
        visitor: &mut dyn Visitor,
    ) -> Result<Coverage> {
        let mut coverage = Coverage::Whole;
        let mut depth = 1_usize;
        let first = Frame { pid: root, pidfd: root_fd, parent: 0, next: 0, end: 0 };
        *self.path.first_mut().ok_or(Errno::NOMEM)? = self.list(first, 0, &mut coverage)?;
        while let Some(top) = depth.checked_sub(1).and_then(|top| self.path.get_mut(top)) {
            if top.next < top.end && visitor.goes_on() {
                let at = top.next;
                top.next += 1;
                let parent = *top;
                let child = self.arena.get(at).copied().unwrap_or(0);
                depth += usize::from(self.step(child, &parent, depth, visitor, &mut coverage));
                continue;
            }
            let done = *top;
            depth -= 1;
            if depth > 0 {
                visitor.leave(&Found { pid: done.pid, pidfd: done.pidfd, parent: done.parent });
                drop(Fd(done.pidfd));
            }
        }
        Ok(coverage)
    }

    /// Takes one child; whether it is now the top of the path.
    fn step(
        &mut self,
        pid: i32,
        parent: &Frame,
        depth: usize,
        visitor: &mut dyn Visitor,
        coverage: &mut Coverage,
    ) -> bool {
        if pid <= 0 || pid == self.exclude {
            return false;
        }
        let pidfd = match pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                coverage.worsen(errno);
                return false;
            }
        };
        if is_dead(pidfd.raw()) {
            return false;
        }
        let is_child = self.is_child(pid, pidfd.raw(), parent);
        if is_child != Ok(true) {
            coverage.worsen(is_child.err().unwrap_or(Errno::SRCH));
            return false;
        }
        let found = Found { pid, pidfd: pidfd.raw(), parent: parent.pid };
        visitor.enter(&found);
        let frame = Frame { pid, pidfd: pidfd.raw(), parent: parent.pid, next: 0, end: 0 };
        let listed = self.list(frame, parent.end, coverage);
        match (listed, self.path.get_mut(depth)) {
            (Ok(frame), Some(slot)) => {
                *slot = frame;
                // The path owns it from here on.
                pidfd.into_raw();
                true
            }
            (listed, _) => {
                coverage.worsen(listed.err().unwrap_or(Errno::SRCH));
                visitor.leave(&found);
                false
            }
        }
    }

    /// Reads the children of a process into the arena, from `start` on.
    fn list(&mut self, frame: Frame, start: usize, coverage: &mut Coverage) -> Result<Frame> {
        let mut end = start;
        let arena = &mut *self.arena;
        self.proc.children(frame.pid, &mut |child| match arena.get_mut(end) {
            Some(slot) => {
                *slot = child;
                end += 1;
            }
            None => *coverage = Coverage::Partial,
        })?;
        Ok(Frame { next: start, end, ..frame })
    }

    /// Whether the process behind `pidfd`, number `pid`, is a child of `parent`. See the proof above.
    fn is_child(&self, pid: i32, pidfd: i32, parent: &Frame) -> Result<bool> {
        // The signal 0 fails only for a parent that was reaped, whose number may be another's now.
        Ok(self.has_parent(pid, pidfd, parent.pid)?
            && pidfd_send_signal(parent.pidfd, 0) != Err(Errno::SRCH))
    }

    /// Half of the proof: that its parent has this number. The other half is that the parent is still
    /// there afterwards.
    pub(crate) fn has_parent(&self, pid: i32, pidfd: i32, parent: i32) -> Result<bool> {
        match parent_of(pidfd) {
            Ok(number) => return Ok(number == parent),
            Err(Errno::SRCH) => return Ok(false),
            Err(_) => {}
        }
        match self.proc.stat(pid) {
            Ok(stat) => Ok(stat.parent == parent),
            // Hidden from us (hidepid) does not mean gone: ask the parent once more.
            Err(_) => {
                let mut listed = false;
                self.proc.children(parent, &mut |child| listed |= child == pid)?;
                Ok(listed)
            }
        }
    }
}
