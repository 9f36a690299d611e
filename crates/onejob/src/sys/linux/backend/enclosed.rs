//! A job around its owner, which is the subreaper of the other members and a member itself.
//!
//! It has no guard: a running process cannot get another ancestor. Where the owner is the first process
//! of a PID namespace, the kernel ends the job with it.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
    process::{Pid, set_child_subreaper},
};

use super::{
    tracked::{self, Ownership, RecordPlace, Tracked, is_dead, usable_proc},
    unlisted::{self, Unlisted},
};
use crate::{
    Command, Error, Guarantees, OwnerDeath, Process, Result, Signal, Stats,
    spec::{Enclosure, JobSpec},
    stop::Stoppable,
    sys::{
        Backend, Freezer, JobRecord,
        linux::{
            deadline::has_passed,
            nostd::{
                procfs::Proc,
                syscall::{self, Errno},
            },
            process::{
                descendants::{self, Root},
                dropped_children, identity,
                tree::Tree,
            },
            registry::Record,
            spawn::local::{ChildMemory, spawn_local},
        },
    },
};

pub(super) struct Enclosed {
    tracked: Tracked,
    pid: i32,
    pidfd: OwnedFd,
    /// In a view: the processes that a stop has signalled. When the owner ends, the members below it can
    /// no longer be found.
    stopping: Mutex<Option<Arc<Tree>>>,
}

/// The guarantees of a job around the process with this number.
pub(super) fn guarantees(owner: u32) -> Guarantees {
    // The kernel ends a PID namespace with its first process.
    let owner_death = if owner == 1 { OwnerDeath::Kernel } else { OwnerDeath::None };
    tracked::guarantees_of(Enclosure::Caller, owner_death)
}

/// A job around this process, also without `/proc`.
pub(super) fn create(spec: &JobSpec) -> Result<Box<dyn Backend>> {
    // A private /proc is enough: no guard has to find it.
    match usable_proc().or_else(|error| mount_proc().map_err(|_| error)) {
        Err(error) if error.is_unsupported() => {
            become_subreaper(unlisted::has_child()?)?;
            Ok(Box::new(Unlisted::new(spec, error)?))
        }
        proc => Ok(Box::new(Enclosed::new(spec, proc?)?)),
    }
}

impl Enclosed {
    fn new(spec: &JobSpec, proc: Proc) -> Result<Enclosed> {
        let place = RecordPlace::of(spec)?;
        let pidfd = become_subreaper(has_child(&proc)?)?;
        let mut job = Enclosed {
            tracked: Tracked::new(proc),
            pid: std::process::id() as i32,
            pidfd,
            stopping: Mutex::default(),
        };
        if let Err(error) = job.tracked.publish(spec, &place, |_| Ok(())) {
            job.close();
            return Err(error);
        }
        Ok(job)
    }

    /// A view of the job of another process.
    pub(super) fn open(record: Record) -> Result<Enclosed> {
        let owner = record.header.owner;
        let tracked = Tracked::view(record)?;
        let pidfd = identity::reopen(&owner)?;
        Ok(Enclosed { tracked, pid: owner.pid as i32, pidfd, stopping: Mutex::default() })
    }

    fn root(&self) -> Root<'_> {
        Root { pid: self.pid, pidfd: self.pidfd.as_fd() }
    }

    /// The owner, if it is another process than this one: a member like the others then.
    fn other_owner(&self) -> Option<Root<'_>> {
        (self.pid as u32 != std::process::id()).then(|| self.root())
    }

    /// The result of an action on the processes below the owner.
    fn of_live_owner<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(_) if is_dead(self.pidfd.as_fd()) => Err(Error::unsupported(
                "the owner of the job has ended: the members below it can no longer be found",
            )),
            result => result,
        }
    }

    fn stopping(&self) -> MutexGuard<'_, Option<Arc<Tree>>> {
        self.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the owner and all below it. The record is removed here, since this job has no guards.
    fn kill_with_owner(&self, owner: Root<'_>) -> Result<()> {
        match self.stopping().take() {
            Some(stopping) => stopping.kill()?,
            None => Tree::new(owner)?.kill()?,
        }
        let record = self.tracked.record.as_ref();
        record.map(|record| record.owner_alive_or_reaped(Duration::ZERO));
        Ok(())
    }
}

fn has_child(proc: &Proc) -> Result<bool> {
    let mut has_child = false;
    proc.children(std::process::id() as i32, &mut |_| has_child = true)
        .map_err(|e| Error::os("list the children of this process", e))?;
    Ok(has_child)
}

/// Makes this process the subreaper of the processes that it starts from now on; returns its pidfd.
fn become_subreaper(has_child: bool) -> Result<OwnedFd> {
    let pid = std::process::id();
    // Below PID 1 is its whole namespace in any case.
    if has_child && pid != 1 {
        return Err(Error::unsupported(
            "this process already has children, whose orphans could not be told apart from members",
        )
        .with_hint("enclose before the first child is started"));
    }
    let pidfd = identity::caller()?;
    // This process is not its own child, so waitid(P_PIDFD) returns ECHILD; a kernel without P_PIDFD
    // returns EINVAL.
    if syscall::reap(pidfd.as_raw_fd(), false).is_err_and(|errno| errno == Errno::INVAL) {
        return Err(identity::no_pidfds());
    }
    set_child_subreaper(Pid::from_raw(pid as i32))
        .map_err(|e| Error::os("become a child subreaper", e))?;
    Ok(pidfd)
}

