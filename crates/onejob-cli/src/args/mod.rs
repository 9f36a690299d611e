//! Every argument of every verb, in one place.

mod fast_path;
mod init;
mod jobs;
mod limits;

mod values;

use std::{ffi::OsString, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use onejob::{Mechanism, Requirement, Signal};

use crate::{
    exit::Exit,
    os,
    output::{data, talk},
};
pub(crate) use init::Init;
pub(crate) use jobs::{
    Completions, Exec, Freeze, Kill, Limit, Logs, Ls, Man, Shell, Show, Stats, Thaw, Tree, Wait,
};
pub(crate) use limits::LimitArgs;
pub(crate) use values::Target;
use values::{descriptor, duration};

/// Run a command and everything it starts as one job: stop it, kill it, lose nobody.
#[derive(Parser)]
#[command(name = "onejob", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// The same with one verb: building the others takes longer than all the rest of a start.
#[derive(Parser)]
#[command(name = "onejob", version, disable_help_subcommand = true)]
enum RunAlone {
    Run(Run),
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    Run(Run),
    Init(Init),
    Ls(Ls),
    Tree(Tree),
    Kill(Kill),
    Wait(Wait),
    Stats(Stats),
    Limit(Limit),
    Freeze(Freeze),
    Thaw(Thaw),
    Exec(Exec),
    Logs(Logs),
    Doctor(Doctor),
    Completions(Completions),
    Man(Man),
}

/// Run CMD in the foreground, and stop whatever it leaves behind when it ends
///
/// CMD keeps our standard streams, terminal, process group and signal settings, as under env(1). A
/// signal that a process sends to onejob is passed on to CMD; Ctrl-C and Ctrl-Z reach the tree by
/// themselves, and a Ctrl-C while the tree is being stopped kills it at once.
///
/// The exit status is CMD's (if a signal ended it, onejob ends by the same one), 124 if the time of
/// -t or the CPU time of --cpu-time was over, 129 if the lifeline was cut, 125 if onejob itself
/// failed, 126 if CMD could not be executed, 127 if it was not found. A script without #! is handed to /bin/sh, as execvp(3) does.
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Name the job, so that the other verbs find it: 1 to 64 letters, digits, dots, dashes, underscores
    #[arg(short, long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Run in the background, without a terminal; what CMD writes goes to a log (see onejob logs)
    #[arg(short, long, conflicts_with = "stats")]
    pub(crate) detach: bool,

    /// Stop the whole tree after DUR (10, 1.5, 500ms, 10s, 2m, 1h, 1d; 0 is no limit) and exit 124
    #[arg(short, long, value_name = "DUR", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) ladder: Ladder,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    /// Leave running what CMD leaves behind
    #[arg(long, conflicts_with = "wait_all")]
    pub(crate) keep: bool,

    /// Wait for what CMD leaves behind instead of stopping it
    #[arg(long)]
    pub(crate) wait_all: bool,

    /// Stop the whole tree when the other end of descriptor FD is closed, and exit 129
    ///
    /// FD is a pipe, a socket or a terminal, and what can be read from it stays CMD's: with 0, over
    /// ssh or kubectl exec, the tree does not outlive the connection. The end of a pipe's input is
    /// its end, so use 1 with ssh -n.
    #[arg(long, value_name = "FD", value_parser = descriptor, conflicts_with = "keep",
          allow_negative_numbers = true)]
    pub(crate) lifeline: Option<i32>,

    /// Hold the job together by this mechanism (cgroup, subreaper, job-object) instead of the best there is
    #[arg(long, value_name = "M")]
    pub(crate) mechanism: Option<Mechanism>,

    /// Refuse to run without this guarantee (tracked, kill=atomic, …; see onejob doctor)
    #[arg(long, value_name = "LEVEL")]
    pub(crate) require: Vec<Requirement>,

    /// Say on stderr what the whole tree used, like time(1): one line of text, or of JSON {schema: 1,
    /// reason, real, user, system, memory_peak, …}
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true,
          default_missing_value = "text")]
    pub(crate) stats: Option<StatsForm>,

    /// The command and its arguments
    // The first value ends our own options: the rest is CMD's, dashes and all.
    #[arg(value_name = "CMD", required = true, num_args = 1.., trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// How statistics are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatsForm {
    Text,
    Json,
}

