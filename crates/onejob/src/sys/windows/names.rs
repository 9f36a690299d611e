//! The kernel's own names are the record of jobs: there are no files, so nothing can be stale.
//!
//! A job's kernel object is named after it, or after its id. Beside it the owner keeps a *card*, an
//! event whose name says which job this is and whose; both go with the owner's handles.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    os::windows::io::OwnedHandle,
    ptr,
};

use windows_sys::Win32::{
    Foundation::{ERROR_INVALID_HANDLE, GetLastError},
    System::{
        RemoteDesktop::ProcessIdToSessionId,
        Threading::{CreateEventW, GetCurrentProcess, OpenEventW, SYNCHRONIZATION_SYNCHRONIZE},
    },
};

use super::{
    handles::{owned, wide},
    identity, nt,
    object::Object,
};
use crate::{Error, JobEntry, Mechanism, ProcessId, Result, name::Name};

const LOCAL: &str = r"Local\";

/// A number that nobody else comes up with.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Which job it is, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) id: String,
    pub(super) owner: ProcessId,
    pub(super) name: Option<Name>,
}

impl Card {
    fn text(&self) -> String {
        let Card { id, owner, name } = self;
        let name = name.as_ref().map_or("", Name::as_str);
        format!("onejob-card,{id},{},{},{name}", owner.pid, owner.start)
    }

    fn parse(text: &str) -> Option<Card> {
        let mut parts = text.strip_prefix("onejob-card,")?.splitn(4, ',');
        let id = Name::new(parts.next()?).ok()?.as_str().to_owned();
        let (pid, start) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let owner = ProcessId { pid, start, boot: 0, inode: 0 };
        let name = match parts.next()? {
            "" => None,
            name => Some(Name::new(name).ok()?),
        };
        Some(Card { id, owner, name })
    }

    /// The name of the kernel's job.
    pub(super) fn object(&self) -> String {
        match &self.name {
            Some(name) => format!("{LOCAL}onejob-{name}"),
            // No name of a job has a comma.
            None => format!("{LOCAL}onejob,{}", self.id),
        }
    }

    /// Whether its owner still holds the job.
    pub(super) fn is_held(&self) -> bool {
        let name = wide(format!("{LOCAL}{}", self.text()));
        // SAFETY: the name ends with a NUL; no child inherits the handle, which is closed at once.
        owned(unsafe { OpenEventW(SYNCHRONIZATION_SYNCHRONIZE, 0, name.as_ptr()) }).is_ok()
    }

    fn entry(self) -> JobEntry {
        JobEntry {
            id: self.id,
            name: self.name.map(|name| name.as_str().to_owned()),
            mechanism: Mechanism::JobObject,
            owner: Some(self.owner),
        }
    }
}

/// A new job of the kernel's with its card, which lives as long as the handle.
pub(super) fn create(name: Option<&Name>) -> Result<(Object, Card, OwnedHandle)> {
    let failed = |e| Error::os("create a Job Object", e);
    // SAFETY: the handle that always means ourselves.
    let me = unsafe { std::os::windows::io::BorrowedHandle::borrow_raw(GetCurrentProcess()) };
    let owner = identity::id_of(std::process::id(), me);
    let card = Card { id: format!("{:016x}", random()), owner, name: name.cloned() };
    let object = Object::create(&card.object()).map_err(|error| match (name, error.kind()) {
        (Some(name), kind) if is_taken(kind, &error) => {
            Error::name_taken(format!("a job named {name} is running already"))
        }
        _ => failed(error),
    })?;
    let text = wide(format!("{LOCAL}{}", card.text()));
    // SAFETY: no attributes, so no child inherits it; the name ends with a NUL.
    let event = owned(unsafe { CreateEventW(ptr::null(), 1, 0, text.as_ptr()) }).map_err(failed)?;
    Ok((object, card, event))
}

/// The name may also be another user's job, or belong to an object of another kind.
fn is_taken(kind: io::ErrorKind, error: &io::Error) -> bool {
    matches!(kind, io::ErrorKind::AlreadyExists | io::ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(ERROR_INVALID_HANDLE as i32)
}

/// The cards of this session whose owners live.
fn cards() -> Result<Vec<Card>> {
    let mut session = 0;
    // SAFETY: a place to write to.
    if unsafe { ProcessIdToSessionId(std::process::id(), &raw mut session) } == 0 {
        // SAFETY: asks for a number.
        let code = unsafe { GetLastError() };
        return Err(Error::os("find our session", io::Error::from_raw_os_error(code as i32)));
    }
    let folder = nt::open_directory(&format!(r"\Sessions\{session}\BaseNamedObjects"))
        .or_else(|_| nt::open_directory(r"\BaseNamedObjects"));
    let names = folder.and_then(|folder| nt::names_in(&folder));
    let names = names.map_err(|e| Error::os("list the kernel's named objects", e))?;
    let cards = names.iter().filter_map(|name| Card::parse(name));
    Ok(cards.filter(|card| identity::reopen(&card.owner, 0).is_ok()).collect())
}

pub(crate) fn jobs() -> Result<Vec<JobEntry>> {
    let mut cards = cards()?;
    // Another user's can be seen, but not opened.
    cards.retain(|card| Object::open(&card.object()).is_ok());
    Ok(cards.into_iter().map(Card::entry).collect())
}

/// The card of a living job that can be opened.
pub(super) fn find(name: &Name) -> Result<Card> {
    let cards = cards()?;
    let mut fitting: Vec<_> =
        cards.iter().filter(|card| card.name.as_ref() == Some(name)).collect();
    if fitting.is_empty() {
        fitting = cards.iter().filter(|card| card.id.starts_with(name.as_str())).collect();
    }
    let failed = |e| Error::os(format!("open the job {name}"), e);
    match fitting[..] {
        [card] => Object::open(&card.object()).map(|_| card.clone()).map_err(failed),
        // Without a card: what the kernel says of the name, such as that it is another user's.
        [] => match Object::open(&format!("{LOCAL}onejob-{name}")) {
            Ok(_) => Err(failed(io::Error::from(io::ErrorKind::NotFound))),
            Err(error) => Err(failed(error)),
        },
        _ => Err(Error::invalid(format!("{name} is the beginning of several ids"))
            .hint("more of the id, or the name")),
    }
}
