//! Records: other processes find a job by named kernel objects. There are no files, so no record can
//! be stale.
//!
//! The kernel object of a listed job is named after its id. The owner also has three other objects:
//! the *card*, an event whose name contains the job and its owner, and which is signalled when the
//! owner releases the job; the *claim* to the name of the job; and the memory of its [`Notes`]. All
//! end with the handles of the owner. A view has handles of the card and the notes, never of the job.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    os::windows::io::{AsHandle as _, AsRawHandle as _, BorrowedHandle, OwnedHandle},
    ptr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use windows_sys::Win32::{
    Foundation::{ERROR_ALREADY_EXISTS, ERROR_INVALID_HANDLE, GetLastError},
    System::Threading::{
        CreateEventW, GetCurrentProcess, OpenEventW, SYNCHRONIZATION_SYNCHRONIZE, SetEvent,
    },
};

use super::{
    handles::{is_signalled, owned, wait_any, wide},
    identity,
    note_page::{self, Notes},
};
use crate::{Error, JobEntry, Mechanism, ProcessId, Result, name::Name, sys::JobRecord};

const LOCAL: &str = r"Local\";

/// A random number, unique in practice.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The job and its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) id: String,
    pub(super) name: Option<Name>,
    pub(super) owner: ProcessId,
    /// The time since the Unix epoch.
    started: Duration,
}

