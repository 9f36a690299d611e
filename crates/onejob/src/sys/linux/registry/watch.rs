//! What tells that something has happened to a job of another process.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{fs::inotify, io::Errno};

use super::Record;
use crate::{
    Error, Result,
    sys::linux::{
        deadline::wait_for,
        nostd::syscall::{self, POLLIN, PollFd},
        process::identity,
    },
};
/// The very file that is open, wherever it lies by now.
pub(super) fn path_of(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// What tells that something has happened to a job of another process.
pub(crate) struct RecordWatch {
    changes: OwnedFd,
    keepers: Vec<OwnedFd>,
}

impl RecordWatch {
    pub(crate) fn new(record: &Record) -> Result<RecordWatch> {
        let failed = |e: Errno| Error::os(format!("watch the record of job {}", record.id()), e);
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = inotify::init(flags).map_err(failed)?;
        let wanted = inotify::WatchFlags::ATTRIB
            | inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&changes, path_of(record.file.as_fd()), wanted).map_err(failed)?;
        let owner = record.is_of_our_namespace().then_some(&record.header.owner);
        let owner = owner.map_or(Ok(None), identity::find)?;
        let keepers = owner.into_iter().chain(record.guards()?).collect();
        Ok(RecordWatch { changes, keepers })
    }

    /// Tells when something in this directory is removed, too. A cgroup's own files do not tell of
    /// its removal, and of its emptiness with a delay that a removal cuts off.
    pub(crate) fn also(self, dir: BorrowedFd<'_>) -> Result<RecordWatch> {
        let wanted = inotify::WatchFlags::DELETE;
        inotify::add_watch(&self.changes, path_of(dir), wanted)
            .map_err(|e| Error::os("watch the cgroups of the job", e))?;
        Ok(self)
    }

    /// Whether owner and guards are dead, so that any process that finds the job ends what is left.
    pub(super) fn is_abandoned(&self, record: &Record) -> bool {
        let dead = |keeper: &OwnedFd| syscall::is_dead(keeper.as_raw_fd());
        self.keepers.iter().all(dead) && !record.owner_alive()
    }

    /// Does so, as far as that takes no waiting. Whether nothing is left.
    pub(crate) fn finish_if_abandoned(&self, record: &Record) -> bool {
        self.is_abandoned(record) && record.reap_abandoned(Duration::ZERO)
    }

    /// Waits until one of `fds`, the record or one of the job's keepers has something to tell.
    pub(crate) fn wait(&self, mut fds: Vec<PollFd>, deadline: Option<Instant>) {
        fds.push(PollFd::new(self.changes.as_raw_fd(), POLLIN));
        let living = self.keepers.iter().filter(|keeper| !syscall::is_dead(keeper.as_raw_fd()));
        fds.extend(living.map(|keeper| PollFd::new(keeper.as_raw_fd(), POLLIN)));
        wait_for(&mut fds, deadline);
        let mut told = [0; 1024];
        while rustix::io::read(&self.changes, &mut told).is_ok_and(|len| len > 0) {}
    }
}