/// Say what this host can guarantee, why, and how to get more
///
/// The exit status is 0 if onejob run has a mechanism to use, 1 if not.
#[derive(Args)]
pub(crate) struct Doctor {
    /// As JSON: {schema: 1, run_uses, mechanisms: [{mechanism, available, reason, remedy,
    /// guarantees}]}
    #[arg(long)]
    pub(crate) json: bool,
}

/// How long what was asked to end may take, unless that is said.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// How a tree is stopped.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Ladder {
    /// Kill what is left DUR after asking; 0 kills at once
    #[arg(short = 'k', long = "kill-after", value_name = "DUR", default_value = "5s",
          value_parser = duration, allow_negative_numbers = true)]
    pub(crate) grace: Duration,

    /// Ask with this signal
    #[arg(short, long, value_name = "SIG", default_value = "TERM", allow_negative_numbers = true)]
    pub(crate) signal: Signal,
}

/// What the command line asks for, or how to end if that is unclear or already done.
pub(crate) fn parse() -> Result<Verb, Exit> {
    let parsed = match os::args().nth(1) {
        Some(verb) if verb == "run" => match fast_path::run(os::args().skip(2)) {
            Some(run) => return Ok(Verb::Run(run)),
            None => RunAlone::try_parse_from(os::args()).map(|RunAlone::Run(run)| Verb::Run(run)),
        },
        _ => Cli::try_parse_from(os::args()).map(|cli| cli.verb),
    };
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            data(&error.to_string()).err().unwrap_or(Exit::Success)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            talk(format_args!("what to do is missing\n\n{error}").to_string().trim_end());
            Exit::Ours
        }
        kind => {
            let remedy = match kind {
                ErrorKind::InvalidSubcommand => format!("one of: {}", verbs()),
                _ => "try --help".to_owned(),
            };
            talk(one_line(&error.to_string(), &remedy));
            Exit::Ours
        }
    })
}

/// The definitions themselves, for completions and manual pages.
pub(crate) fn definitions() -> clap::Command {
    Cli::command()
}

fn verbs() -> String {
    let cli = definitions();
    cli.get_subcommands().map(clap::Command::get_name).collect::<Vec<_>>().join(", ")
}

/// A parser's message without its usage, in the form of every other error here; with `remedy`
/// unless it knows a better one.
fn one_line(message: &str, remedy: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let (said, _) = message.split_once("\nUsage:").unwrap_or((message, ""));
    let (said, _) = said.split_once("\nFor more information").unwrap_or((said, ""));
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let words = lines.map(|line| match line.strip_prefix("tip: ") {
        Some(tip) => format!("({tip})"),
        None => line.to_owned(),
    });
    let mut text = words.collect::<Vec<_>>().join(" ");
    if !text.ends_with(')') {
        text.push_str(&format!(" ({remedy})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mistyped_verb_is_answered_with_the_nearest_or_all() {
        let answer = |verb| {
            let error = Cli::try_parse_from(["onejob", verb]).err().map(|e| e.to_string());
            one_line(&error.unwrap_or_default(), &format!("one of: {}", verbs()))
        };
        assert!(answer("docter").ends_with("(a similar subcommand exists: 'doctor')"));
        assert!(answer("rnu").ends_with("(one of: run, init, ls, tree, kill, wait, stats, limit, freeze, thaw, exec, logs, doctor, completions, man)"), "{}", answer("rnu"));
    }

    #[test]
    fn the_first_word_that_is_no_option_of_ours_ends_our_options() {
        let parse = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{e}"));
            match cli.verb {
                Verb::Run(run) => (run.timeout.is_some(), run.command),
                _ => unreachable!("all lines are runs"),
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
