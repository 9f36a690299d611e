//! Every argument of every verb, in one place.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use clap::{Args, CommandFactory as _, Parser, Subcommand, error::ErrorKind};
use onejob::{Mechanism, Requirement, Signal};

use crate::{
    exit::Exit,
    os,
    output::{data, talk},
};

/// Run a command and everything it starts as one job: stop it, kill it, lose nobody.
#[derive(Parser)]
#[command(name = "onejob", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    Run(Run),
    Kill(Kill),
    Doctor(Doctor),
}

/// Run CMD in the foreground, and stop whatever it leaves behind when it ends
///
/// CMD keeps our standard streams, terminal, process group and signal settings, as under env(1). A
/// signal that a process sends to onejob is passed on to CMD; Ctrl-C and Ctrl-Z reach the tree by
/// themselves, and a Ctrl-C while the tree is being stopped kills it at once.
///
/// The exit status is CMD's (if a signal ended it, onejob ends by the same one), 124 if the time of
/// -t was over, 125 if onejob itself failed, 126 if CMD could not be executed, 127 if it was not
/// found. A script without #! is handed to /bin/sh, as execvp(3) does.
#[derive(Args)]
pub(crate) struct Run {
    /// Stop the whole tree after DUR (10, 1.5, 500ms, 10s, 2m, 1h, 1d; 0 is no limit) and exit 124
    #[arg(short, long, value_name = "DUR", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) ladder: Ladder,

    /// Limit the memory of the whole tree (bytes, or with K, M, G, T); over it, all of it ends
    #[arg(long, value_name = "SIZE", value_parser = size, allow_negative_numbers = true)]
    pub(crate) memory: Option<u64>,

    /// Limit the whole tree to the power of N CPUs (like 0.5)
    #[arg(long, value_name = "N", value_parser = cpus, allow_negative_numbers = true)]
    pub(crate) cpus: Option<f64>,

    /// Limit how many processes and threads of the tree live at once
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub(crate) processes: Option<u32>,

    /// Leave running what CMD leaves behind
    #[arg(long, conflicts_with = "wait_all")]
    pub(crate) keep: bool,

    /// Wait for what CMD leaves behind instead of stopping it
    #[arg(long)]
    pub(crate) wait_all: bool,

    /// Hold the job together by this mechanism (cgroup, subreaper, job-object) instead of the best there is
    #[arg(long, value_name = "M")]
    pub(crate) mechanism: Option<Mechanism>,

    /// Refuse to run without this guarantee (tracked, kill=atomic, …; see onejob doctor)
    #[arg(long, value_name = "LEVEL")]
    pub(crate) require: Vec<Requirement>,

    /// Say on stderr what the whole tree used: real, user and system time, peak memory
    #[arg(long)]
    pub(crate) stats: bool,

    /// The command and its arguments
    // The first value ends our own options: the rest is CMD's, dashes and all.
    #[arg(value_name = "CMD", required = true, num_args = 1.., trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// Stop the process PID and everything below it
///
/// Asks politely, waits, then kills what is left. No stranger is ever hit, even if a number is in
/// use again; what daemonised away from the tree before cannot be found. Nothing is signalled
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

    /// The processes, by number
    #[arg(value_name = "PID", required = true, value_parser = pid, allow_negative_numbers = true)]
    pub(crate) pids: Vec<u32>,
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

/// How a tree is stopped.
#[derive(Args, Clone, Copy)]
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
    Cli::try_parse().map(|cli| cli.verb).map_err(|error| match error.kind() {
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

fn verbs() -> String {
    let cli = Cli::command();
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

const DURATION: &str = "a number with ms, s, m, h or d, like 1.5, 500ms or 2m";

/// A duration: a decimal number of seconds as in timeout(1), or of the unit that follows.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u128 = match unit {
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return Err(format!("no duration ({DURATION})")),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return Err(format!("no duration ({DURATION})"));
    }
    let whole = match whole {
        "" => Some(0),
        digits => digits.parse::<u64>().ok(),
    };
    let nanos = whole.and_then(|whole| u128::from(whole).checked_mul(unit));
    nanos
        .map(|nanos| nanos + part_of(fraction, unit))
        .and_then(|nanos| {
            let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
            let rest = (nanos % 1_000_000_000) as u32;
            Some(Duration::new(seconds, rest))
        })
        .filter(|duration| Instant::now().checked_add(*duration).is_some())
        .ok_or_else(|| "too long (at most some billion years)".to_owned())
}

/// A number of bytes, or of the binary unit that follows.
fn size(text: &str) -> Result<u64, String> {
    const SIZE: &str = "no size (a whole number of bytes above 0, or with K, M, G or T: 512M)";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(SIZE.to_owned()),
    };
    if number.is_empty() || number.bytes().all(|digit| digit == b'0') {
        return Err(SIZE.to_owned());
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    // The kernel counts in signed numbers.
    bytes
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| "too much (at most 8388607T)".to_owned())
}

fn cpus(text: &str) -> Result<f64, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse::<f64>().ok().filter(|number| plain && *number > 0.0);
    number
        .filter(|number| number.is_finite())
        .ok_or_else(|| "no number of CPUs (a number above 0, like 0.5 or 2)".to_owned())
}

