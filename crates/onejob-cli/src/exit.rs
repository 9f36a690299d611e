//! Every exit status of the command.
//!
//! | status | meaning |
//! |---|---|
//! | CMD's own | `run`, `init`, `exec`: CMD exited by itself, and the processes it left behind were handled |
//! | CMD's signal | `run`, `init`, `exec`: a signal ended CMD, and then onejob, without a core dump; 128+n as PID 1 |
//! | 0 | the other subcommands: success · `init -e CODE`: CMD exited with CODE, or by signal CODE-128 |
//! | 1 | `kill`: a process tree could not be ended · `doctor`: no mechanism is available |
//! | 124 | `run`: the time limit of `-t` expired, and the tree was stopped · the CPU time of `--cpu-time` was used up, and the tree was killed |
//! | 125 | onejob itself failed: invalid usage, an unavailable guarantee, a tree that cannot be ended |
//! | 126 | `run`, `init`, `exec`: CMD was found but could not be executed |
//! | 127 | `run`, `init`, `exec`: CMD was not found |
//! | 129 | `run`, `init`: a lifeline was lost, and the tree was stopped (128 + SIGHUP, as in a shell) |
//!
//! Called by the name of another program, that program's statuses for the same events:
//!
//! | | `timeout` | `tini` | `dumb-init` |
//! |---|---|---|---|
//! | CMD exited before the time limit | CMD's own | CMD's own, `-e CODE` makes CODE a 0 | CMD's own |
//! | signal n ended CMD | the same signal | 128+n | 128+n |
//! | the time limit expired | 124; with `-p` CMD's own, or 128+n | – | – |
//! | … and SIGKILL was needed | SIGKILL; with `-f` 137 | – | – |
//! | invalid usage, or an internal failure | 125 | 1 | 1 |
//! | CMD: permission denied · not executable otherwise · not found | 126 · 126 · 127 | 126 · 1 · 127 | 2 · 2 · 2 |

use std::process::ExitStatus;

use crate::{os, persona::Persona};

/// How the command exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Success,
    /// A part of the requested action failed.
    PartialFailure,
    /// With CMD's status or by CMD's signal.
    ChildStatus(ExitStatus),
    Code(i32),
    TimedOut,
    /// By SIGKILL, as the process tree that did not end in time.
    Killed,
    /// onejob itself failed.
    InternalError,
    /// CMD could not be executed: EACCES.
    PermissionDenied,
    NotExecutable,
    NotFound,
    LifelineLost,
}

impl Exit {
    pub(crate) fn code(self) -> i32 {
        match (self, Persona::current()) {
            (Exit::Success, _) => 0,
            (Exit::PartialFailure, _) => 1,
            (Exit::ChildStatus(status), _) => os::exit_code(status),
            (Exit::Code(code), _) => code,
            (Exit::TimedOut, _) => 124,
            (Exit::Killed, _) => 137,
            (Exit::LifelineLost, _) => 129,
            (Exit::InternalError, Persona::Tini | Persona::DumbInit) => 1,
            (Exit::InternalError, _) => 125,
            (Exit::PermissionDenied | Exit::NotExecutable | Exit::NotFound, Persona::DumbInit) => 2,
            (Exit::NotExecutable, Persona::Tini) => 1,
            (Exit::PermissionDenied | Exit::NotExecutable, _) => 126,
            (Exit::NotFound, _) => 127,
        }
    }

    /// Exits. Destructors do not run: the caller has dropped its jobs.
    pub(crate) fn exit(self) -> ! {
        match self {
            Exit::ChildStatus(status) => os::die_like(status),
            Exit::Killed => os::die_by_sigkill(),
            _ => {}
        }
        std::process::exit(self.code())
    }
}
