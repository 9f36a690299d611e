//! The properties of a new job, as the mechanisms get them.

use crate::{Error, Limits, Result, name::Name};

/// Whether the next mechanism is tried after this error. It is, if the error means that the mechanism
/// is not available on this host. Any other error (a full descriptor table) would recur with the next
/// mechanism.
pub(crate) fn allows_next(error: &Error) -> bool {
    error.is_unmet_requirement() || error.is_unsupported()
}

/// The properties of a new job that do not depend on its mechanism.
#[derive(Debug, Clone)]
pub(crate) struct JobSpec {
    pub(crate) around: Enclosure,
    pub(crate) name: Option<Name>,
    pub(crate) listed: bool,
    pub(crate) note: Option<String>,
    pub(crate) limits: Limits,
    #[allow(dead_code, reason = "not every system has to turn accounting on")]
    pub(crate) account: bool,
}

impl JobSpec {
    /// A job without a name, note or limits.
    pub(crate) fn plain(around: Enclosure) -> JobSpec {
        let limits = Limits::default();
        JobSpec { around, name: None, listed: false, note: None, limits, account: false }
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.listed || self.name.is_some()
    }

    /// Turns a failure to list the job into `None` if the job has no name. A job with a name must be
    /// listed.
    pub(crate) fn published<T>(&self, record: Result<T>) -> Result<Option<T>> {
        match record {
            Err(_) if self.name.is_none() => Ok(None),
            record => record.map(Some),
        }
    }
}

/// Whether a new job encloses the calling process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enclosure {
    /// The job starts empty: members are spawned into it or adopted.
    None,
    /// The calling process.
    Caller,
}
