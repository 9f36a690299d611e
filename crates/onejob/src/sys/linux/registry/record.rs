//! The record of a listed job: the owner's, or that of another process which has found it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, flock, fstat, ftruncate, openat,
        readlinkat, unlinkat,
    },
    io::Errno,
};

use super::{
    directory::{Registry, frozen_list_of, link_of, socket_of, temp_record_of},
    header::{FORMAT, RecordHeader, escape, guards_text, unescape},
    version::other_record,
};
use crate::{
    Error, Process, ProcessId, Result,
    name::Name,
    sys::{
        RecordTraits,
        linux::{
            cgroup::abandoned,
            deadline::{has_passed, wait_for},
            entry,
            nostd::syscall::{self, POLLIN, PollFd},
            process::{caller_limits::check_file_size, identity},
        },
    },
    trace::event,
};

/// The largest size of a record, in bytes.
pub(super) const MAX_RECORD: u64 = 1 << 20;

/// The record of a listed job.
pub(crate) struct Record {
    pub(super) registry: Arc<Registry>,
    /// Locked by the owner.
    pub(super) file: OwnedFd,
    pub(crate) header: RecordHeader,
    /// The guards, if the header did not name them.
    late_guards: OnceLock<[ProcessId; 2]>,
    pub(super) is_owners: bool,
}

impl Record {
    pub(super) fn new(
        registry: Arc<Registry>,
        file: OwnedFd,
        header: RecordHeader,
        is_owners: bool,
    ) -> Record {
        Record { registry, file, header, late_guards: OnceLock::new(), is_owners }
    }

    /// The record with this id, whether or not its job lives; `None` if there is none.
    pub(super) fn find(registry: &Arc<Registry>, id: &str) -> Result<Option<Record>> {
        match Record::find_any_format(registry, id)? {
            Some(record) if record.header.format != FORMAT => {
                Err(other_record(&registry.path.join(id), record.header.format, FORMAT))
            }
            record => Ok(record),
        }
    }

    /// The same, also in the format of another version of onejob. Only that version may end the job and
    /// remove the record.
    pub(super) fn find_any_format(registry: &Arc<Registry>, id: &str) -> Result<Option<Record>> {
        match open(registry, id)? {
            Some(file) => Record::from_file(registry, id, file).map(Some),
            None => Ok(None),
        }
    }

    /// The record with this id if its owner is dead.
    pub(super) fn find_abandoned(registry: &Arc<Registry>, id: &str) -> Result<Option<Record>> {
        // Checked before it is read, because most owners live.
        match open(registry, id)?.filter(|file| !is_locked(file)) {
            Some(file) => Record::from_file(registry, id, file).map(Some),
            None => Ok(None),
        }
    }

    fn from_file(registry: &Arc<Registry>, id: &str, file: OwnedFd) -> Result<Record> {
        let failed = |e: io::Error| Error::os(format!("read the record of job {id}"), e);
        let stat = fstat(&file).map_err(|e| failed(e.into()))?;
        let is_own_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_uid == registry.uid;
        if !is_own_file {
            return Err(registry.foreign_file(id));
        }
        let text = match read_text(file.as_fd()) {
            // It is not text, or longer than any record.
            Err(e)
                if matches!(
                    e.raw_os_error().map(Errno::from_raw_os_error),
                    None | Some(Errno::FBIG)
                ) =>
            {
                String::new()
            }
            text => text.map_err(failed)?,
        };
        let Some(header) = RecordHeader::parse(id, &text) else {
            let other = RecordHeader::format_of(&text).filter(|format| *format != FORMAT);
            let of_another = |format| other_record(&registry.path.join(id), format, FORMAT);
            return Err(other.map_or_else(|| registry.foreign_file(id), of_another));
        };
        Ok(Record::new(registry.clone(), file, header, false))
    }

    pub(crate) fn id(&self) -> &str {
        &self.header.id
    }

    pub(crate) fn name(&self) -> Option<&Name> {
        self.header.name.as_ref()
    }

    /// The last note of the owner. It can still be read when the job has ended.
    pub(crate) fn note(&self) -> Result<Option<String>> {
        let text = read_text(self.file.as_fd())
            .map_err(|e| Error::os(format!("read the record of job {}", self.header.id), e))?;
        // A line without an end is still being written.
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let last = complete.lines().filter_map(|line| line.strip_prefix("note ")).next_back();
        let note = last.and_then(unescape).and_then(|note| note.into_string().ok());
        Ok(note.filter(|note| !note.is_empty()))
    }

    /// Adds a note, which replaces those before.
    pub(crate) fn set_note(&self, note: &str) -> Result<()> {
        let failed =
            |e: io::Error| Error::os(format!("write the record of job {}", self.header.id), e);
        if !self.is_owners {
            return Err(Error::unsupported("only the owner of a job can set its note"));
        }
        self.append(&note_line(note)).map_err(|e| failed(e.into()))
    }

    /// Whether the record names the guards. That of a Cgroup job does once they have greeted.
    pub(crate) fn names_guards(&self) -> bool {
        self.header.guards.is_some() || self.late_guards.get().is_some()
    }

    /// Adds the guards. A record that has no room for them works without.
    pub(crate) fn name_guards(&self, guards: [ProcessId; 2]) {
        if self.late_guards.set(guards).is_ok() {
            let _ = self.append(&guards_text(&guards));
        }
    }

