//! Names of jobs, and the list of live jobs.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use crate::{Error, Job, Mechanism, ProcessId, Result, sys};

/// The name of a job: 1 to 64 characters of `A–Z a–z 0–9 . _ -`, with no dot or dash in front.
///
/// Such a name is a valid file name on every system, is neither a path nor an option, and needs no
/// quotes in a shell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn new(text: &str) -> Result<Name> {
        const LONGEST: usize = 64;
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let fits = (1..=LONGEST).contains(&text.len());
        if fits && text.chars().all(is_allowed) && !text.starts_with(['.', '-']) {
            return Ok(Name(text.to_owned()));
        }
        Err(Error::invalid(format!("invalid job name {text:?}")).with_hint(
            "1 to 64 letters, digits, dots, underscores and dashes, no dot or dash in front",
        ))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A live job of this user, as returned by [`jobs`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobEntry {
    /// An id that is unique among all jobs of this boot.
    pub id: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The mechanism that holds it together.
    pub mechanism: Mechanism,
    /// The owner process; `None` if it cannot be determined.
    pub owner: Option<ProcessId>,
    /// The time at which it was made; `None` if it cannot be determined.
    pub started: Option<SystemTime>,
    record: KeptRecord,
}

impl JobEntry {
    pub(crate) fn new(id: String, mechanism: Mechanism) -> JobEntry {
        let record = KeptRecord::default();
        JobEntry { id, name: None, mechanism, owner: None, started: None, record }
    }

    /// Keeps the open record for [`open`](JobEntry::open).
    #[allow(dead_code, reason = "not every system keeps records open")]
    pub(crate) fn keep(&mut self, record: sys::Record) {
        self.record = KeptRecord(Arc::new(Mutex::new(Some(record))));
    }

    /// Opens the job, as [`Job::open`] does.
    ///
    /// # Errors
    /// [`is_not_found`](Error::is_not_found) if it has ended meanwhile.
    pub fn open(&self) -> Result<Job> {
        match self.record.take() {
            Some(record) => Job::open_listed(record),
            None => Job::open(&self.id),
        }
    }
}

/// The record of a listed job, until it is used to open the job.
#[derive(Clone, Default)]
struct KeptRecord(Arc<Mutex<Option<sys::Record>>>);

impl KeptRecord {
    fn take(&self) -> Option<sys::Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for KeptRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The live jobs of this user that can be opened, no matter which process started them.
///
/// # Errors
/// If they cannot be listed. A job that ends meanwhile does not cause an error.
pub fn jobs() -> Result<impl Iterator<Item = JobEntry>> {
    sys::jobs().map(Vec::into_iter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name is a valid file name on every system and never a path or an option.
    #[test]
    fn name_is_a_portable_file_name() {
        let longest = "x".repeat(64);
        for good in ["a", "dev-server", "a.b_c-1", "7", &longest] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(65);
        let bad = ["", ".", "..", ".a", "-a", "a/b", "../x", "/etc", "a b", "a\n", "a\0", "ä"];
        for bad in bad.into_iter().chain([&*too_long]) {
            assert!(Name::new(bad).unwrap_err().is_invalid_input(), "{bad:?}");
        }
    }
}
