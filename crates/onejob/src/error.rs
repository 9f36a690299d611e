//! The error type of this crate: opaque, with predicates.

use std::{fmt, io, time::Duration};

use crate::Process;

/// A [`Result`](std::result::Result) whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The failed operation, the object, the reason and, if one is known, the remedy.
///
/// Programs distinguish errors with the `is_…` predicates; the text is for users. If a system call
/// failed, its error is the [`source`](std::error::Error::source).
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    what: String,
    hint: Option<String>,
    source: Option<io::Error>,
}

#[derive(Debug, Clone)]
enum Kind {
    Os,
    Exec,
    Unsupported,
    InvalidInput,
    Unmet,
    Stale,
    Missing,
    #[allow(dead_code, reason = "not every system has names")]
    NameTaken,
    LimitReached,
    Survivors(Vec<Process>),
}

impl Error {
    fn with(kind: Kind, what: String, source: Option<io::Error>) -> Self {
        let errno = source.as_ref().and_then(io::Error::raw_os_error);
        let hint = errno.and_then(crate::sys::limit_hint);
        Error(Box::new(Inner { kind, what, hint, source }))
    }

    /// A system call failed: "failed to {what}: {source}".
    pub(crate) fn os(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::with(Kind::Os, what.into(), Some(source.into()))
    }

    /// The program itself could not be executed.
    pub(crate) fn exec(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::with(Kind::Exec, what.into(), Some(source.into()))
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::with(Kind::Unsupported, what.into(), None)
    }

    /// For a system call that failed because this host does not support the operation.
    #[allow(dead_code, reason = "not every system has a second mechanism")]
    pub(crate) fn into_unsupported(mut self) -> Self {
        if matches!(self.0.kind, Kind::Os) {
            self.0.what = format!("failed to {}", self.0.what);
            self.0.kind = Kind::Unsupported;
        }
        self
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::with(Kind::InvalidInput, what.into(), None)
    }

    pub(crate) fn unmet(what: impl Into<String>) -> Self {
        Self::with(Kind::Unmet, what.into(), None)
    }

    /// The object that was named does not exist.
    #[allow(dead_code, reason = "not every system has names")]
    pub(crate) fn missing(what: impl Into<String>) -> Self {
        Self::with(Kind::Missing, what.into(), None)
    }

    pub(crate) fn stale(what: impl Into<String>) -> Self {
        Self::with(Kind::Stale, what.into(), None)
    }

    #[allow(dead_code, reason = "not every system has names")]
    pub(crate) fn name_taken(what: impl Into<String>) -> Self {
        Self::with(Kind::NameTaken, what.into(), None)
    }

    /// "failed to {what}: {source}", because of a limit that the job was given.
    #[allow(dead_code, reason = "not every system reports this")]
    pub(crate) fn limit_reached(what: impl Into<String>, source: Option<io::Error>) -> Self {
        Self::with(Kind::LimitReached, what.into(), source)
    }

    pub(crate) fn still_alive(survivors: Vec<Process>, waited: Duration) -> Self {
        let names: Vec<_> = survivors.iter().take(8).map(|p| p.to_string()).collect();
        let more = survivors.len().saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let what =
            format!("empty the job within {waited:.1?}: still alive: {}{more}", names.join(", "));
        Self::with(Kind::Survivors(survivors), what, None)
    }

    /// Adds the errors of the other locations that were tried; the last hint is kept.
    #[allow(dead_code, reason = "not every system has several locations")]
    pub(crate) fn and(mut self, others: Vec<Error>) -> Self {
        for other in others {
            self.0.what = format!("{}; {}", self.reason_without_source(), other.reason());
            self.0.hint = other.0.hint.or(self.0.hint);
        }
        self
    }

    fn reason_without_source(&mut self) -> String {
        let reason = self.reason();
        if self.0.source.take().is_some() {
            // The source is part of the text now.
            self.0.kind = Kind::Unsupported;
        }
        reason
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// This host or the mechanism in use does not support the operation.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.0.kind, Kind::Unsupported)
    }

    /// The caller lacks a permission (`EPERM`, `EACCES`).
    pub fn is_permission_denied(&self) -> bool {
        self.io_kind() == Some(io::ErrorKind::PermissionDenied)
    }

    /// A program, directory, process or job does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.0.kind, Kind::Missing)
            || self.io_kind() == Some(io::ErrorKind::NotFound)
            || self.raw_os_error() == Some(ESRCH)
    }

    /// The input is invalid on every host: an empty command, a NUL in an argument, pid 0.
    pub fn is_invalid_input(&self) -> bool {
        matches!(self.0.kind, Kind::InvalidInput)
    }

    /// A guarantee that [`JobBuilder::require`](crate::JobBuilder::require) requires is not available.
    pub fn is_unmet_requirement(&self) -> bool {
        matches!(self.0.kind, Kind::Unmet)
    }

    /// The process that was named is gone, and its pid may belong to an unrelated process now.
    pub fn is_stale(&self) -> bool {
        matches!(self.0.kind, Kind::Stale)
    }

    /// A live job has the name already.
    pub fn is_name_taken(&self) -> bool {
        matches!(self.0.kind, Kind::NameTaken)
    }

    /// A limit of the job prevents the operation: the maximum number of processes is reached, no CPU
    /// time is left, or the members use more memory than the new limit.
    pub fn is_limit_reached(&self) -> bool {
        matches!(self.0.kind, Kind::LimitReached)
    }

    /// The program could not be executed; every step before `execve` succeeded.
    pub fn is_exec(&self) -> bool {
        matches!(self.0.kind, Kind::Exec)
    }

    /// Members that were still alive when a stop or kill gave up; empty for every other error.
    pub fn survivors(&self) -> &[Process] {
        match &self.0.kind {
            Kind::Survivors(survivors) => survivors,
            _ => &[],
        }
    }

    /// The error number of the system call that failed, if there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.source.as_ref().and_then(io::Error::raw_os_error)
    }

    /// The remedy, if one is known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The text of the error without the hint.
    pub(crate) fn reason(&self) -> String {
        let Inner { kind, what, source, .. } = &*self.0;
        let failed = match kind {
            Kind::Os | Kind::Exec | Kind::LimitReached | Kind::Survivors(_) => "failed to ",
            Kind::Unsupported
            | Kind::InvalidInput
            | Kind::Unmet
            | Kind::Stale
            | Kind::Missing
            | Kind::NameTaken => "",
        };
        let cause = source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{failed}{what}{cause}")
    }

    fn io_kind(&self) -> Option<io::ErrorKind> {
        self.0.source.as_ref().map(io::Error::kind)
    }
}

/// `ESRCH` has no [`io::ErrorKind`] of its own; its number is the same on every Unix.
const ESRCH: i32 = 3;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason())?;
        match self.hint() {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.to_string())
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.0.kind {
            Kind::Unsupported | Kind::Unmet => io::ErrorKind::Unsupported,
            Kind::InvalidInput => io::ErrorKind::InvalidInput,
            Kind::Stale | Kind::Missing => io::ErrorKind::NotFound,
            Kind::NameTaken => io::ErrorKind::AlreadyExists,
            Kind::Survivors(_) => io::ErrorKind::TimedOut,
            Kind::LimitReached => error.io_kind().unwrap_or(io::ErrorKind::QuotaExceeded),
            Kind::Os | Kind::Exec => error.io_kind().unwrap_or(io::ErrorKind::Other),
        };
        io::Error::new(kind, error)
    }
}
