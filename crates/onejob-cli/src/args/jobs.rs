//! The arguments of the verbs for jobs that run already.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use onejob::Resources;

use super::{
    Ladder, LimitArgs,
    values::{Target, seconds, target, target_to_end},
};

/// Stop jobs, or the trees below processes
///
/// Asks politely, waits, then kills what is left. A number is a process: it and everything below
/// it end, no stranger is ever hit, even if a number is in use again; what daemonised away from the
/// tree before cannot be found. Anything else is a job, which loses nobody. Nothing is signalled
/// unless every argument makes sense.
///
/// The exit status is 0 if all have ended, 1 if some have not, 125 for an argument that makes no
/// sense.
#[derive(Args)]
pub(crate) struct Kill {
    /// Kill at once, without asking
    #[arg(long, conflicts_with_all = ["signal", "grace"])]
    pub(crate) now: bool,

    #[command(flatten)]
    pub(crate) ladder: Ladder,

    /// Jobs by name or by the beginning of their id (=NAME for a name of digits), processes by number
    #[arg(value_name = "JOB|PID", required = true, value_parser = target_to_end,
          allow_negative_numbers = true)]
    pub(crate) targets: Vec<Target>,
}

/// How a listing is shown.
#[derive(Args, Clone, Copy)]
pub(crate) struct Show {
    /// As JSON, with a schema version
    #[arg(long)]
    pub(crate) json: bool,

    /// Show it again every SECONDS (2) until Ctrl-C, on a terminal
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          require_equals = true, value_parser = seconds, conflicts_with = "json")]
    pub(crate) watch: Option<Duration>,
}

/// List the jobs of this user
///
/// One line each: its name, its id, the mechanism that holds it together, how hard it is to leave,
/// how many members live, the CPU time all have used, the memory they use now, its age, and its
/// command.
#[derive(Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) show: Show,
}

/// Draw the members of jobs, or the processes below a process
///
/// Without an argument, all jobs of this user. A member whose parent is gone stands at the root of
/// its job, marked as an orphan.
#[derive(Args)]
pub(crate) struct Tree {
    #[command(flatten)]
    pub(crate) show: Show,

    /// A job by name or by the beginning of its id (=NAME for a name of digits), a process by number
    #[arg(value_name = "JOB|PID", value_parser = target, allow_negative_numbers = true)]
    pub(crate) target: Option<Target>,
}

/// Wait until jobs have ended
///
/// The exit status is that of the last job's command, as its own onejob run ends with (128+n if
/// signal n ended it), 0 for a job that is no onejob run, 125 if it cannot be told.
#[derive(Args)]
pub(crate) struct Wait {
    /// Jobs by name or by the beginning of their id
    #[arg(value_name = "JOB", required = true)]
    pub(crate) jobs: Vec<String>,
}

/// Say what a job has used
#[derive(Args)]
pub(crate) struct Stats {
    /// As JSON, with a schema version
    #[arg(long)]
    pub(crate) json: bool,

    /// A job by name or by the beginning of its id
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
}

/// Limit a job that runs already, or show its limits
///
/// What is given is set, other limits stay as they are. Without any, the limits are printed.
#[derive(Args)]
pub(crate) struct Limit {
    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    /// Lift these limits: memory, swap, cpu, cpu-weight, io-weight, processes, with commas between them
    #[arg(long, value_name = "WHAT")]
    pub(crate) lift: Option<Resources>,

    /// As JSON, with a schema version
    #[arg(long)]
    pub(crate) json: bool,

    /// A job by name or by the beginning of its id
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
}

/// Freeze jobs: no member runs until onejob thaw
#[derive(Args)]
pub(crate) struct Freeze {
    /// Jobs by name or by the beginning of their id
    #[arg(value_name = "JOB", required = true)]
    pub(crate) jobs: Vec<String>,
}

/// Let frozen jobs run again
#[derive(Args)]
pub(crate) struct Thaw {
    /// Jobs by name or by the beginning of their id
    #[arg(value_name = "JOB", required = true)]
    pub(crate) jobs: Vec<String>,
}

/// Run CMD as another member of a job
///
/// CMD has our standard streams and its own exit status, and signals reach it as under onejob run.
/// It ends with the job. Where the mechanism has it started by the job's guard (subreaper), it runs
/// in the session of the job's owner: our terminal's Ctrl-C is passed on to it, job control is not.
#[derive(Args)]
pub(crate) struct Exec {
    /// A job by name or by the beginning of its id
    #[arg(value_name = "JOB")]
    pub(crate) job: String,

    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, num_args = 1.., trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// Print what a detached job has written
///
/// Its log stays when the job has ended, until the next job of that name begins one.
#[derive(Args)]
pub(crate) struct Logs {
    /// Go on until the job has ended
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// A job by name or by the beginning of its id
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
}

/// Print the completions of a shell
///
/// For bash: onejob completions bash > ~/.local/share/bash-completion/completions/onejob
#[derive(Args)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

/// Write the manual pages into a folder
#[derive(Args)]
pub(crate) struct Man {
    /// The folder, which must exist
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}
