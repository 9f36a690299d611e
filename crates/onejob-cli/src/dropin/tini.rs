//! tini: `tini [OPTIONS] PROGRAM -- [ARGS]`.

use std::{env, ffi::OsString};

use onejob::{Job, Signal};

use super::{
    getopt::{self, Known, Line},
    misused, shown, text, unnamed,
};
use crate::{
    args::GRACE,
    cmd,
    exit::{Exit, Failure},
    os::{self, Place},
    output::{set_verbosity, warn},
    supervise::{Forwarding, Manner, Plan, Rest, supervise},
};

const VERSION: &str = concat!("tini (onejob ", env!("CARGO_PKG_VERSION"), ")\n");

const USAGE: &str = "\
Usage: tini [OPTIONS] PROGRAM -- [ARGS] | --version

Run PROGRAM as the child of an init: signals are passed on, orphans are reaped, and when it ends,
what it left behind is stopped.

  --version  Show the version
  -h         Show this help
  -s         Be a child subreaper
  -p SIGNAL  Get SIGNAL when the parent ends, as in -p SIGKILL
  -v         Say more (repeat for even more)
  -w         Warn when a process is reaped that nobody waited for
  -g         Pass signals on to the program's process group
  -e CODE    Exit with 0 where it would be CODE (several)
  -l         Show the license

Environment: TINI_SUBREAPER as -s, TINI_KILL_PROCESS_GROUP as -g, TINI_VERBOSITY=N
";

const KNOWN: [Known; 8] = [
    Known('h', "", false),
    Known('s', "", false),
    Known('p', "", true),
    Known('v', "", false),
    Known('w', "", false),
    Known('g', "", false),
    Known('e', "", true),
    Known('l', "", false),
];

struct Request {
    subreaper: bool,
    parent_death: Option<Signal>,
    verbosity: u8,
    forwarding: Forwarding,
    success: Vec<u8>,
    command: Vec<OsString>,
}

pub(super) fn tini(args: Vec<OsString>) -> Exit {
    if args == ["--version"] {
        return shown(VERSION);
    }
    let line = match getopt::read(args, &KNOWN) {
        Ok(line) => line,
        Err(why) => return misused(why, USAGE),
    };
    match line.options.iter().find(|(letter, _)| matches!(letter, 'h' | 'l')) {
        Some(('h', _)) => return shown(USAGE),
        Some(_) => return shown("MIT OR Apache-2.0: this is onejob standing in for tini\n"),
        None => {}
    }
    let request = match Request::read(line) {
        Ok(request) => request,
        Err(why) => return misused(why, ""),
    };
    match request.command.first() {
        None => return misused("PROGRAM is missing", USAGE),
        Some(name) if name.is_empty() => return unnamed(),
        _ => {}
    }
    request.carry_out().unwrap_or_else(|failure| failure.report())
}

impl Request {
    fn read(line: Line) -> Result<Request, String> {
        // 1 is the usual level, of warnings.
        let level = env::var("TINI_VERBOSITY").ok().map(|text| leading_number(&text));
        let mut request = Request {
            subreaper: env::var_os("TINI_SUBREAPER").is_some(),
            parent_death: None,
            verbosity: level.unwrap_or(1),
            forwarding: Forwarding {
                to_group: env::var_os("TINI_KILL_PROCESS_GROUP").is_some(),
                ..Forwarding::default()
            },
            success: Vec::new(),
            command: line.words,
        };
        for (letter, value) in line.options {
            match letter {
                's' => request.subreaper = true,
                'v' => request.verbosity = request.verbosity.saturating_add(1),
                'w' => request.forwarding.warns_of_orphans = true,
                'g' => request.forwarding.to_group = true,
                'p' => request.parent_death = Some(signal(&text(value))?),
                _ => request.success.push(code(&text(value))?),
            }
        }
        // The "--" of the usage is not the program's.
        if request.command.get(1).is_some_and(|word| word == "--") {
            request.command.remove(1);
        }
        Ok(request)
    }

    fn carry_out(self) -> Result<Exit, Failure> {
        set_verbosity(self.verbosity);
        if let Some(signal) = self.parent_death {
            os::die_with_parent(signal).map_err(|e| Failure::os("follow our parent", e))?;
        }
        if !self.subreaper && !os::is_first() {
            warn(
                "this is neither PID 1 nor a subreaper, so not every orphan comes back here: use \
                 -s or set TINI_SUBREAPER",
            );
        }
        let plan = Plan {
            command: &self.command,
            place: Place::Group,
            manner: Manner::Init(self.forwarding),
            timeout: None,
            signal: Signal::TERM,
            grace: GRACE,
            rest: Rest::Stop,
            lifeline: None,
        };
        let mut job = || match self.subreaper || os::is_first() {
            true => cmd::job(None),
            false => Ok(Job::new()?),
        };
        let end = supervise(plan, &mut job)?;
        let code = end.status.map_or(1, os::code);
        Ok(Exit::Code(if cmd::is_success(code, &self.success) { 0 } else { code }))
    }
}

/// By its full name only.
fn signal(text: &str) -> Result<Signal, String> {
    let known = text.starts_with("SIG").then(|| text.parse::<Signal>().ok()).flatten();
    known.ok_or_else(|| format!("Not a valid option for -p: {text} (a name like SIGKILL)"))
}

fn code(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| format!("Not a valid option for -e: {text} (0 to 255)"))
}

/// As atoi(3), within reason.
fn leading_number(text: &str) -> u8 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(if end == 0 { 0 } else { u8::MAX })
}
