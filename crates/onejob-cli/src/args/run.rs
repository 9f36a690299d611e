//! The arguments of `onejob run`.

use std::{ffi::OsString, time::Duration};

use clap::{Args, ValueEnum};
use onejob::{Mechanism, Requirement};

use super::{
    GUARANTEES, LIFETIME, LifelineOptions, OUTPUT, StopArgs,
    limits::LimitOptions,
    values::{duration, job_name, mechanism, requirement},
};

/// Run CMD in the foreground, and stop what it leaves behind when it exits
///
/// CMD inherits the standard streams, the terminal, the process group and the signal settings, as
/// under env(1). A signal that another process sends to onejob is forwarded to CMD. Ctrl-C and Ctrl-Z
/// reach the whole tree from the terminal; a Ctrl-C while the tree is being stopped kills it at once.
///
/// A script without a #! line is run by /bin/sh, as execvp(3) does.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Name the job so that other subcommands can find it: 1 to 64 letters, digits, dots, dashes, underscores
    #[arg(short, long, value_name = "NAME", value_parser = job_name)]
    pub(crate) name: Option<String>,

    /// Run in the background without a terminal; the output goes to a log file (see onejob logs)
    #[arg(short, long, conflicts_with = "stats", help_heading = LIFETIME)]
    pub(crate) detach: bool,

    /// Stop the whole tree after DUR (10, 1.5, 500ms, 10s, 2m, 1h30m, 1d; 0 is no limit) and exit with 124
    #[arg(short, long, value_name = "DUR", value_parser = duration, allow_negative_numbers = true, help_heading = LIFETIME)]
    pub(crate) timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) stop: StopArgs,

    #[command(flatten)]
    pub(crate) limits: LimitOptions,

    /// Let the processes that CMD leaves behind run on
    #[arg(long, conflicts_with_all = ["wait_all", "lifeline", "with"], help_heading = LIFETIME)]
    pub(crate) keep: bool,

    /// Wait for the processes that CMD leaves behind instead of stopping them
    #[arg(long, help_heading = LIFETIME)]
    pub(crate) wait_all: bool,

    #[command(flatten)]
    pub(crate) lifelines: LifelineOptions,

    /// Use this mechanism (cgroup, subreaper; job-object on Windows) instead of the strongest available one
    #[arg(long, value_name = "M", value_parser = mechanism, help_heading = GUARANTEES)]
    pub(crate) mechanism: Option<Mechanism>,

    /// Fail unless the job has this guarantee (tracked, kill=atomic, …; see onejob doctor)
    #[arg(long, value_name = "LEVEL", value_parser = requirement, help_heading = GUARANTEES)]
    pub(crate) require: Vec<Requirement>,

    /// Print what the whole tree used to standard error, like time(1): one line of text, or of JSON (reason,
    /// real_seconds, user_seconds, system_seconds, memory_peak_bytes, …)
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true,
          default_missing_value = "text", help_heading = OUTPUT)]
    pub(crate) stats: Option<StatsFormat>,

    /// The command and its arguments
    // The first value ends the options of onejob: everything after it belongs to CMD.
    #[arg(value_name = "CMD", required = true, num_args = 1.., trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// The format of the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatsFormat {
    Text,
    Json,
}
