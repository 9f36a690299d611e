//! How a job that is listed can be found: its owner's record, or another process' view of that.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::{
    fs::{
        Access, AtFlags, FlockOperation, Mode, OFlags, flock, fstat, ftruncate, openat, readlinkat,
        renameat, unlinkat,
    },
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with},
};

use super::{
    RecordHeader, RecordWatch, claim,
    directory::{Registry, draft_of, link_of, locked, temp_record},
    header::{escape, guards_text, pid_namespace, process_of, text_of, unescape},
    watch::path_of,
};
use crate::{
    Error, Process, ProcessId, Result,
    name::Name,
    sys::{
        JobRecord, RecordTraits,
        linux::{
            cgroup::abandoned,
            deadline::{has_passed, wait_for},
            guard::client::Guards,
            nostd::syscall::{self, POLLIN, PollFd},
            process::{caller_limits::check_file_size, identity},
        },
    },
};

/// How large a record becomes at most, in bytes.
const MAX_RECORD: u64 = 1 << 20;

/// How a job that is listed can be found: the owner's record of it, or another process' view.
pub(crate) struct Record {
    registry: PathBuf,
    dir: OwnedFd,
    /// The owner's is locked.
    pub(super) file: OwnedFd,
    pub(crate) header: RecordHeader,
    /// Who guards the job, where the card did not say it yet.
    late_guards: OnceLock<[ProcessId; 2]>,
    is_owners: bool,
}

impl Record {
    /// Another process' view.
    pub(super) fn seen(
        registry: PathBuf,
        dir: OwnedFd,
        file: OwnedFd,
        card: RecordHeader,
    ) -> Record {
        Record { registry, dir, file, header: card, late_guards: OnceLock::new(), is_owners: false }
    }

