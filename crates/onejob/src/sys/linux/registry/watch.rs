//! Waiting for the end of a job of another process.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{fs::inotify, io::Errno};

use super::record::Record;
use crate::{
    Error, Result,
    name::Name,
    sys::{
        JobRecord,
        linux::{
            deadline::{has_passed, wait_for},
            file::path_of_descriptor,
            nostd::syscall::{self, POLLIN, PollFd},
            process::identity,
        },
    },
};

/// Events of a job of another process: changes of its record, and the end of its owner and guards.
pub(crate) struct RecordWatch {
    changes: OwnedFd,
    /// Pidfds of the owner and the guards.
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
        inotify::add_watch(&changes, path_of_descriptor(record.file.as_fd()), wanted)
            .map_err(failed)?;
        let owner = record.is_of_own_namespace().then_some(&record.header.owner);
        let owner = owner.map_or(Ok(None), identity::find)?;
        let keepers = owner.into_iter().chain(record.guards()?).collect();
        Ok(RecordWatch { changes, keepers })
    }

    /// Also watches for removals in this directory. The files of a cgroup do not report its removal, and
    /// its emptiness with a delay that a removal cuts off.
    pub(crate) fn also(self, dir: BorrowedFd<'_>) -> Result<RecordWatch> {
        let wanted = inotify::WatchFlags::DELETE;
        inotify::add_watch(&self.changes, path_of_descriptor(dir), wanted)
            .map_err(|e| Error::os("watch the cgroups of the job", e))?;
        Ok(self)
    }

    /// Whether the owner and the guards are dead. Then any process that finds the job ends it.
    fn is_abandoned(&self, record: &Record) -> bool {
        let is_dead = |keeper: &OwnedFd| syscall::is_dead(keeper.as_raw_fd());
        self.keepers.iter().all(is_dead) && !record.owner_alive()
    }

    /// Ends an abandoned job as far as that takes no waiting; returns whether nothing is left.
    pub(crate) fn finish_if_abandoned(&self, record: &Record) -> bool {
        self.is_abandoned(record) && record.reap_abandoned(Duration::ZERO)
    }

    /// Waits for an event of the job, of `fds`, or the deadline.
    pub(crate) fn wait<'fd>(&'fd self, mut fds: Vec<PollFd<'fd>>, deadline: Option<Instant>) {
        fds.push(PollFd::new(&self.changes, POLLIN));
        let live = self.keepers.iter().filter(|keeper| !syscall::is_dead(keeper));
        fds.extend(live.map(|keeper| PollFd::new(keeper, POLLIN)));
        wait_for(&mut fds, deadline);
        let mut events = [0; 1024];
        while rustix::io::read(&self.changes, &mut events).is_ok_and(|len| len > 0) {}
    }
}

impl JobRecord for Record {
    fn id(&self) -> &str {
        self.id()
    }

    fn name(&self) -> Option<&Name> {
        self.name()
    }

    fn note(&self) -> Result<Option<String>> {
        self.note()
    }

    fn set_note(&self, note: &str) -> Result<()> {
        self.set_note(note)
    }

    /// Waits until the owner has released the job or has ended, and the guards have ended the job.
    fn wait_closed(&self, deadline: Option<Instant>) -> Result<bool> {
        if self.is_owners {
            return Err(Error::unsupported("a job is not over as long as its owner holds it")
                .with_hint("wait for its members instead"));
        }
        // The longest wait at once for the end of an abandoned job.
        const ROUND: Duration = Duration::from_secs(60);
        let watch = RecordWatch::new(self)?;
        let mut pause = Duration::from_millis(10);
        loop {
            let is_abandoned = watch.is_abandoned(self);
            let round = Instant::now() + ROUND;
            let round = deadline.map_or(round, |deadline| deadline.min(round));
            let left = round.saturating_duration_since(Instant::now());
            if self.is_over() || is_abandoned && self.reap_abandoned(left) {
                return Ok(true);
            }
            if has_passed(deadline) {
                return Ok(false);
            }
            if is_abandoned {
                // Another process is ending it, which no event reports.
                let soon = Instant::now() + pause;
                pause = (pause * 2).min(ROUND);
                watch.wait(Vec::new(), Some(deadline.map_or(soon, |deadline| deadline.min(soon))));
            } else {
                watch.wait(Vec::new(), deadline);
            }
        }
    }
}
