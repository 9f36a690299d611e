//! Names of jobs, and finding jobs by them.

use std::{fmt, time::SystemTime};

use crate::{Error, Job, Mechanism, ProcessId, Result, sys};

/// A name that a job can have: 1 to 64 of `A–Z a–z 0–9 . _ -`, neither a dot nor a dash first.
///
/// So it is a file name everywhere, never a path, never an option, and needs no quotes in a shell.
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
        Err(Error::invalid(format!("{text:?} is no name for a job")).with_hint(
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

/// A living job of this user, as [`jobs`] found it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobEntry {
    /// What tells it apart from every other job of this boot.
    pub id: String,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// What holds it together.
    pub mechanism: Mechanism,
    /// Who holds it; `None` if that process cannot be told.
    pub owner: Option<ProcessId>,
    /// When it was made; `None` if that cannot be told.
    pub started: Option<SystemTime>,
}

impl JobEntry {
    /// The job itself, as [`Job::open`] gives it.
    ///
    /// # Errors
    /// [`is_not_found`](Error::is_not_found) if it has ended meanwhile.
    pub fn open(&self) -> Result<Job> {
        Job::open(&self.id)
    }
}

/// The living jobs of this user that can be opened, whoever started them.
///
/// # Errors
/// If they cannot be listed. Jobs that end meanwhile are no error.
pub fn jobs() -> Result<impl Iterator<Item = JobEntry>> {
    sys::jobs().map(Vec::into_iter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name is a file name everywhere and never a path or an option.
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
