//! Finding jobs: every card of this session's is an object of the kernel's with a name.

use std::{io, os::windows::io::OwnedHandle, path::PathBuf};

use windows_sys::Win32::{Foundation::GetLastError, System::RemoteDesktop::ProcessIdToSessionId};

use super::{
    nt,
    object::Object,
    record::{Record, RecordHeader},
};
use crate::{AbandonedJob, Error, JobEntry, Result, name::Name};

/// The folder of the kernel's in which this session's names are.
fn folder() -> Result<(String, OwnedHandle)> {
    let mut session = 0;
    // SAFETY: a place to write to.
    if unsafe { ProcessIdToSessionId(std::process::id(), &raw mut session) } == 0 {
        // SAFETY: asks for a number.
        let code = unsafe { GetLastError() };
        return Err(Error::os("find our session", io::Error::from_raw_os_error(code as i32)));
    }
    let open = |path: String| nt::open_directory(&path).map(|folder| (path, folder));
    open(format!(r"\Sessions\{session}\BaseNamedObjects"))
        .or_else(|_| open(r"\BaseNamedObjects".to_owned()))
        .map_err(|e| Error::os("open the folder of the kernel's named objects", e))
}

/// Not on a disk: the kernel's folder of names.
pub(crate) fn runtime_dir() -> Result<PathBuf> {
    folder().map(|(path, _)| path.into())
}

/// Nothing: the kernel ends what nobody holds.
pub(crate) fn abandoned_jobs() -> Result<Vec<AbandonedJob>> {
    Ok(Vec::new())
}

/// The cards of living jobs.
fn headers() -> Result<Vec<RecordHeader>> {
    let (_, folder) = folder()?;
    let names = nt::names_in(&folder);
    let names = names.map_err(|e| Error::os("list the kernel's named objects", e))?;
    let cards = names.iter().filter_map(|name| RecordHeader::parse(name));
    Ok(cards.filter(RecordHeader::owner_alive).collect())
}

pub(crate) fn jobs() -> Result<Vec<JobEntry>> {
    let mut cards = headers()?;
    // Another user's can be seen, but not opened.
    cards.retain(|card| Object::open(&card.object()).is_ok());
    let mut entries: Vec<_> = cards.into_iter().map(RecordHeader::entry).collect();
    entries.sort_by_key(|entry| entry.started);
    Ok(entries)
}

/// The living job that is meant: by its name, or by the beginning of its id.
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
            .with_hint("onejob ls lists those that run")),
        _ => Err(Error::invalid(format!("{job} is the beginning of several ids"))
            .with_hint("more of the id, or the name")),
    }
}
