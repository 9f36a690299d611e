//! Every exit status of the command.
//!
//! | status | meaning |
//! |---|---|
//! | CMD's own | `run`, `init`: CMD ended by itself, and what it left behind is dealt with |
//! | CMD's signal | `run`, `init`: a signal ended CMD, and now us, without a core dump; 128+n as PID 1 |
//! | 0 | the other verbs: done · `init -e CODE`: CMD ended with CODE, or with signal CODE-128 |
//! | 1 | `kill`: a tree could not be ended · `doctor`: no mechanism is available |
//! | 124 | `run`: the time of `-t` was over, and the tree was stopped · the CPU time of `--cpu-time` was used up, and it was killed |
//! | 125 | onejob itself failed: bad usage, a guarantee not to be had, a tree that cannot be ended |
//! | 126 | `run`, `init`: CMD was found and could not be executed |
//! | 127 | `run`, `init`: CMD was not found |
//! | 129 | `run`, `init`: the lifeline was cut, and the tree was stopped: what a shell says of a hang-up |
//!
//! Called by the name of another program, that program's statuses, by the same occasions:
//!
//! | | `timeout` | `tini` | `dumb-init` |
//! |---|---|---|---|
//! | CMD's own, if the time was not over | yes | yes, `-e CODE` makes CODE a 0 | yes |
//! | a signal n ended CMD | that signal | 128+n | 128+n |
//! | the time was over | 124; with `-p` CMD's own, or 128+n | – | – |
//! | … and it took a SIGKILL | SIGKILL; with `-f` 137 | – | – |
//! | bad usage, or we failed | 125 | 1 | 1 |
//! | CMD: no permission · no program for other reasons · not found | 126 · 126 · 127 | 126 · 1 · 127 | 2 · 2 · 2 |

use std::{fmt, io, process::ExitStatus};

use crate::{
    os,
    output::{self, Voice},
};

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
    /// By the signal that ended what took too long to end.
    Killed,
    /// onejob itself failed.
    Ours,
    /// CMD: the system says that we may not execute it.
    Denied,
    NotExecutable,
    NotFound,
    /// The lifeline was cut.
    Cut,
}

impl Exit {
    pub(crate) fn code(self) -> i32 {
        match (self, Voice::ours()) {
            (Exit::Success, _) => 0,
            (Exit::Failed, _) => 1,
            (Exit::Like(status), _) => os::code(status),
            (Exit::Code(code), _) => code,
            (Exit::TimedOut, _) => 124,
            (Exit::Killed, _) => 137,
            (Exit::Cut, _) => 129,
            (Exit::Ours, Voice::Tini | Voice::DumbInit) => 1,
            (Exit::Ours, _) => 125,
            (Exit::Denied | Exit::NotExecutable | Exit::NotFound, Voice::DumbInit) => 2,
            (Exit::NotExecutable, Voice::Tini) => 1,
            (Exit::Denied | Exit::NotExecutable, _) => 126,
            (Exit::NotFound, _) => 127,
        }
    }

    /// Ends this process. Whatever must be dropped has been dropped.
    pub(crate) fn leave(self) -> ! {
        match self {
            Exit::Like(status) => os::end_like(status),
            Exit::Killed => os::end_killed(),
            _ => {}
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
            true if error.is_permission_denied() => Exit::Denied,
            true => Exit::NotExecutable,
            false => Exit::Ours,
        };
        Failure { message: error.to_string(), exit }
    }
}
