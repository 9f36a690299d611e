//! Finding jobs: every card of this session's is an object of the kernel's with a name.

use std::io;

use windows_sys::Win32::{Foundation::GetLastError, System::RemoteDesktop::ProcessIdToSessionId};

use super::{
    nt,
    object::Object,
    record::{Card, Record},
};
use crate::{Error, JobEntry, Result, name::Name};

/// The cards of living jobs.
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
    Ok(cards.filter(Card::is_held).collect())
}

pub(crate) fn jobs() -> Result<Vec<JobEntry>> {
    let mut cards = cards()?;
    // Another user's can be seen, but not opened.
    cards.retain(|card| Object::open(&card.object()).is_ok());
    let mut entries: Vec<_> = cards.into_iter().map(Card::entry).collect();
    entries.sort_by_key(|entry| entry.started);
    Ok(entries)
}

/// The living job that is meant: by its name, or by the beginning of its id.
pub(super) fn find(job: &Name) -> Result<Record> {
    let cards = cards()?;
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
        [] => {
            Err(Error::missing(format!("there is no job {job}"))
                .hint("onejob ls lists those that run"))
        }
        _ => Err(Error::invalid(format!("{job} is the beginning of several ids"))
            .hint("more of the id, or the name")),
    }
}