impl RecordHeader {
    /// For a job that this process makes now.
    pub(super) fn new(name: Option<Name>) -> RecordHeader {
        // SAFETY: the pseudo handle of the calling process.
        let me = unsafe { BorrowedHandle::borrow_raw(GetCurrentProcess()) };
        RecordHeader {
            id: format!("{:016x}", random()),
            name,
            owner: identity::id_of(std::process::id(), me),
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    fn text(&self) -> String {
        let RecordHeader { id, owner, name, started } = self;
        let name = name.as_ref().map_or("", Name::as_str);
        let started = started.as_nanos();
        format!("onejob-card,{id},{},{},{started},{name}", owner.pid, owner.start)
    }

    /// Parses the name of a kernel object; `None` if it is not a card.
    pub(super) fn parse(text: &str) -> Option<RecordHeader> {
        let mut parts = text.strip_prefix("onejob-card,")?.splitn(5, ',');
        let id = Name::new(parts.next()?).ok()?.as_str().to_owned();
        let (pid, start) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let started = Duration::from_nanos(parts.next()?.parse().ok()?);
        let owner = ProcessId { pid, start, boot: 0, inode: 0 };
        let name = match parts.next()? {
            "" => None,
            name => Some(Name::new(name).ok()?),
        };
        Some(RecordHeader { id, name, owner, started })
    }

    /// The name of the kernel object of the job.
    pub(super) fn object(&self) -> String {
        format!("{LOCAL}onejob,{}", self.id)
    }

    /// The name of the memory that the owner and all views share.
    pub(super) fn shared(&self) -> String {
        format!("{LOCAL}onejob-shared,{}", self.id)
    }

    fn notes(&self) -> String {
        format!("{LOCAL}onejob-notes,{}", self.id)
    }

    fn open(&self) -> io::Result<OwnedHandle> {
        let name = wide(format!("{LOCAL}{}", self.text()));
        // SAFETY: the name ends with a NUL; no child inherits the handle.
        owned(unsafe { OpenEventW(SYNCHRONIZATION_SYNCHRONIZE, 0, name.as_ptr()) })
    }

    /// Whether its owner still has the job.
    pub(super) fn owner_alive(&self) -> bool {
        let open = self.open().is_ok_and(|event| !is_signalled(event.as_handle()));
        open && identity::reopen(&self.owner, 0).is_ok()
    }

    pub(super) fn entry(self) -> JobEntry {
        let mut entry = JobEntry::new(self.id, Mechanism::JobObject);
        entry.name = self.name.map(|name| name.as_str().to_owned());
        entry.owner = Some(self.owner);
        entry.started = UNIX_EPOCH.checked_add(self.started);
        entry
    }
}

/// An event without attributes, so that no child inherits it. Once signalled, it stays signalled.
fn event(name: &str) -> io::Result<OwnedHandle> {
    let name = wide(format!("{LOCAL}{name}"));
    // SAFETY: the name ends with a NUL.
    let (event, code) = unsafe { (CreateEventW(ptr::null(), 1, 0, name.as_ptr()), GetLastError()) };
    let event = owned(event)?;
    if code == ERROR_ALREADY_EXISTS {
        return Err(io::Error::from_raw_os_error(code as i32));
    }
    Ok(event)
}

/// Claims a name: no other job can have it as long as the handle is open.
pub(super) fn claim(name: &Name) -> Result<OwnedHandle> {
    event(&format!("onejob-name,{name}")).map_err(|error| {
        // The name may also belong to a job of another user, or to an object of another type.
        let is_hidden = error.kind() == io::ErrorKind::PermissionDenied
            || error.raw_os_error() == Some(ERROR_INVALID_HANDLE as i32);
        if is_hidden || error.kind() == io::ErrorKind::AlreadyExists {
            return Error::name_taken(format!("a job named {name} is running already"));
        }
        Error::os(format!("claim the name {name}"), error)
    })
}

/// The record of a job of this process, or of a job that was found.
pub(crate) struct Record {
    pub(super) card: RecordHeader,
    notes: Notes,
    /// Signalled when the owner has released the job.
    over: OwnedHandle,
    whose: Role,
}

enum Role {
    Ours {
        _claim: Option<OwnedHandle>,
    },
    /// The owner process.
    Another(OwnedHandle),
}

impl Record {
    /// Publishes the record: other processes can find the job from now on.
    pub(super) fn publish(
        card: RecordHeader,
        claim: Option<OwnedHandle>,
        note: Option<&str>,
    ) -> Result<Record> {
        let failed = |e| Error::os("list the job", e);
        let notes = Notes::create(&card.notes()).map_err(failed)?;
        write(&notes, note.unwrap_or_default())?;
        let over = event(&card.text()).map_err(failed)?;
        Ok(Record { card, notes, over, whose: Role::Ours { _claim: claim } })
    }

    /// Opens the record of a job that was found.
    pub(super) fn open(card: RecordHeader) -> Result<Record> {
        let failed = |e| Error::os(format!("open the job {}", card.id), e);
        let owner = identity::reopen(&card.owner, 0)?;
        let notes = Notes::open(&card.notes()).map_err(failed)?;
        let over = card.open().map_err(failed)?;
        Ok(Record { card, notes, over, whose: Role::Another(owner) })
    }

    pub(crate) fn id(&self) -> &str {
        &self.card.id
    }

    pub(crate) fn name(&self) -> Option<&Name> {
        self.card.name.as_ref()
    }

    /// The last note that its owner has written; it can be read after the end of the job, too.
    pub(crate) fn note(&self) -> Result<Option<String>> {
        Ok(self.notes.read())
    }

    pub(crate) fn set_note(&self, note: &str) -> Result<()> {
        write(&self.notes, note)
    }

    /// Whether its owner has released the job or has ended.
    pub(super) fn is_over(&self) -> bool {
        self.ends().into_iter().any(is_signalled)
    }

    /// Handles that are signalled as soon as the owner releases the job or ends.
    pub(super) fn ends(&self) -> Vec<BorrowedHandle<'_>> {
        let owner = match &self.whose {
            Role::Ours { .. } => None,
            Role::Another(owner) => Some(owner.as_handle()),
        };
        [Some(self.over.as_handle()), owner].into_iter().flatten().collect()
    }

    /// Waits until the owner has released the job or has ended; returns whether that happened before
    /// the deadline.
    pub(crate) fn wait_closed(&self, deadline: Option<Instant>) -> Result<bool> {
        if matches!(self.whose, Role::Ours { .. }) {
            return Err(Error::unsupported(
                "cannot wait for the end of this job: this process is its owner",
            )
            .with_hint("Job::wait waits for the members"));
        }
        let woken = wait_any(&self.ends(), deadline);
        woken.map(|woken| woken.is_some()).map_err(|e| Error::os("wait for the owner", e))
    }

    /// Removes the record: the job is over.
    pub(super) fn remove(&self) {
        // SAFETY: an open event.
        unsafe { SetEvent(self.over.as_raw_handle()) };
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

fn write(notes: &Notes, note: &str) -> Result<()> {
    if note.len() > note_page::MAX_NOTE {
        return Err(Error::invalid(format!("the note is too long: {} bytes", note.len()))
            .with_hint(format!("the maximum is {} bytes", note_page::MAX_NOTE)));
    }
    let others = || Error::unsupported("only the owner of a job can set its note");
    notes.write(note).ok_or_else(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_reads_back_as_it_is_written() {
        for name in [None, Some(Name::new("dev-server").unwrap())] {
            let card = RecordHeader::new(name);
            assert_eq!(RecordHeader::parse(&card.text()).unwrap(), card);
        }
        for text in ["", "onejob-card", "onejob-card,", "onejob-card,a,1,x,2,", "onejob,a,1,2,3,"] {
            assert_eq!(RecordHeader::parse(text), None, "{text:?}");
        }
    }
}
