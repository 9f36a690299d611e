//! timeout(1) of the GNU coreutils: `timeout [OPTION] DURATION COMMAND [ARG]...`.

use std::{ffi::OsString, time::Duration};

use onejob::Signal;

use super::{
    empty_program_name,
    getopt::{self, OptionSpec, ParsedLine},
    new_job, print_info, quoted, text, usage_error,
};
use crate::{
    args::{DEFAULT_GRACE, StopArgs, lifeline_process},
    exit::Exit,
    failure::Failure,
    os::{self, LifelineProcess, ProcessGroup},
    supervise::{LeftoverPolicy, Options, Outcome, Setup, SignalMode, TimeoutMode, watch_process},
};

const VERSION: &str = concat!("timeout (onejob ", env!("CARGO_PKG_VERSION"), ")\n");

const USAGE: &str = "\
Usage: timeout [OPTION] DURATION COMMAND [ARG]...
  or:  timeout [OPTION]
Start COMMAND, and stop it and everything it has started if it still runs after DURATION.

  -f, --foreground         leave COMMAND in timeout's process group, where it can use the terminal
  -k, --kill-after=DURATION  send a KILL this long after the first signal
  -p, --preserve-status    exit with the status of COMMAND even after a time-out
  -s, --signal=SIGNAL      send this signal on a time-out, a name like HUP or a number
  -v, --verbose            print which signal is sent
      --help               show this help
      --version            show the version

DURATION is a number with an optional s (seconds), m, h or d; 0 is no limit.

Exit status: that of COMMAND, but 124 on a time-out, 125 if timeout itself fails, 126 if COMMAND
cannot be executed, 127 if it is not found, 137 if it (or timeout itself) had to be killed.
";

const TRY: &str = "Try 'timeout --help' for more information.\n";

/// The letters of the options that have a long name only. They cannot be typed.
const HELP: char = '\0';
const SHOW_VERSION: char = '\x01';
const WITH: char = '\x02';

const OPTIONS: [OptionSpec; 8] = [
    OptionSpec('f', "foreground", false),
    OptionSpec('k', "kill-after", true),
    OptionSpec('p', "preserve-status", false),
    OptionSpec('s', "signal", true),
    OptionSpec('v', "verbose", false),
    OptionSpec(HELP, "help", false),
    OptionSpec(SHOW_VERSION, "version", false),
    // Not an option of the original.
    OptionSpec(WITH, "with", true),
];

struct Request {
    duration: Duration,
    mode: TimeoutMode,
    preserve_status: bool,
    with: Option<LifelineProcess>,
    command: Vec<OsString>,
}

pub(super) fn timeout(args: Vec<OsString>) -> Exit {
    let line = match getopt::parse(args, &OPTIONS) {
        Ok(line) => line,
        Err(reason) => return usage_error(reason, TRY),
    };
    match line.options.iter().find(|(letter, _)| matches!(*letter, HELP | SHOW_VERSION)) {
        Some((HELP, _)) => return print_info(USAGE),
        Some(_) => return print_info(VERSION),
        None => {}
    }
    match Request::new(line) {
        Ok(request) if request.mode.program.is_empty() => empty_program_name(),
        Ok(request) => request.execute().unwrap_or_else(|failure| failure.report()),
        Err(reason) => usage_error(reason, TRY),
    }
}

impl Request {
    fn new(line: ParsedLine) -> Result<Request, String> {
        let mut mode = TimeoutMode {
            signal: Signal::TERM,
            kill_after: None,
            foreground: false,
            verbose: false,
            program: String::new(),
        };
        let (mut preserve_status, mut with) = (false, None);
        for (letter, value) in line.options {
            match letter {
                'f' => mode.foreground = true,
                'p' => preserve_status = true,
                'v' => mode.verbose = true,
                'k' => mode.kill_after = Some(duration(&value.unwrap_or_default())?),
                WITH => {
                    let process = lifeline_process(&text(value.clone()));
                    let why = |why| format!("invalid process '{}': {why}", text(value));
                    with = Some(process.map_err(why)?);
                }
                _ => mode.signal = signal(&text(value))?,
            }
        }
        mode.kill_after = mode.kill_after.filter(|after| !after.is_zero());
        let mut words = line.words.into_iter();
        let limit = words.next().ok_or("DURATION and COMMAND are missing")?;
        let command: Vec<_> = words.collect();
        let program = command.first().ok_or("COMMAND is missing")?;
        mode.program = program.to_string_lossy().into_owned();
        Ok(Request { duration: duration(&limit)?, mode, preserve_status, with, command })
    }

