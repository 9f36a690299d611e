//! timeout(1) of the GNU coreutils: `timeout [OPTION] DURATION COMMAND [ARG]...`.

use std::{ffi::OsString, time::Duration};

use onejob::{Job, Signal};

use super::{
    getopt::{self, Known, Line},
    misused, quoted, shown, text, unnamed,
};
use crate::{
    args::GRACE,
    exit::{Exit, Failure},
    os::{self, Place},
    supervise::{End, Limited, Manner, Plan, Rest, supervise},
};

const VERSION: &str = concat!("timeout (onejob ", env!("CARGO_PKG_VERSION"), ")\n");

const USAGE: &str = "\
Usage: timeout [OPTION] DURATION COMMAND [ARG]...
  or:  timeout [OPTION]
Start COMMAND, and stop it and everything it has started if it still runs after DURATION.

  -f, --foreground         leave COMMAND in our process group, where it can use the terminal
  -k, --kill-after=DURATION  send a KILL this long after the first signal
  -p, --preserve-status    exit with the status of COMMAND even after a time-out
  -s, --signal=SIGNAL      send this signal on a time-out, a name like HUP or a number
  -v, --verbose            say which signal is sent
      --help               show this help
      --version            show the version

DURATION is a number with an optional s (seconds), m, h or d; 0 is no limit.

Exit status: that of COMMAND, but 124 on a time-out, 125 if timeout itself fails, 126 if COMMAND
cannot be executed, 127 if it is not found, 137 if it (or timeout itself) had to be killed.
";

const TRY: &str = "Try 'timeout --help' for more information.\n";

const KNOWN: [Known; 7] = [
    Known('f', "foreground", false),
    Known('k', "kill-after", true),
    Known('p', "preserve-status", false),
    Known('s', "signal", true),
    Known('v', "verbose", false),
    Known('\0', "help", false),
    Known('\x01', "version", false),
];

struct Request {
    duration: Duration,
    limited: Limited,
    preserve: bool,
    command: Vec<OsString>,
}

pub(super) fn timeout(args: Vec<OsString>) -> Exit {
    let line = match getopt::read(args, &KNOWN) {
        Ok(line) => line,
        Err(why) => return misused(why, TRY),
    };
    match line.options.iter().find(|(letter, _)| *letter < ' ') {
        Some(('\0', _)) => return shown(USAGE),
        Some(_) => return shown(VERSION),
        None => {}
    }
    match Request::read(line) {
        Ok(request) if request.limited.name.is_empty() => unnamed(),
        Ok(request) => request.carry_out().unwrap_or_else(|failure| failure.report()),
        Err(why) => misused(why, TRY),
    }
}

impl Request {
    fn read(line: Line) -> Result<Request, String> {
        let mut limited = Limited {
            signal: Signal::TERM,
            kill_after: None,
            foreground: false,
            verbose: false,
            name: String::new(),
        };
        let mut preserve = false;
        for (letter, value) in line.options {
            match letter {
                'f' => limited.foreground = true,
                'p' => preserve = true,
                'v' => limited.verbose = true,
                'k' => limited.kill_after = Some(duration(&value.unwrap_or_default())?),
                _ => limited.signal = signal(&text(value))?,
            }
        }
        limited.kill_after = limited.kill_after.filter(|after| !after.is_zero());
        let mut words = line.words.into_iter();
        let length = words.next().ok_or("DURATION and COMMAND are missing")?;
        let command: Vec<_> = words.collect();
        let name = command.first().ok_or("COMMAND is missing")?;
        limited.name = name.to_string_lossy().into_owned();
        Ok(Request { duration: duration(&length)?, limited, preserve, command })
    }

    fn carry_out(self) -> Result<Exit, Failure> {
        let foreground = self.limited.foreground;
        if !foreground {
            os::lead_group();
        }
        let plan = Plan {
            command: &self.command,
            place: Place::Beside,
            signal: self.limited.signal,
            grace: self.limited.kill_after.unwrap_or(GRACE),
            manner: Manner::Limited(self.limited),
            timeout: Some(self.duration),
            rest: Rest::Leave,
            lifeline: None,
        };
        let end = supervise(plan, &mut || Ok(Job::new()?))?;
        Ok(exit(&end, foreground, self.preserve))
    }
}

fn exit(end: &End, foreground: bool, preserve: bool) -> Exit {
    const KILLED: i32 = 137;
    let Some(status) = end.status else { return Exit::Ours };
    match os::code(status) {
        // The KILL goes to the whole process group, and we are in it.
        _ if end.killed && !foreground => Exit::Killed,
        code if end.timed_out && (preserve || code == KILLED && status.code().is_none()) => {
            Exit::Code(code)
        }
        _ if end.timed_out => Exit::TimedOut,
        _ => Exit::Like(status),
    }
}

/// A name or a number.
fn signal(text: &str) -> Result<Signal, String> {
    text.parse().map_err(|_| format!("'{text}': invalid signal"))
}

/// A floating point number with s, m, h or d; what is too much to count is for ever.
fn duration(text: &OsString) -> Result<Duration, String> {
    let refuse = || format!("invalid time interval {}", quoted(text));
    let text = text.to_str().ok_or_else(refuse)?.trim_ascii_start();
    let is_hex = text.starts_with("0x") || text.starts_with("0X");
    let (number, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1.0),
        Some(b'm') => (&text[..text.len() - 1], 60.0),
        Some(b'h') => (&text[..text.len() - 1], 3600.0),
        // A digit of a number like 0x1d.
        Some(b'd') if !is_hex => (&text[..text.len() - 1], 86400.0),
        _ => (text, 1.0),
    };
    let number = match is_hex {
        true => u64::from_str_radix(&number[2..], 16).ok().map(|number| number as f64),
        false => number.parse::<f64>().ok(),
    };
    let seconds = number.ok_or_else(refuse)? * unit;
    if seconds.is_nan() || seconds < 0.0 {
        return Err(refuse());
    }
    let least = if seconds > 0.0 { Duration::from_nanos(1) } else { Duration::ZERO };
    // What a clock cannot count to is no limit.
    Ok(Duration::try_from_secs_f64(seconds).map_or(Duration::ZERO, |time| time.max(least)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_timeout() {
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