/// Mounts a private /proc, which is possible where this process has created its PID namespace and has not
/// mounted one.
fn mount_proc() -> std::result::Result<Proc, Errno> {
    let errno = |e: rustix::io::Errno| Errno(e.raw_os_error());
    let proc = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)?;
    fsconfig_create(proc.as_fd()).map_err(errno)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let dir = fsmount(proc.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(errno)?;
    Proc::at(dir.into())
}

impl Stoppable for Enclosed {
    fn terminate(&self, signal: Signal) -> Result<usize> {
        if let Some(owner) = self.other_owner() {
            let tree = Arc::new(Tree::new(owner)?);
            let signalled = tree.terminate(signal);
            *self.stopping() = Some(tree);
            return signalled;
        }
        let stop = || descendants::hold(&self.tracked.proc, self.root());
        tracked::terminate(signal, stop, |signal| self.signal(signal))
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        if let Some(owner) = self.other_owner() {
            let stopping = self.stopping().clone();
            return match stopping {
                Some(stopping) => stopping.wait(deadline),
                None => Ok(descendants::wait_dead(owner, deadline)),
            };
        }
        loop {
            let reap = &|| dropped_children::reap();
            match descendants::wait(&self.tracked.proc, self.root(), deadline, reap) {
                Ok(true) => return Ok(true),
                Ok(false) if has_passed(deadline) => return Ok(false),
                Ok(false) => {}
                Err(e) => return Err(Error::os("wait for the members of the job", e)),
            }
        }
    }

    fn kill(&self) -> Result<()> {
        match self.other_owner() {
            Some(owner) => self.kill_with_owner(owner)?,
            None => descendants::kill(&self.tracked.proc, self.root(), &|| {
                self.wait(Some(Instant::now()))
            })?,
        }
        // Clears the list of frozen processes: they are dead.
        let _ = self.tracked.thaw();
        Ok(())
    }
}

impl Backend for Enclosed {
    fn guarantees(&self) -> Guarantees {
        let mut guarantees = guarantees(self.pid as u32);
        Tracked::check_reach(&mut guarantees, self.pid, self.pidfd.as_fd());
        guarantees
    }

    fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
        if self.tracked.is_view() {
            return Err(Error::unsupported(
                "only the owner of a job that encloses it can start members",
            ));
        }
        let _not_stopped_meanwhile = self.tracked.spawn_lock.shared();
        spawn_local(command, None, ChildMemory::Shared)
    }

    fn join_on_exec(&self, _: &mut std::process::Command) -> Result<()> {
        if self.tracked.is_view() {
            return Err(Error::unsupported(
                "only the owner of a job that encloses it can start members",
            ));
        }
        // Every child of the owner is a member.
        Ok(())
    }

    fn processes(&self) -> Result<Vec<Process>> {
        let mut members = self.of_live_owner(self.tracked.list(self.root()))?;
        if !is_dead(self.pidfd.as_fd()) {
            let (pid, proc) = (self.pid as u32, Some(&self.tracked.proc));
            members.insert(0, identity::describe(pid, self.pidfd.as_fd(), proc));
        }
        Ok(members)
    }

    fn pids(&self) -> Result<Vec<u32>> {
        let mut members = self.of_live_owner(self.tracked.pids(self.root()))?;
        if !is_dead(self.pidfd.as_fd()) {
            members.insert(0, self.pid as u32);
        }
        Ok(members)
    }

    fn signal(&self, signal: Signal) -> Result<usize> {
        let _alone = self.tracked.spawn_lock.for_signal(signal);
        let (proc, owner) = (&self.tracked.proc, self.other_owner());
        self.of_live_owner(descendants::signal(proc, self.root(), owner, signal))
    }

    fn record(&self) -> Option<&dyn JobRecord> {
        self.tracked.job_record()
    }

    fn stats(&self) -> Result<Stats> {
        self.tracked.stats(&self.processes()?, [0; 2])
    }

    fn release(&mut self) -> Result<()> {
        self.tracked.not_owner()?;
        self.tracked.remove_record();
        self.tracked.ownership = Ownership::Released;
        Ok(())
    }

    fn close(&mut self) {
        if self.tracked.ownership == Ownership::Owner {
            let _ = self.kill();
            // Last: a job is over when its record is gone.
            self.tracked.remove_record();
        }
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        Some(self)
    }
}

impl Freezer for Enclosed {
    fn freeze(&self) -> Result<()> {
        let _alone = self.tracked.spawn_lock.alone();
        self.tracked.freeze(|record| {
            let (proc, owner) = (&self.tracked.proc, self.other_owner());
            self.of_live_owner(descendants::freeze(proc, self.root(), owner, record))
        })
    }

    fn thaw(&self) -> Result<()> {
        self.tracked.thaw()
    }
}
