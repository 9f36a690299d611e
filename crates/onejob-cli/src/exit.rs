//! Every exit status of the command.
//!
//! | status | meaning |
//! |---|---|
//! | CMD's own | `run`: CMD ended by itself, and what it left behind is dealt with |
//! | CMD's signal | `run`: a signal ended CMD, and now us, without a core dump; 128+n as PID 1 |
//! | 0 | the other verbs: done |
//! | 1 | `kill`: a tree could not be ended · `doctor`: no mechanism is available |
//! | 124 | `run`: the time of `-t` was over, and the tree was stopped · the CPU time of `--cpu-time` was used up, and it was killed |
//! | 125 | onejob itself failed: bad usage, a guarantee not to be had, a tree that cannot be ended |
//! | 126 | `run`: CMD was found and could not be executed |
//! | 127 | `run`: CMD was not found |

use std::{fmt, io, process::ExitStatus};

use crate::{os, output};

/// How the command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Success,
    /// Some of what was asked could not be done.
    Failed,
    /// As CMD did.
    Like(ExitStatus),
    /// As CMD did, in a number: 128+n for signal n.
    Code(i32),
    TimedOut,
    /// onejob itself failed.
    Ours,
    NotExecutable,
    NotFound,
}

impl Exit {
    pub(crate) fn code(self) -> i32 {
        match self {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::TimedOut => 124,
            Exit::Ours => 125,
            Exit::NotExecutable => 126,
            Exit::NotFound => 127,
            Exit::Like(status) => os::code(status),
            Exit::Code(code) => code,
        }
    }

    /// Ends this process. Whatever must be dropped has been dropped.
    pub(crate) fn leave(self) -> ! {
        if let Exit::Like(status) = self {
            os::end_like(status);
        }
        std::process::exit(self.code())
    }
}

/// A failure of ours: what to say, and how to end.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    exit: Exit,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), exit: Exit::Ours }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn os(what: impl fmt::Display, source: impl Into<io::Error>) -> Failure {
        Failure::new(format!("failed to {what}: {}", source.into()))
    }

    /// Says it.
    pub(crate) fn report(&self) -> Exit {
        output::talk(&self.message);
        self.exit
    }
}

impl From<onejob::Error> for Failure {
    fn from(error: onejob::Error) -> Failure {
        let exit = match error.is_exec() {
            true if error.is_not_found() => Exit::NotFound,
            true => Exit::NotExecutable,
            false => Exit::Ours,
        };
        Failure { message: error.to_string(), exit }
    }
}
