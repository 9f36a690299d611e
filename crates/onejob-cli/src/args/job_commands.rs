//! The arguments of the subcommands that act on running jobs, and of doctor, completions and man.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use onejob::Resources;

use super::{
    LIFETIME, LIMITS, OUTPUT, StopArgs,
    limits::LimitOptions,
    target::{Target, kill_target, target},
    values::{interval, resources},
};

/// Stop jobs, or the trees below processes
///
/// Sends a signal, waits for the grace period, then sends SIGKILL to the remaining processes. A number
/// is a pid: the process and its descendants are ended. An unrelated process is never signalled, even
/// if a pid is in use again; descendants that were re-parented before cannot be found. Anything else
/// names a job, and every member is ended. Nothing is signalled unless every argument is valid.
#[derive(Args)]
pub(crate) struct KillArgs {
    /// Send SIGKILL at once
    #[arg(long, conflicts_with_all = ["signal", "grace"], help_heading = LIFETIME)]
    pub(crate) now: bool,

    #[command(flatten)]
    pub(crate) stop: StopArgs,

    /// Jobs by name (dev, =dev) or by 6 or more characters of their id, processes by pid (1234, pid:1234)
    #[arg(value_name = "JOB|PID", required = true, value_parser = kill_target)]
    pub(crate) targets: Vec<Target>,
}

/// How a listing is printed.
#[derive(Args, Clone, Copy)]
pub(crate) struct ListingArgs {
    /// Print JSON with a schema version
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) json: bool,

    /// Repeat every SECONDS (default 2) until q or Ctrl-C; needs a terminal
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          require_equals = true, value_parser = interval, conflicts_with = "json", help_heading = OUTPUT)]
    pub(crate) watch: Option<Duration>,
}

/// List the jobs of this user
///
/// One line per job: name (the id of a job without a name), state (running, frozen, stopping, ended), number of
/// members, CPU time of all members including ended ones, resident memory, age, command.
#[derive(Args)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    pub(crate) listing: ListingArgs,

    /// Print the id, the mechanism, the containment (how hard the job is to leave) and the owner's pid too
    #[arg(long, conflicts_with = "json", help_heading = OUTPUT)]
    pub(crate) wide: bool,
}

/// Print the process trees of jobs, or the descendants of a process
///
/// Without an argument, all jobs of this user. A member whose parent has exited is printed at the root
/// of its job and marked as an orphan.
#[derive(Args)]
pub(crate) struct TreeArgs {
    #[command(flatten)]
    pub(crate) listing: ListingArgs,

    /// A job by name (dev, =dev) or by 6 or more characters of its id, or a process by pid (1234, pid:1234)
    #[arg(value_name = "JOB|PID", value_parser = target)]
    pub(crate) target: Option<Target>,
}

/// Wait until jobs have ended
///
/// With several jobs the exit status is that of the last one.
#[derive(Args)]
pub(crate) struct WaitArgs {
    /// Jobs by name (dev, =dev) or by 6 or more characters of their id
    #[arg(value_name = "JOB", required = true, value_parser = target)]
    pub(crate) jobs: Vec<Target>,
}

/// Print what a job has used
#[derive(Args)]
pub(crate) struct StatsArgs {
    /// Print JSON with a schema version
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) json: bool,

    /// A job by name (dev, =dev) or by 6 or more characters of its id
    #[arg(value_name = "JOB", value_parser = target)]
    pub(crate) job: Target,
}

/// Change the limits of a running job, or print them
///
/// The given limits are set, the others stay as they are. Without any, the limits are printed.
#[derive(Args)]
pub(crate) struct LimitArgs {
    #[command(flatten)]
    pub(crate) limits: LimitOptions,

    /// Remove these limits: memory, swap, cpu, cpu-weight, io-weight, processes, separated by commas
    #[arg(long, value_name = "WHAT", value_parser = resources, help_heading = LIMITS)]
    pub(crate) lift: Option<Resources>,

    /// Print JSON with a schema version
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) json: bool,

    /// A job by name (dev, =dev) or by 6 or more characters of its id
    #[arg(value_name = "JOB", value_parser = target)]
    pub(crate) job: Target,
}

/// Freeze jobs: no member runs until onejob thaw
#[derive(Args)]
pub(crate) struct FreezeArgs {
    /// Jobs by name (dev, =dev) or by 6 or more characters of their id
    #[arg(value_name = "JOB", required = true, value_parser = target)]
    pub(crate) jobs: Vec<Target>,
}

/// Let frozen jobs run again
#[derive(Args)]
pub(crate) struct ThawArgs {
    /// Jobs by name (dev, =dev) or by 6 or more characters of their id
    #[arg(value_name = "JOB", required = true, value_parser = target)]
    pub(crate) jobs: Vec<Target>,
}

/// Run CMD as another member of a running job
///
/// CMD inherits the standard streams, its exit status is returned, and signals are forwarded as under
/// onejob run. CMD ends with the job. Under the subreaper mechanism the job's guard starts it in the
/// session of the job's owner: Ctrl-C is forwarded from this terminal, job control does not work.
#[derive(Args)]
pub(crate) struct ExecArgs {
    /// A job by name (dev, =dev) or by 6 or more characters of its id
    #[arg(value_name = "JOB", value_parser = target)]
    pub(crate) job: Target,

    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, num_args = 1.., trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// Print the output of a detached job
///
/// The log file is kept after the job has ended, until the next job of the same name starts.
#[derive(Args)]
pub(crate) struct LogsArgs {
    /// Print new output until the job has ended
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// A job by name (dev, =dev) or by 6 or more characters of its id
    #[arg(value_name = "JOB", value_parser = target)]
    pub(crate) job: Target,
}

/// Print what this host can guarantee, why, and how to get more
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON with a schema version
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) json: bool,
}

/// Print a completion script for a shell
///
/// It completes subcommands, options, names of jobs, signals, guarantees, and the arguments of CMD.
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
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

/// Write the manual pages into a directory
#[derive(Args)]
pub(crate) struct ManArgs {
    /// An existing directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
