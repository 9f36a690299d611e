//! Visits every process below another, and verifies each before the visitor acts on it.
//!
//! A pid read from `/proc` may belong to an unrelated process when it is used. So the walk goes from parent to
//! child and holds a pidfd of every process on the path. It visits a child `c` of `P` only if, after the pidfd
//! of `c` was opened, pid `c` has the parent `P`, and `P` has not been reaped. If pid `c` was reused between
//! opening and this check, the process of the pidfd is dead, and a signal to it has no effect.

use super::{
    procfs::Proc,
    syscall::{
        AsFd, BorrowedFd, Errno, OwnedFd, Result, is_dead, parent_of, pidfd_open, pidfd_send_signal,
    },
};

/// A live process below the root.
pub(crate) struct Found<'walk> {
    pub(crate) pid: i32,
    pub(crate) pidfd: BorrowedFd<'walk>,
    /// The pid of its parent.
    pub(crate) parent: i32,
}

/// Acts on the processes of a walk.
pub(crate) trait Visitor {
    /// Called before the children of `found` are listed.
    fn enter(&mut self, found: &Found<'_>);
    /// Called after every process below `found` has been visited.
    fn leave(&mut self, _found: &Found<'_>) {}
    /// Whether the walk goes on.
    fn goes_on(&self) -> bool {
        true
    }
}

/// A process whose children are being visited. `arena[next..end]` are left.
pub(crate) struct Frame {
    pid: i32,
    /// `None` for the root.
    pidfd: Option<OwnedFd>,
    parent: i32,
    next: usize,
    end: usize,
}

impl Frame {
    pub(crate) const EMPTY: Frame = Frame { pid: 0, pidfd: None, parent: 0, next: 0, end: 0 };
}

/// The memory of a walk: `arena` for the pids of siblings that are left, `path` for the processes from the
/// root to the one whose children are being visited.
pub(crate) struct Walk<'a> {
    pub(crate) proc: &'a Proc,
    pub(crate) arena: &'a mut [i32],
    pub(crate) path: &'a mut [Frame],
    /// A process that the walk ignores with all below it: the caller, unless that is the root.
    pub(crate) exclude: i32,
}

/// Whether a walk has met every process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coverage {
    Whole,
    /// A process changed its parent or exited, or the memory was too small: another walk may meet more.
    Partial,
    /// A system call failed, so the walk may not have met every process.
    Failed(Errno),
}

impl Coverage {
    /// Records the error of a call about one process. If that process has gone, its children have moved.
    fn worsen(&mut self, errno: Errno) {
        match errno {
            // `INVAL` or `NOENT` is also the error for a pid that is a thread's by now; `PERM` or `NOENT` the
            // one for a process that `/proc` hides from this user (hidepid).
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
    /// Visits every live process below `root`, whose pidfd is `root_fd`, but not the root itself.
    pub(crate) fn below(
        &mut self,
        root: i32,
        root_fd: BorrowedFd<'_>,
        visitor: &mut dyn Visitor,
    ) -> Result<Coverage> {
        let mut coverage = Coverage::Whole;
        let mut depth = 1_usize;
        let end = self.list(root, 0, &mut coverage)?;
        *self.path.first_mut().ok_or(Errno::NOMEM)? = Frame { pid: root, end, ..Frame::EMPTY };
        while let Some(top) = depth.checked_sub(1).and_then(|top| self.path.get_mut(top)) {
            if top.next < top.end && visitor.goes_on() {
                let child = self.arena.get(top.next).copied().unwrap_or(0);
                top.next += 1;
                depth += usize::from(self.step(child, depth, root_fd, visitor, &mut coverage));
                continue;
            }
            depth -= 1;
            if let Some(pidfd) = top.pidfd.take() {
                let (pid, parent) = (top.pid, top.parent);
                visitor.leave(&Found { pid, pidfd: pidfd.as_fd(), parent });
            }
        }
        Ok(coverage)
    }

    /// Visits a child of the process at the top of the path, which has `depth` processes. Returns whether the
    /// child is the top now.
    fn step(
        &mut self,
        pid: i32,
        depth: usize,
        root_fd: BorrowedFd<'_>,
        visitor: &mut dyn Visitor,
        coverage: &mut Coverage,
    ) -> bool {
        if pid <= 0 || pid == self.exclude {
            return false;
        }
        let Some(top) = self.path.get(depth - 1) else { return false };
        let pidfd = match pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                coverage.worsen(errno);
                return false;
            }
        };
        if is_dead(&pidfd) {
            return false;
        }
        let (parent, start) = (top.pid, top.end);
        let parent_fd = top.pidfd.as_ref().map_or(root_fd, OwnedFd::as_fd);
        let is_child = self.is_child(pid, &pidfd, parent, parent_fd);
        if is_child != Ok(true) {
            coverage.worsen(is_child.err().unwrap_or(Errno::SRCH));
            return false;
        }
        visitor.enter(&Found { pid, pidfd: pidfd.as_fd(), parent });
        let listed = self.list(pid, start, coverage);
        match (listed, self.path.get_mut(depth)) {
            (Ok(end), Some(slot)) => {
                *slot = Frame { pid, pidfd: Some(pidfd), parent, next: start, end };
                true
            }
            (listed, _) => {
                coverage.worsen(listed.err().unwrap_or(Errno::SRCH));
                visitor.leave(&Found { pid, pidfd: pidfd.as_fd(), parent });
                false
            }
        }
    }

    /// Writes the children of a process into the arena, from `start` on. Returns where they end.
    fn list(&mut self, pid: i32, start: usize, coverage: &mut Coverage) -> Result<usize> {
        let mut end = start;
        let arena = &mut *self.arena;
        self.proc.children(pid, &mut |child| match arena.get_mut(end) {
            Some(slot) => {
                *slot = child;
                end += 1;
            }
            None => *coverage = Coverage::Partial,
        })?;
        Ok(end)
    }

    /// Whether the process is a child of `parent`, as the module describes.
    fn is_child(
        &self,
        pid: i32,
        pidfd: &OwnedFd,
        parent: i32,
        parent_fd: BorrowedFd<'_>,
    ) -> Result<bool> {
        // Signal 0 fails with SRCH only if the parent was reaped: then its pid may belong to another process.
        Ok(self.has_parent(pid, pidfd, parent)?
            && pidfd_send_signal(parent_fd, 0) != Err(Errno::SRCH))
    }

    /// Whether pid `parent` is the parent of the process. If `parent` has not been reaped afterwards, the
    /// process is a child of it.
    pub(crate) fn has_parent(&self, pid: i32, pidfd: impl AsFd, parent: i32) -> Result<bool> {
        match parent_of(pidfd) {
            Ok(pid) => return Ok(pid == parent),
            Err(Errno::SRCH) => return Ok(false),
            Err(_) => {}
        }
        match self.proc.stat(pid) {
            Ok(stat) => Ok(stat.parent == parent),
            // `/proc` may hide the process from this user (hidepid): the parent's list has it all the same.
            Err(_) => {
                let mut listed = false;
                self.proc.children(parent, &mut |child| listed |= child == pid)?;
                Ok(listed)
            }
        }
    }
}