fn count(text: &str) -> Result<u32, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u32>().ok().filter(|number| plain && *number > 0);
    number.ok_or_else(|| "no number of processes (a whole number above 0)".to_owned())
}

/// The decimal fraction of a unit, rounded up: what was meant to be something is not nothing.
fn part_of(fraction: &str, unit: u128) -> u128 {
    let kept = &fraction[..fraction.len().min(18)];
    let lost = fraction[kept.len()..].bytes().any(|digit| digit != b'0');
    let digits = kept.parse::<u128>().unwrap_or(0);
    let scale = 10u128.pow(kept.len() as u32);
    (digits * unit).div_ceil(scale) + u128::from(lost && (digits * unit).is_multiple_of(scale))
}

/// The number of a process that could be meant.
fn pid(text: &str) -> Result<u32, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u32>();
    if let Some(why) = number.as_ref().ok().and_then(|pid| os::refuse_root(*pid)) {
        return Err(why.into());
    }
    match number {
        Ok(0) => Err("0 is no process (to a system call it would mean this process group)".into()),
        Ok(pid) if pid == std::process::id() => {
            Err("that is this onejob itself (name another process)".into())
        }
        Ok(pid) if is_number && i32::try_from(pid).is_ok() => Ok(pid),
        _ if is_number => Err("no process can have so high a number (see ps)".into()),
        _ => Err("no process number (signals are given with -s, as in -s KILL)".into()),
    }
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
        assert!(answer("rnu").ends_with("(one of: run, kill, doctor)"), "{}", answer("rnu"));
    }

    #[test]
    fn durations_are_read_as_timeout_does() {
        let nanos = |text: &str| duration(text).map(|duration| duration.as_nanos());
        for (text, expected) in [
            ("0", 0),
            ("10", 10_000_000_000),
            ("1.5", 1_500_000_000),
            (".5", 500_000_000),
            ("5.", 5_000_000_000),
            ("10s", 10_000_000_000),
            ("500ms", 500_000_000),
            ("0.5ms", 500_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1d", 86_400_000_000_000),
            ("0.0000000001", 1),
            ("0.00000000000000000000000001", 1),
        ] {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn limits_are_read_or_refused() {
        for (text, expected) in [("1", 1), ("512M", 512 << 20), ("2G", 2 << 30), ("1K", 1024)] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["0", "00M", "-1", "2X", "", "G", "1.5G", "+1", "8388608T", "1e3"] {
            assert!(size(text).is_err(), "{text:?}");
        }
        assert_eq!(cpus("0.5"), Ok(0.5));
        for text in ["0", "-1", "x", "", "inf", "nan", "1e3", "0.0", "+1"] {
            assert!(cpus(text).is_err(), "{text:?}");
        }
        assert_eq!(count("200"), Ok(200));
        for text in ["0", "-1", "1.5", "", "4294967296", "+1"] {
            assert!(count(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", ".", "-1", "1.2.3", "x", "1x", "s", "1 s", "+1", "1e3", "inf", "nan", "5S"]
        {
            assert!(duration(text).unwrap_err().starts_with("no duration"), "{text:?}");
        }
        // The clock of Windows reaches further than a timespec.
        let of_a_timespec = cfg!(unix).then_some("9999999999999999999s");
        for text in
            ["18446744073709551616", "18446744073709551615d"].into_iter().chain(of_a_timespec)
        {
            assert!(duration(text).unwrap_err().starts_with("too long"), "{text:?}");
        }
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
