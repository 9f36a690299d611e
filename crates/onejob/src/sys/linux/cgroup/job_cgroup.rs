//! One cgroup of a job of this process.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{Access, AtFlags, FlockOperation, Mode, flock},
    io::Errno,
};

use super::{
    dir::{is_removed, open_child, write_text},
    names,
};
use crate::{
    Error, Result,
    sys::linux::nostd::syscall::{POLLIN, PollFd},
};

/// A cgroup of a job of this process. It is locked while this value exists, which distinguishes it from
/// an abandoned one.
pub(crate) struct JobCgroup {
    /// The number of the job.
    pub(crate) job: u32,
    /// The number of this cgroup in the job.
    pub(crate) number: u32,
    pub(crate) name: CString,
    pub(crate) dir: OwnedFd,
    /// Whether this process has killed it: it must not get new members.
    is_killed: AtomicBool,
    /// Readable once this process has emptied it. The event of the kernel comes with a delay, and not
    /// at all if the cgroup is removed before.
    ended: OwnedFd,
}

impl JobCgroup {
    /// Makes and locks the next cgroup of a job. `path` is the job root, for errors.
    pub(crate) fn create(
        job_root: BorrowedFd<'_>,
        path: &Path,
        owner_prefix: &str,
        job: u32,
        next: &AtomicU32,
    ) -> Result<JobCgroup> {
        let failed = |e: Errno| {
            let error = Error::os(format!("make a cgroup below {}", path.display()), e);
            match e {
                Errno::AGAIN => {
                    error.with_hint("cgroup.max.descendants or cgroup.max.depth is reached")
                }
                _ => error,
            }
        };
        // A process that cleans up abandoned cgroups can take a new one, but not this often.
        const TRIES: usize = 100;
        let mut last = Errno::EXIST;
        for _ in 0..TRIES {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number > 0 {
                names::mark_followed(job_root, owner_prefix, job).map_err(failed)?;
            }
            let name = names::name_of(owner_prefix, job, number);
            match rustix::fs::mkdirat(job_root, &name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(e) => return Err(failed(e)),
            }
            let locked = open_child(job_root, &name).and_then(|dir| {
                // Until it is locked it looks abandoned: another process can have locked or removed it.
                flock(&dir, FlockOperation::NonBlockingLockShared)?;
                rustix::fs::accessat(&dir, "cgroup.procs", Access::EXISTS, AtFlags::empty())?;
                Ok((dir, eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
            });
            match locked {
                Ok((dir, ended)) => {
                    let is_killed = AtomicBool::new(false);
                    return Ok(JobCgroup { job, number, name, dir, is_killed, ended });
                }
                Err(e) => {
                    let _ = rustix::fs::unlinkat(job_root, &name, AtFlags::REMOVEDIR);
                    last = e;
                }
            }
            if !matches!(last, Errno::AGAIN | Errno::NOENT | Errno::NODEV) {
                break;
            }
        }
        Err(failed(last))
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Whether it was killed or removed. A process that could not be started in it can be started in
    /// the next cgroup of the job.
    pub(crate) fn takes_no_member(&self) -> bool {
        self.is_killed() || is_removed(self.dir.as_fd())
    }

    pub(crate) fn mark_kill_begun(&self) {
        self.is_killed.store(true, Ordering::Release);
    }

    pub(crate) fn mark_ended(&self) {
        let _ = rustix::io::write(&self.ended, &1_u64.to_ne_bytes());
    }

    /// For a `poll` that ends when this process has emptied the cgroup.
    pub(crate) fn end_poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.ended, POLLIN)
    }

    /// Moves this process into the cgroup.
    pub(crate) fn move_caller_in(&self) -> Result<()> {
        write_text(self.dir.as_fd(), "cgroup.procs", "0")
            .map_err(|e| Error::os("move this process into the cgroup of its job", e))
    }
}
