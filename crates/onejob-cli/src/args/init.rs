//! The arguments of `onejob init`.

use std::{ffi::OsString, time::Duration};

use clap::Args;
use onejob::{Mechanism, Signal};

use super::values::{code, descriptor, duration, rewrite};

/// Run CMD as the first process of a container, or as if it were one
///
/// As PID 1, or below another init as a subreaper: every signal is passed on to CMD, everybody who
/// comes back to us is reaped, and when CMD ends, what it left behind is stopped. CMD gets a process
/// group of its own, and the terminal if we have it. A copy of onejob, or a link to it, that is
/// called tini, dumb-init or timeout takes that program's arguments.
///
/// The exit status is CMD's (128+n as PID 1 if signal n ended it; else the same signal ends us), 129
/// if the lifeline was cut, 125 if onejob itself failed, 126 if CMD could not be executed, 127 if it
/// was not found.
#[derive(Args)]
pub(crate) struct Init {
    /// Pass signals on to CMD's whole process group
    #[arg(short, long)]
    pub(crate) group: bool,

    /// Pass signal FROM on as TO, and not at all if TO is 0 (as in 15:3 or TERM:QUIT)
    #[arg(short, long, value_name = "FROM:TO", value_parser = rewrite, allow_hyphen_values = true)]
    pub(crate) rewrite: Vec<(Signal, Option<Signal>)>,

    /// Exit 0 if CMD's status is CODE (143 is an end by SIGTERM)
    #[arg(short = 'e', long = "success", value_name = "CODE", value_parser = code,
          allow_negative_numbers = true)]
    pub(crate) success: Vec<u8>,

    /// Say so if we are not PID 1
    #[arg(short, long)]
    pub(crate) warn: bool,

    /// Give CMD a session of its own, with the terminal; signals go to its process group
    #[arg(long)]
    pub(crate) setsid: bool,

    /// Kill what is left DUR after asking [default: 5s]; if given, CMD too, after an INT, QUIT or TERM
    #[arg(short = 'k', long = "kill-after", value_name = "DUR", value_parser = duration,
          allow_negative_numbers = true)]
    pub(crate) grace: Option<Duration>,

    /// Ask what CMD leaves behind with this signal
    #[arg(short, long, value_name = "SIG", default_value = "TERM", allow_negative_numbers = true)]
    pub(crate) signal: Signal,

    /// Stop the whole tree when the other end of descriptor FD is closed, and exit 129
    #[arg(long, value_name = "FD", value_parser = descriptor, allow_negative_numbers = true)]
    pub(crate) lifeline: Option<i32>,

    /// Hold the job together by this mechanism (cgroup, subreaper) instead of the best there is
    #[arg(long, value_name = "M")]
    pub(crate) mechanism: Option<Mechanism>,

    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, num_args = 1.., trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}
