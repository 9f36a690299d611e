//! An early exit: the message of a failed action, a hint, and the exit status.

use std::{borrow::Cow, fmt, io};

use crate::{
    exit::Exit,
    os,
    output::{self, write_stdout},
};

#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    exit: Exit,
    kind: Cow<'static, str>,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            hint: None,
            exit: Exit::InternalError,
            kind: "failed".into(),
        }
    }

    /// A failed call: `action` is the object and what should have happened to it.
    pub(crate) fn os(action: impl fmt::Display, source: impl Into<io::Error>) -> Failure {
        let source = source.into();
        let failure = Failure::new(format!("failed to {action}: {source}"));
        match os::exhausted_limit(&source) {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }

    /// An exit without a message.
    pub(crate) fn silent(exit: Exit) -> Failure {
        Failure::new("").with_exit(exit)
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn with_message(mut self, message: String) -> Failure {
        self.message = message;
        self
    }

    pub(crate) fn with_exit(mut self, exit: Exit) -> Failure {
        self.exit = exit;
        self
    }

    /// The word for scripts, in messages as JSON.
    pub(crate) fn with_kind(mut self, kind: impl Into<Cow<'static, str>>) -> Failure {
        self.kind = kind.into();
        self
    }

    /// Puts the object in front, where one action was requested for several objects.
    pub(crate) fn about(mut self, object: impl fmt::Display) -> Failure {
        self.message = format!("{object}: {}", self.message);
        self
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints it; nothing if it has no message.
    pub(crate) fn report(&self) -> Exit {
        if !self.message.is_empty() {
            output::failure(&self.message, self.hint(), &self.kind, self.exit.code());
        }
        self.exit
    }
}

impl From<onejob::Error> for Failure {
    fn from(error: onejob::Error) -> Failure {
        Failure::from(&error)
    }
}

impl From<&onejob::Error> for Failure {
    fn from(error: &onejob::Error) -> Failure {
        let exit = match error.is_exec() {
            true if error.is_not_found() => Exit::NotFound,
            true if error.is_permission_denied() => Exit::PermissionDenied,
            true => Exit::NotExecutable,
            false => Exit::InternalError,
        };
        let (message, hint) = message_and_hint(error);
        // These hints of the library are for programmers.
        let hint = match error {
            _ if error.is_unmet_requirement() => Some(DOCTOR_HINT.to_owned()),
            _ if is_missing_job(error) => Some(JOBS_HINT.to_owned()),
            _ => hint,
        };
        Failure { message, hint, exit, kind: kind_of(error).into() }
    }
}

/// The parts of an error. The library appends the hint to its text; here it has a line of its own.
pub(crate) fn message_and_hint(error: &onejob::Error) -> (String, Option<String>) {
    let (text, hint) = (error.to_string(), error.hint().map(str::to_owned));
    let suffix = hint.as_ref().map(|hint| format!(" ({hint})"));
    let message = suffix.and_then(|suffix| text.strip_suffix(&suffix).map(str::to_owned));
    (message.unwrap_or(text), hint)
}

pub(crate) const JOBS_HINT: &str = "`onejob ls` lists the jobs";
const DOCTOR_HINT: &str = "`onejob doctor` shows the guarantees of this host and how to get more";

fn kind_of(error: &onejob::Error) -> &'static str {
    match error {
        _ if error.is_exec() && error.is_not_found() => "command_not_found",
        _ if error.is_exec() => "not_executable",
        _ if error.is_unmet_requirement() => "unmet_requirement",
        _ if error.is_name_taken() => "name_taken",
        _ if error.is_limit_reached() => "limit_reached",
        _ if error.is_invalid_input() => "invalid_input",
        _ if error.is_not_found() || error.is_stale() => "not_found",
        _ if error.is_unsupported() => "unsupported",
        _ if error.is_permission_denied() => "permission_denied",
        _ if !error.survivors().is_empty() => "survivors",
        _ => "failed",
    }
}

/// Whether the error means that a job does not exist: no system call has failed.
fn is_missing_job(error: &onejob::Error) -> bool {
    error.is_not_found() && error.raw_os_error().is_none() && !error.is_exec()
}

/// Writes the data that a subcommand was asked for to standard output.
///
/// # Errors
/// If the reader has closed the pipe, a silent success: no more data is wanted.
pub(crate) fn print(data: impl AsRef<[u8]>) -> Result<(), Failure> {
    write_stdout(data.as_ref()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(Exit::Success),
        _ => Failure::os("write to standard output", error),
    })
}