    /// Makes the job known, after `prepare` has made whatever else it needs in the directory and has
    /// said the last on its card. From now on it can be found, and its name is taken.
    pub(crate) fn publish(
        registry: &Path,
        card: RecordHeader,
        note: Option<&str>,
        prepare: impl FnOnce(&mut RecordHeader) -> Result<()>,
    ) -> Result<Record> {
        let registry = Registry::create(registry)?;
        let failed = |e: Errno| {
            Error::os(format!("write the record of the job into {}", registry.path.display()), e)
        };
        let dir = registry.dir.try_clone().map_err(|e| Error::os("keep a directory open", e))?;
        let file = temp_record(&registry, &card.id).map_err(failed)?;
        let path = registry.path.clone();
        let mut record = Record { is_owners: true, ..Record::seen(path, dir, file, card) };
        let prepared = prepare(&mut record.header);
        let publish = || {
            prepared?;
            let note = note.map(note_line).unwrap_or_default();
            record.add(&(record.header.text() + &note), MAX_RECORD).map_err(failed)?;
            let (draft, id) = (draft_of(record.id()), record.id());
            renameat(&registry.dir, draft, &registry.dir, id).map_err(failed)?;
            record.name().map_or(Ok(()), |name| claim(&registry, name, id))
        };
        match publish() {
            Ok(()) => Ok(record),
            Err(error) => {
                // Where the name leads to another job it is not ours to remove.
                record.remove();
                Err(error)
            }
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.header.id
    }

    pub(crate) fn name(&self) -> Option<&Name> {
        self.header.name.as_ref()
    }

    /// The last note that its owner has written; still to be read when the job is over.
    pub(crate) fn note(&self) -> Result<Option<String>> {
        let text = read(self.file.as_fd())
            .map_err(|e| Error::os(format!("read the record of job {}", self.header.id), e))?;
        // A line without an end is still being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let last = whole.lines().filter_map(|line| line.strip_prefix("note ")).next_back();
        let note = last.and_then(unescape).and_then(|note| note.into_string().ok());
        Ok(note.filter(|note| !note.is_empty()))
    }

    /// Adds a note, which counts instead of those before.
    pub(crate) fn set_note(&self, note: &str) -> Result<()> {
        let failed =
            |e: io::Error| Error::os(format!("write the record of job {}", self.header.id), e);
        if !self.is_owners {
            return Err(Error::unsupported("only its owner writes the note of a job"));
        }
        self.add(&note_line(note), MAX_RECORD).map_err(|e| failed(e.into()))
    }

    /// Whether it says who guards the job: the record of a cgroup says so once they have greeted.
    pub(crate) fn names_guards(&self) -> bool {
        self.header.guards.is_some() || self.late_guards.get().is_some()
    }

    /// Adds who guards the job. A record that has no room for it does as well without.
    pub(crate) fn name_guards(&self, guards: [ProcessId; 2]) {
        if self.late_guards.set(guards).is_ok() {
            let _ = self.add(&guards_text(&guards), MAX_RECORD);
        }
    }

    /// Appends whole lines, all or nothing: half a line would spoil the next one.
    fn add(&self, lines: &str, most: u64) -> std::result::Result<(), Errno> {
        let size = fstat(&self.file)?.st_size as u64;
        if size + lines.len() as u64 > most {
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

    /// Whether the owner holds the job no more.
    pub(crate) fn is_over(&self) -> bool {
        fstat(&self.file).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Waits until the owner has let go of the job, or the guards have ended it; whether that came
    /// before the deadline.
    pub(crate) fn wait_closed(&self, deadline: Option<Instant>) -> Result<bool> {
        if self.is_owners {
            return Err(Error::unsupported("a job is not over as long as its owner holds it")
                .with_hint("wait is for the members"));
        }
        // How long the end of what dead owners have left is waited for at once.
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
                // Another process is ending it, which does not show by any event.
                let soon = Instant::now() + pause;
                pause = (pause * 2).min(ROUND);
                watch.wait(Vec::new(), Some(deadline.map_or(soon, |deadline| deadline.min(soon))));
            } else {
                watch.wait(Vec::new(), deadline);
            }
        }
    }

    /// Takes it back: the job is over. The name may be another job's by now, if the guards have
    /// taken it back before.
    pub(crate) fn remove(&self) {
        let unlink = |file: String| unlinkat(&self.dir, file, AtFlags::empty());
        if let Some(name) = self.name() {
            locked(&self.registry, || {
                let target = readlinkat(&self.dir, link_of(name), Vec::new());
                if target.is_ok_and(|target| target.to_bytes() == self.header.id.as_bytes()) {
                    let _ = unlink(link_of(name));
                }
            });
        }
        if self.traits().is_none_or(|traits| traits.has_files) {
            let _ = [self.socket(), self.frozen_file()].map(unlink);
        }
        // Last: whoever finds it removes what is left. It can still be a draft.
        if unlink(self.header.id.clone()) == Err(Errno::NOENT) {
            let _ = unlink(draft_of(self.id()));
        }
    }

    /// `None` for a mechanism that this version does not know.
    fn traits(&self) -> Option<&'static RecordTraits> {
        crate::sys::linux::entry(self.header.mechanism).map(|entry| &entry.record)
    }

    /// Whether its owner lives: only that keeps the lock.
    pub(super) fn owner_alive(&self) -> bool {
        match flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = flock(&self.file, FlockOperation::Unlock);
                false
            }
            Err(_) => true,
        }
    }

    /// Whether the numbers in it mean the same processes to us.
    pub(crate) fn is_of_our_namespace(&self) -> bool {
        self.header.pid_namespace == pid_namespace()
    }

    /// Whether somebody would take the job down if its owner were killed. Guards that had still to
    /// greet when we looked stood all the same.
    pub(crate) fn is_guarded(&self) -> bool {
        let is_yet_to_say = self.traits().is_some_and(|traits| traits.names_guards_late)
            && matches!(self.named_guards(), Ok(None));
        let is_alive = |guard: &OwnedFd| !syscall::is_dead(guard.as_raw_fd());
        is_yet_to_say || self.guards().is_ok_and(|guards| guards.iter().any(is_alive))
    }

    /// Those of the guards that are there.
    pub(super) fn guards(&self) -> Result<Vec<OwnedFd>> {
        let ids = self.named_guards()?.filter(|_| self.is_of_our_namespace());
        ids.iter().flatten().filter_map(|id| identity::find(id).transpose()).collect()
    }

    /// Those that it names, or has come to name since it was read.
    fn named_guards(&self) -> Result<Option<[ProcessId; 2]>> {
        if self.header.guards.is_some() {
            return Ok(self.header.guards);
        }
        let text = read(self.file.as_fd())
            .map_err(|e| Error::os(format!("read the record of job {}", self.header.id), e))?;
        Ok(RecordHeader::parse(self.id(), &text).and_then(|header| header.guards))
    }

    /// The owner is dead: takes down what the guards, if they live, have not taken down yet.
    /// Whether it is done.
    pub(super) fn reap_abandoned(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let deadline = Some(until);
        // Guards that cannot be looked for may be there.
        let Ok(guards) = self.guards() else { return false };
        for guard in guards {
            while !syscall::is_dead(guard.as_raw_fd()) {
                if has_passed(deadline) {
                    return false;
                }
                wait_for(&mut [PollFd::new(guard.as_raw_fd(), POLLIN)], deadline);
            }
        }
        // The record stays if its cgroups could not be looked for: it is all that leads to them.
        if let Some(base) = &self.header.base
            && !abandoned::end_job(base, &self.header.id, until)
        {
            return false;
        }
        self.remove();
        true
    }

    /// The members of a job in cgroups.
    pub(super) fn members(&self) -> Result<Vec<Process>> {
        let base = self.header.base.as_deref();
        base.map_or(Ok(Vec::new()), |base| abandoned::members(base, self.id()))
    }

    /// A socket where other processes of the user can ask the guards of this job.
    pub(crate) fn listener(registry: &Path, id: &str) -> Result<OwnedFd> {
        let failed = |e: Errno| Error::os("make the socket of the job's guard", e);
        let registry = Registry::create(registry)?;
        let socket = datagrams().map_err(failed)?;
        let address = address(registry.dir.as_fd(), &socket_of(id)).map_err(failed)?;
        bind(&socket, &address).map_err(failed)?;
        Ok(socket)
    }

    /// The guards of the job, to be asked.
    pub(crate) fn connect(&self) -> Result<Guards> {
        let failed = |e: Errno| Error::os(format!("reach the guard of job {}", self.header.id), e);
        let Some(ids) = self.header.guards.filter(|_| self.is_of_our_namespace()) else {
            return Err(Error::unsupported(format!(
                "job {} was started in another PID namespace",
                self.header.id
            )));
        };
        let socket = datagrams().map_err(failed)?;
        let address = address(self.dir.as_fd(), &self.socket()).map_err(failed)?;
        // Nobody there means that the inner guard is dead, which shows by itself.
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::NOENT | Errno::CONNREFUSED) => {}
            Err(e) => return Err(failed(e)),
        }
        Guards::connect(ids, socket)
    }

    pub(super) fn socket(&self) -> String {
        socket_of(&self.header.id)
    }

    pub(super) fn frozen_file(&self) -> String {
        format!("{}.frozen", self.header.id)
    }

    /// The list of whom a freeze stops, for whoever thaws.
    pub(crate) fn freezing(&self) -> Result<Freezing> {
        let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        openat(&self.dir, self.frozen_file(), flags | OFlags::NOFOLLOW, mode)
            .map(Freezing)
            .map_err(|e| Error::os("write down who is frozen", e))
    }

    /// Whether a freeze is written down.
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        let list = self.frozen_file();
        match rustix::fs::accessat(&self.dir, list, Access::EXISTS, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(Error::os("read whether the job is frozen", e)),
        }
    }

    /// Hands everybody whom a freeze has stopped to `thaw`, and forgets them then: killed in
    /// between, we leave the list to the next one.
    pub(crate) fn thaw(&self, thaw: impl Fn(&[ProcessId]) -> Result<()>) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let failed = |e: io::Error| Error::os("read who is frozen", e);
        let list = match openat(&self.dir, self.frozen_file(), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            list => list.map_err(|e| failed(e.into()))?,
        };
        let listed = || {
            let text = read(list.as_fd()).map_err(failed)?;
            Ok::<_, Error>(text.lines().filter_map(process_of).collect::<Vec<_>>())
        };
        let before = listed()?;
        thaw(&before)?;
        match unlinkat(&self.dir, self.frozen_file(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(Error::os("remove the list of frozen processes", e)),
        }
        // What a freeze has added meanwhile.
        thaw(listed()?.get(before.len()..).unwrap_or(&[]))
    }
}

