//! The arguments of `onejob init`.

use std::{ffi::OsString, time::Duration};

use clap::Args;
use onejob::{Mechanism, Signal};

use super::{
    GUARANTEES, LIFETIME, LifelineOptions, OUTPUT,
    values::{duration, exit_status, mechanism, rewrite, signal},
};

/// Run CMD as the init process of a container, or below another init
///
/// As PID 1, or as a subreaper below another init: every signal is forwarded to CMD, re-parented
/// children are reaped, and when CMD exits, the processes it left behind are stopped. CMD gets its own
/// process group, and the foreground of the terminal if onejob has it. A copy of onejob, or a link to
/// it, that is called tini, dumb-init or timeout accepts that program's arguments.
#[derive(Args)]
pub(crate) struct InitArgs {
    /// Forward signals to CMD's whole process group
    #[arg(short, long)]
    pub(crate) group: bool,

    /// Forward signal FROM as TO, or not at all if TO is 0 (examples: 15:3, TERM:QUIT)
    #[arg(short, long, value_name = "FROM:TO", value_parser = rewrite, allow_hyphen_values = true)]
    pub(crate) rewrite: Vec<(Signal, Option<Signal>)>,

    /// Exit with 0 if CMD's status is CODE (143 is an end by SIGTERM)
    #[arg(short = 'e', long = "success", value_name = "CODE", value_parser = exit_status,
          allow_negative_numbers = true)]
    pub(crate) success: Vec<u8>,

    /// Print a warning if onejob is not PID 1
    #[arg(short, long, help_heading = OUTPUT)]
    pub(crate) warn: bool,

    /// Run CMD in its own session, with the terminal; signals go to its process group
    #[arg(long)]
    pub(crate) setsid: bool,

    /// Grace period before SIGKILL for the processes CMD leaves behind [default: 5s]; if given, also
    /// for CMD after SIGINT, SIGQUIT or SIGTERM
    #[arg(short = 'k', long = "kill-after", value_name = "DUR", value_parser = duration,
          allow_negative_numbers = true, help_heading = LIFETIME)]
    pub(crate) grace: Option<Duration>,

    /// Signal to send first to the processes CMD leaves behind
    #[arg(short, long, value_name = "SIG", default_value = "TERM", value_parser = signal,
          allow_negative_numbers = true, help_heading = LIFETIME)]
    pub(crate) signal: Signal,

    #[command(flatten)]
    pub(crate) lifelines: LifelineOptions,

    /// Use this mechanism (cgroup, subreaper) instead of the strongest available one
    #[arg(long, value_name = "M", value_parser = mechanism, help_heading = GUARANTEES)]
    pub(crate) mechanism: Option<Mechanism>,

    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, num_args = 1.., trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}