    fn execute(self) -> Result<Exit, Failure> {
        let lifeline = self.with.map(watch_process).transpose()?;
        let foreground = self.mode.foreground;
        if !foreground {
            os::become_group_leader();
        }
        let setup = Setup::new(Options {
            command: &self.command,
            process_group: ProcessGroup::Inherit,
            stop: StopArgs {
                signal: self.mode.signal,
                grace: self.mode.kill_after.unwrap_or(DEFAULT_GRACE),
            },
            mode: SignalMode::Timeout(self.mode),
            timeout: Some(self.duration),
            leftovers: LeftoverPolicy::Keep,
            lifelines: lifeline.into_iter().collect(),
        })?;
        let outcome = setup.start(new_job()?)?.run()?;
        Ok(exit(&outcome, foreground, self.preserve_status))
    }
}

fn exit(outcome: &Outcome, foreground: bool, preserve_status: bool) -> Exit {
    const KILLED: i32 = 137;
    if outcome.lifeline_lost {
        return Exit::LifelineLost;
    }
    let Some(status) = outcome.status else { return Exit::InternalError };
    match os::exit_code(status) {
        // The original sends SIGKILL to its own process group.
        _ if outcome.killed && !foreground => Exit::Killed,
        code if outcome.timed_out
            && (preserve_status || code == KILLED && status.code().is_none()) =>
        {
            Exit::Code(code)
        }
        _ if outcome.timed_out => Exit::TimedOut,
        _ => Exit::ChildStatus(status),
    }
}

/// A signal by name or number.
fn signal(text: &str) -> Result<Signal, String> {
    text.parse().map_err(|_| format!("'{text}': invalid signal"))
}

/// A floating point number with s, m, h or d. A duration that is too long for the clock is no limit.
fn duration(text: &OsString) -> Result<Duration, String> {
    let invalid = || format!("invalid time interval {}", quoted(text));
    let text = text.to_str().ok_or_else(invalid)?.trim_ascii_start();
    let is_hex = text.starts_with("0x") || text.starts_with("0X");
    let (number, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1.0),
        Some(b'm') => (&text[..text.len() - 1], 60.0),
        Some(b'h') => (&text[..text.len() - 1], 3600.0),
        // In a hexadecimal number, d is a digit.
        Some(b'd') if !is_hex => (&text[..text.len() - 1], 86400.0),
        _ => (text, 1.0),
    };
    let number = match is_hex {
        true => u64::from_str_radix(&number[2..], 16).ok().map(|number| number as f64),
        false => number.parse::<f64>().ok(),
    };
    let seconds = number.ok_or_else(invalid)? * unit;
    if seconds.is_nan() || seconds < 0.0 {
        return Err(invalid());
    }
    let minimum = if seconds > 0.0 { Duration::from_nanos(1) } else { Duration::ZERO };
    // Zero is no limit.
    Ok(Duration::try_from_secs_f64(seconds).map_or(Duration::ZERO, |time| time.max(minimum)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Durations are accepted and refused as by timeout(1).
    #[test]
    fn durations() {
        let nanos = |text: &str| duration(&text.into()).map(|duration| duration.as_nanos());
        for (text, expected) in [
            ("0", 0),
            ("1", 1_000_000_000),
            (" 1", 1_000_000_000),
            ("+1", 1_000_000_000),
            ("1.5", 1_500_000_000),
            (".5", 500_000_000),
            ("1e-1", 100_000_000),
            ("0x10", 16_000_000_000),
            ("0x1d", 29_000_000_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1d", 86_400_000_000_000),
            ("1e-30", 1),
            ("inf", 0),
            ("99999999999999999999", 0),
        ] {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
        for text in ["", "x", "nan", "-1", "1S", "10ms", "1 s", "1ss", "0x", "s", "1,5"] {
            assert!(nanos(text).is_err(), "{text:?}");
        }
    }
}