impl Record {
    /// Whether its owner lives. If not, what is left of the job goes, unless its guards are still
    /// at it.
    pub(crate) fn owner_alive_or_reaped(&self, patience: Duration) -> bool {
        let held = self.owner_alive();
        if !held {
            self.reap_abandoned(patience);
        }
        held
    }
}

/// The list of whom a freeze under way stops.
pub(crate) struct Freezing(OwnedFd);

impl Freezing {
    /// Before it is stopped: who is listed and runs is thawed without harm, who is stopped and not
    /// listed never.
    pub(crate) fn add(&self, process: &ProcessId) -> io::Result<()> {
        let line = text_of(process) + "\n";
        check_file_size(fstat(&self.0)?.st_size as u64 + line.len() as u64)?;
        match rustix::io::write(&self.0, line.as_bytes())? {
            len if len == line.len() => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Whether nobody has thawed the job meanwhile.
    pub(crate) fn persist(&self) -> io::Result<bool> {
        Ok(fstat(&self.0)?.st_nlink > 0)
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

    fn wait_closed(&self, deadline: Option<Instant>) -> Result<bool> {
        self.wait_closed(deadline)
    }
}

fn note_line(note: &str) -> String {
    format!("note {}\n", escape(note.as_bytes()))
}

pub(super) fn socket_of(id: &str) -> String {
    format!("{id}.socket")
}

pub(super) fn datagrams() -> std::result::Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

/// An address has room for 107 bytes only, whatever the path to the directory is.
pub(super) fn address(
    dir: BorrowedFd<'_>,
    file: &str,
) -> std::result::Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("{}/{file}", path_of(dir)))
}

pub(super) fn read(file: BorrowedFd<'_>) -> io::Result<String> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    // None that we have written is larger.
    while text.len() as u64 <= MAX_RECORD {
        match rustix::io::pread(file, &mut chunk, text.len() as u64)? {
            0 => return String::from_utf8(text).map_err(io::Error::other),
            len => text.extend_from_slice(chunk.get(..len).unwrap_or(&[])),
        }
    }
    Err(Errno::FBIG.into())
}
