//! The arguments of every subcommand.

mod fast_path;
mod init;
mod job_commands;
mod limits;
mod run;
mod values;

use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, error::ErrorKind};
use onejob::Signal;

use crate::{
    exit::Exit,
    failure::{Failure, print},
    os,
};
pub(crate) use init::InitArgs;
pub(crate) use job_commands::{
    CompletionsArgs, DoctorArgs, ExecArgs, FreezeArgs, KillArgs, LimitArgs, ListingArgs, LogsArgs,
    LsArgs, ManArgs, Shell, StatsArgs, ThawArgs, TreeArgs, WaitArgs,
};
pub(crate) use run::{RunArgs, StatsFormat};
pub(crate) use values::Target;
use values::duration;

/// Run a command and everything it starts as one job: stop it, limit it, leave nothing behind
#[derive(Parser)]
#[command(name = "onejob", version, disable_help_subcommand = true)]
struct Cli {
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
}

/// The grace period between the first signal and SIGKILL, unless the user chooses another.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// How a process tree is stopped.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct StopArgs {
    /// Grace period before SIGKILL; 0 kills at once
    #[arg(short = 'k', long = "kill-after", value_name = "DUR", default_value = "5s",
          value_parser = duration, allow_negative_numbers = true)]
    pub(crate) grace: Duration,

    /// Signal to send first
    #[arg(short, long, value_name = "SIG", default_value = "TERM", allow_negative_numbers = true)]
    pub(crate) signal: Signal,
}

/// Reads the command line.
///
/// # Errors
/// Invalid usage; also help and version, which are printed here: a silent success.
pub(crate) fn parse() -> Result<Subcommand, Failure> {
    let parsed = match os::args().nth(1) {
        Some(name) if name == "run" => match fast_path::run(os::args().skip(2)) {
            Some(run) => return Ok(Subcommand::Run(run)),
            None => {
                RunOnly::try_parse_from(os::args()).map(|RunOnly::Run(run)| Subcommand::Run(run))
            }
        },
        _ => Cli::try_parse_from(os::args()).map(|cli| cli.subcommand),
    };
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let printed = print(error.to_string());
            printed.err().unwrap_or_else(|| Failure::silent(Exit::Success))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Failure::new(format!("no subcommand given\n\n{error}").trim_end())
        }
        ErrorKind::InvalidSubcommand => {
            usage_error(&error.to_string(), &format!("one of: {}", subcommand_names()))
        }
        _ => usage_error(&error.to_string(), "see --help"),
    })
}

/// The definitions themselves, for completions and manual pages.
pub(crate) fn definitions() -> clap::Command {
    Cli::command()
}

fn subcommand_names() -> String {
    let cli = definitions();
    cli.get_subcommands().map(clap::Command::get_name).collect::<Vec<_>>().join(", ")
}

/// clap's error message as one line without the usage. Its tip, if it has one, replaces `hint`.
fn usage_error(message: &str, hint: &str) -> Failure {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let (message, _) = message.split_once("\nUsage:").unwrap_or((message, ""));
    let (message, _) = message.split_once("\nFor more information").unwrap_or((message, ""));
    let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let (tips, lines): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("tip: "));
    let tip = tips.first().and_then(|tip| tip.strip_prefix("tip: "));
    Failure::new(lines.join(" ")).with_hint(tip.unwrap_or(hint))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    /// clap's own consistency checks of the definitions pass.
    #[test]
    fn definitions_pass_debug_assert() {
        Cli::command().debug_assert();
    }

    /// A mistyped subcommand is answered with the most similar one, or with the list of all.
    #[test]
    fn mistyped_subcommand() {
        let hint = |name| {
            let error = Cli::try_parse_from(["onejob", name]).err().map(|e| e.to_string());
            let all = format!("one of: {}", subcommand_names());
            usage_error(&error.unwrap_or_default(), &all).hint().map(str::to_owned)
        };
        assert_eq!(hint("docter").as_deref(), Some("a similar subcommand exists: 'doctor'"));
        assert_eq!(
            hint("rnu").as_deref(),
            Some(
                "one of: run, init, ls, tree, kill, wait, stats, limit, freeze, thaw, exec, logs, \
                 doctor, completions, man"
            )
        );
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
