//! Finding jobs: the card of every job of this session is a named kernel object.

use std::{io, os::windows::io::OwnedHandle, path::PathBuf};

use windows_sys::Win32::{Foundation::GetLastError, System::RemoteDesktop::ProcessIdToSessionId};

use super::{
    nt,
    object::Object,
    record::{Record, RecordHeader},
};
use crate::{AbandonedJob, Error, JobEntry, Result, name::Name};

/// The kernel directory with the named objects of this session.
fn folder() -> Result<(String, OwnedHandle)> {
    let mut session = 0;
    // SAFETY: a place to write to.
    if unsafe { ProcessIdToSessionId(std::process::id(), &raw mut session) } == 0 {
        // SAFETY: returns a number.
        let code = unsafe { GetLastError() };
        let error = io::Error::from_raw_os_error(code as i32);
        return Err(Error::os("find the session of this process", error));
    }
    let open = |path: String| nt::open_directory(&path).map(|folder| (path, folder));
    open(format!(r"\Sessions\{session}\BaseNamedObjects"))
        .or_else(|_| open(r"\BaseNamedObjects".to_owned()))
        .map_err(|e| Error::os("open the kernel directory of named objects", e))
}

/// The kernel directory of named objects, which is not on a disk.
pub(crate) fn runtime_dir() -> Result<PathBuf> {
    folder().map(|(path, _)| path.into())
}

/// Always empty: the kernel ends a job when its last handle is closed.
pub(crate) fn abandoned_jobs() -> Result<Vec<AbandonedJob>> {
    Ok(Vec::new())
}

/// The cards of live jobs.
fn headers() -> Result<Vec<RecordHeader>> {
    let (_, folder) = folder()?;
    let names = nt::names_in(&folder);
    let names = names.map_err(|e| Error::os("list the kernel's named objects", e))?;
    let cards = names.iter().filter_map(|name| RecordHeader::parse(name));
    Ok(cards.filter(RecordHeader::owner_alive).collect())
}

pub(crate) fn jobs() -> Result<Vec<JobEntry>> {
    let mut cards = headers()?;
    // Jobs of other users are listed, but cannot be opened.
    cards.retain(|card| Object::open(&card.object()).is_ok());
    let mut entries: Vec<_> = cards.into_iter().map(RecordHeader::entry).collect();
    entries.sort_by_key(|entry| entry.started);
    Ok(entries)
}

/// Finds a live job by its name, or by a prefix of its id.
pub(super) fn find(job: &Name) -> Result<Record> {
    let cards = headers()?;
    let mut fitting: Vec<_> = cards.iter().filter(|card| card.name.as_ref() == Some(job)).collect();
    if fitting.is_empty() {
        fitting = cards.iter().filter(|card| card.id.starts_with(job.as_str())).collect();
    }
    match fitting[..] {
        [card] => {
            let failed = |e| Error::os(format!("open the job {job}"), e);
            Object::open(&card.object()).map_err(failed)?;
            Record::open(card.clone())
        }
        [] => Err(Error::missing(format!("there is no job {job}"))
            .with_hint("jobs() lists the live jobs")),
        _ => Err(Error::invalid(format!("{job} is a prefix of several job ids"))
            .with_hint("use more characters of the id, or the name")),
    }
}