    /// Appends whole lines, all or none: a part of a line would spoil the next one.
    pub(super) fn append(&self, lines: &str) -> rustix::io::Result<()> {
        let size = fstat(&self.file)?.st_size as u64;
        if size + lines.len() as u64 > MAX_RECORD {
            return Err(Errno::FBIG);
        }
        check_file_size(size + lines.len() as u64)?;
        let mut rest = lines.as_bytes();
        while !rest.is_empty() {
            match rustix::io::write(&self.file, rest) {
                Ok(len) => rest = rest.get(len..).unwrap_or(&[]),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let _ = ftruncate(&self.file, size);
                    return Err(errno);
                }
            }
        }
        Ok(())
    }

    /// Whether the job has ended or was released: its record has been removed.
    pub(crate) fn is_over(&self) -> bool {
        fstat(&self.file).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Removes the record and its files: the job is over. The guards can have removed it before, so that
    /// another job has the name by now; that name stays.
    pub(crate) fn remove(&self) {
        let dir = &self.registry.dir;
        let unlink = |file: String| unlinkat(dir, file, AtFlags::empty());
        if let Some(name) = self.name() {
            self.registry.locked(|| {
                let target = readlinkat(dir, link_of(name), Vec::new());
                if target.is_ok_and(|target| target.to_bytes() == self.header.id.as_bytes()) {
                    let _ = unlink(link_of(name));
                }
            });
        }
        if self.traits().is_none_or(|traits| traits.has_files) {
            let _ = [socket_of(self.id()), frozen_list_of(self.id())].map(unlink);
        }
        // Last, because a process that finds it removes what is left. It can still be a temporary one.
        if unlink(self.header.id.clone()) == Err(Errno::NOENT) {
            let _ = unlink(temp_record_of(self.id()));
        }
    }

    /// `None` for a mechanism that this version does not know.
    fn traits(&self) -> Option<&'static RecordTraits> {
        entry(self.header.mechanism).map(|entry| &entry.record)
    }

    /// Whether the owner lives: it holds the lock.
    pub(super) fn owner_alive(&self) -> bool {
        is_locked(&self.file)
    }

    /// The same. If the owner is dead, ends what is left of the job, as far as its guards are done with it.
    pub(crate) fn owner_alive_or_reaped(&self, timeout: Duration) -> bool {
        let is_alive = self.owner_alive();
        if !is_alive {
            self.reap_abandoned(timeout);
        }
        is_alive
    }

    /// Whether the pids in it are those of this PID namespace.
    pub(crate) fn is_of_own_namespace(&self) -> bool {
        self.header.pid_namespace == self.registry.pid_namespace()
    }

    /// Whether a guard would end the job if its owner were killed. Guards that have not greeted yet exist
    /// all the same.
    pub(crate) fn is_guarded(&self) -> bool {
        let have_not_greeted = self.traits().is_some_and(|traits| traits.names_guards_late)
            && matches!(self.named_guards(), Ok(None));
        let is_alive = |guard: &OwnedFd| !syscall::is_dead(guard.as_raw_fd());
        have_not_greeted || self.guards().is_ok_and(|guards| guards.iter().any(is_alive))
    }

    /// Pidfds of the guards that exist.
    pub(super) fn guards(&self) -> Result<Vec<OwnedFd>> {
        let ids = self.named_guards()?.filter(|_| self.is_of_own_namespace());
        ids.iter().flatten().filter_map(|id| identity::find(id).transpose()).collect()
    }

    /// The guards that the record names now.
    fn named_guards(&self) -> Result<Option<[ProcessId; 2]>> {
        if self.header.guards.is_some() {
            return Ok(self.header.guards);
        }
        let text = read_text(self.file.as_fd())
            .map_err(|e| Error::os(format!("read the record of job {}", self.id()), e))?;
        Ok(RecordHeader::parse(self.id(), &text).and_then(|header| header.guards))
    }

    /// For a job whose owner is dead: waits for the guards, if they live, and ends what they have left.
    /// Returns whether nothing is left.
    pub(super) fn reap_abandoned(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let deadline = Some(until);
        // If the guards cannot be looked up, they may exist.
        let Ok(guards) = self.guards() else { return false };
        for guard in guards {
            while !syscall::is_dead(guard.as_raw_fd()) {
                if has_passed(deadline) {
                    return false;
                }
                wait_for(&mut [PollFd::new(&guard, POLLIN)], deadline);
            }
        }
        // If the cgroups are not all gone, the record stays, because nothing else leads to them.
        if let Some(base) = &self.header.base
            && !abandoned::end_job(base, &self.header.id, until)
        {
            return false;
        }
        event!(debug, "abandoned job cleaned up", id = self.header.id);
        self.remove();
        true
    }

    /// The members of a job in cgroups.
    pub(super) fn members(&self) -> Result<Vec<Process>> {
        let base = self.header.base.as_deref();
        base.map_or(Ok(Vec::new()), |base| abandoned::members(base, self.id()))
    }
}

/// Opens a record; `None` if there is none.
fn open(registry: &Registry, id: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(&registry.dir, id, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::NXIO) => Err(registry.foreign_file(id)),
        Err(e) => Err(Error::os(format!("open the record of job {id}"), e)),
    }
}

/// Whether another process holds the exclusive lock.
fn is_locked(file: &OwnedFd) -> bool {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            let _ = flock(file, FlockOperation::Unlock);
            false
        }
        Err(_) => true,
    }
}

pub(super) fn note_line(note: &str) -> String {
    format!("note {}\n", escape(note.as_bytes()))
}

/// Reads a whole file from its beginning; `FBIG` if it is larger than any record.
pub(super) fn read_text(file: BorrowedFd<'_>) -> io::Result<String> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    while text.len() as u64 <= MAX_RECORD {
        let len = rustix::io::pread(file, &mut chunk, text.len() as u64)?;
        text.extend_from_slice(chunk.get(..len).unwrap_or(&[]));
        // A read of a regular file is short only at its end.
        if len < chunk.len() {
            return String::from_utf8(text).map_err(io::Error::other);
        }
    }
    Err(Errno::FBIG.into())
}
