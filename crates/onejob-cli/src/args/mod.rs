//! The arguments of every subcommand.

mod fast_path;
mod help;
mod init;
mod job_commands;
mod lifelines;
mod limits;
pub(crate) mod pages;
mod run;
mod target;
mod usage;
mod values;

use std::{ffi::OsString, time::Duration};

use clap::{Args, CommandFactory as _, Parser, ValueEnum, error::ErrorKind};
use onejob::Signal;

use crate::{
    exit::Exit,
    failure::{Failure, print},
    os, output,
};
pub(crate) use init::InitArgs;
pub(crate) use job_commands::{
    CompletionsArgs, DoctorArgs, ExecArgs, FreezeArgs, KillArgs, LimitArgs, ListingArgs, LogsArgs,
    LsArgs, ManArgs, Shell, StatsArgs, ThawArgs, TreeArgs, WaitArgs,
};
pub(crate) use lifelines::{LifelineOptions, process as lifeline_process};
pub(crate) use run::{RunArgs, StatsFormat};
pub(crate) use target::Target;
use values::{duration, signal};

/// Run a command and everything it starts as one job: stop it, limit it, leave nothing behind
#[derive(Parser)]
#[command(name = "onejob", version, disable_help_subcommand = true)]
struct Cli {
    /// The format of errors and other messages; JSON is one object in a line
    // Read before clap, see `error_format`: it applies to clap's errors too.
    #[arg(long, value_name = "FORM", default_value = "text")]
    error_format: ErrorFormat,

    #[command(subcommand)]
    subcommand: Subcommand,
}

/// The same with one subcommand: `run` does not build the definitions of the others.
#[derive(Parser)]
#[command(name = "onejob", version, disable_help_subcommand = true)]
enum RunOnly {
    Run(RunArgs),
}

#[derive(clap::Subcommand)]
pub(crate) enum Subcommand {
    Run(RunArgs),
    Init(InitArgs),
    Ls(LsArgs),
    Tree(TreeArgs),
    Kill(KillArgs),
    Wait(WaitArgs),
    Stats(StatsArgs),
    Limit(LimitArgs),
    Freeze(FreezeArgs),
    Thaw(ThawArgs),
    Exec(ExecArgs),
    Logs(LogsArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    /// The words to complete, from the completion scripts.
    #[command(skip)]
    Complete(Vec<OsString>),
}

// The groups of options in the help.
const LIFETIME: &str = "Lifetime";
const LIMITS: &str = "Limits";
const GUARANTEES: &str = "Guarantees";
const OUTPUT: &str = "Output";

/// The grace period between the first signal and SIGKILL, unless the user chooses another.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// How a process tree is stopped.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct StopArgs {
    /// Grace period before SIGKILL; 0 kills at once
    #[arg(short = 'k', long = "kill-after", value_name = "DUR", default_value = "5s",
          value_parser = duration, allow_negative_numbers = true, help_heading = LIFETIME)]
    pub(crate) grace: Duration,

    /// Signal to send first
    #[arg(short, long, value_name = "SIG", default_value = "TERM", value_parser = signal,
          allow_negative_numbers = true, help_heading = LIFETIME)]
    pub(crate) signal: Signal,
}

/// Reads the command line.
///
/// # Errors
/// Invalid usage; also help and version, which are printed here: a silent success.
pub(crate) fn parse() -> Result<Subcommand, Failure> {
    let words = with_help_option(error_format(os::args().collect()));
    let parsed = match words.get(1) {
        Some(name) if name == "run" => match fast_path::run(words.iter().skip(2).cloned()) {
            Some(run) => return Ok(Subcommand::Run(run)),
            None => RunOnly::try_parse_from(&words).map(|RunOnly::Run(run)| Subcommand::Run(run)),
        },
        Some(name) if name == "__complete" => return Ok(Subcommand::Complete(words[2..].to_vec())),
        _ => Cli::try_parse_from(&words).map(|cli| cli.subcommand),
    };
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let help = help::requested_by(&words).unwrap_or_else(|| error.to_string());
            let printed = print(help);
            printed.err().unwrap_or_else(|| Failure::silent(Exit::Success))
        }
        _ => usage::failure(&error, &words),
    })
}

#[derive(Clone, Copy, ValueEnum)]
enum ErrorFormat {
    Text,
    Json,
}

/// Applies `--error-format` in front of the subcommand, and removes it.
fn error_format(mut words: Vec<OsString>) -> Vec<OsString> {
    let text = |at: usize| words.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    let (value, count) = match text(1).strip_prefix("--error-format") {
        Some("") => (text(2), 2),
        Some(value) => (value.strip_prefix('=').unwrap_or_default(), 1),
        None => return words,
    };
    let Ok(format) = ErrorFormat::from_str(value, false) else { return words };
    if let ErrorFormat::Json = format {
        output::use_json();
    }
    words.drain(1..=count);
    words
}

/// `help SUBCOMMAND` as `SUBCOMMAND --help`.
fn with_help_option(mut words: Vec<OsString>) -> Vec<OsString> {
    if words.get(1).is_some_and(|word| word == "help") && words.len() <= 3 {
        words.remove(1);
        words.push("--help".into());
    }
    words
}

/// The definitions themselves, for completions and manual pages.
pub(crate) fn definitions() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// clap's own consistency checks of the definitions pass.
    #[test]
    fn definitions_pass_debug_assert() {
        Cli::command().debug_assert();
    }

    /// The first word that is not an option of onejob ends its options; the rest belongs to CMD.
    #[test]
    fn first_non_option_ends_the_options() {
        let parse = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{e}"));
            match cli.subcommand {
                Subcommand::Run(run) => (run.timeout.is_some(), run.command),
                _ => unreachable!("every line is a run"),
            }
        };
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(parse("onejob run ls -l"), (false, words("ls -l")));
        assert_eq!(parse("onejob run ls -t 5"), (false, words("ls -t 5")));
        assert_eq!(parse("onejob run -t 5 ls --help"), (true, words("ls --help")));
        assert_eq!(parse("onejob run -t5 -- ls -- -x"), (true, words("ls -- -x")));
        assert_eq!(parse("onejob run ls -- -x"), (false, words("ls -- -x")));
        assert_eq!(parse("onejob run -- -x --version"), (false, words("-x --version")));
        assert!(Cli::try_parse_from(["onejob", "run", "--bogus", "ls"]).is_err());
    }
}
