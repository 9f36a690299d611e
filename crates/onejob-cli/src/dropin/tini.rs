//! tini: `tini [OPTIONS] PROGRAM -- [ARGS]`.

use std::{env, ffi::OsString};

use onejob::Signal;

use super::{
    empty_program_name,
    getopt::{self, OptionSpec, ParsedLine},
    new_job, print_info, text, usage_error,
};
use crate::{
    args::{DEFAULT_GRACE, StopArgs},
    exit::Exit,
    failure::Failure,
    os::{self, ProcessGroup},
    output::{set_verbosity, warn},
    supervise::{self, InitMode, LeftoverPolicy, Options, Setup, SignalMode},
};

const VERSION: &str = concat!("tini (onejob ", env!("CARGO_PKG_VERSION"), ")\n");

const USAGE: &str = "\
Usage: tini [OPTIONS] PROGRAM -- [ARGS] | --version

Run PROGRAM as the child of an init: signals are forwarded, orphans are reaped, and when PROGRAM
exits, the processes that it left behind are stopped.

  --version  Show the version
  -h         Show this help
  -s         Be a child subreaper
  -p SIGNAL  Receive SIGNAL when the parent exits, as in -p SIGKILL
  -v         Print more messages (can be repeated)
  -w         Print a warning when an orphan is reaped
  -g         Forward signals to the process group of PROGRAM
  -e CODE    Exit with 0 instead of CODE (can be repeated)
  -l         Show the license

Environment: TINI_SUBREAPER as -s, TINI_KILL_PROCESS_GROUP as -g, TINI_VERBOSITY=N
";

const OPTIONS: [OptionSpec; 8] = [
    OptionSpec('h', "", false),
    OptionSpec('s', "", false),
    OptionSpec('p', "", true),
    OptionSpec('v', "", false),
    OptionSpec('w', "", false),
    OptionSpec('g', "", false),
    OptionSpec('e', "", true),
    OptionSpec('l', "", false),
];

struct Request {
    subreaper: bool,
    parent_death: Option<Signal>,
    verbosity: u8,
    mode: InitMode,
    success: Vec<u8>,
    command: Vec<OsString>,
}

pub(super) fn tini(args: Vec<OsString>) -> Exit {
    if args == ["--version"] {
        return print_info(VERSION);
    }
    let line = match getopt::parse(args, &OPTIONS) {
        Ok(line) => line,
        Err(reason) => return usage_error(reason, USAGE),
    };
    match line.options.iter().find(|(letter, _)| matches!(letter, 'h' | 'l')) {
        Some(('h', _)) => return print_info(USAGE),
        Some(_) => return print_info("MIT OR Apache-2.0: this is onejob in place of tini\n"),
        None => {}
    }
    let request = match Request::new(line) {
        Ok(request) => request,
        Err(reason) => return usage_error(reason, ""),
    };
    match request.command.first() {
        None => return usage_error("PROGRAM is missing", USAGE),
        Some(name) if name.is_empty() => return empty_program_name(),
        _ => {}
    }
    request.execute().unwrap_or_else(|failure| failure.report())
}

impl Request {
    fn new(line: ParsedLine) -> Result<Request, String> {
        // The default, 1, prints warnings.
        let level = env::var("TINI_VERBOSITY").ok().map(|text| leading_number(&text));
        let mut request = Request {
            subreaper: env::var_os("TINI_SUBREAPER").is_some(),
            parent_death: None,
            verbosity: level.unwrap_or(1),
            mode: InitMode {
                to_group: env::var_os("TINI_KILL_PROCESS_GROUP").is_some(),
                ..InitMode::default()
            },
            success: Vec::new(),
            command: line.words,
        };
        for (letter, value) in line.options {
            match letter {
                's' => request.subreaper = true,
                'v' => request.verbosity = request.verbosity.saturating_add(1),
                'w' => request.mode.warns_of_orphans = true,
                'g' => request.mode.to_group = true,
                'p' => request.parent_death = Some(signal(&text(value))?),
                _ => request.success.push(code(&text(value))?),
            }
        }
        // The "--" after PROGRAM belongs to tini.
        if request.command.get(1).is_some_and(|word| word == "--") {
            request.command.remove(1);
        }
        Ok(request)
    }

    fn execute(self) -> Result<Exit, Failure> {
        set_verbosity(self.verbosity);
        if let Some(signal) = self.parent_death {
            os::set_parent_death_signal(signal)
                .map_err(|e| Failure::os("set the parent death signal", e))?;
        }
        let reaps = self.subreaper || os::is_pid_1();
        if !reaps {
            warn(
                "not running as PID 1 and not a subreaper: some orphans are not reaped. Use -s or \
                 set TINI_SUBREAPER",
            );
        }
        let setup = Setup::new(Options {
            command: &self.command,
            process_group: ProcessGroup::New,
            mode: SignalMode::Init(self.mode),
            timeout: None,
            stop: StopArgs { signal: Signal::TERM, grace: DEFAULT_GRACE },
            leftovers: LeftoverPolicy::Stop,
            lifelines: Vec::new(),
        })?;
        let job = if reaps { supervise::init_job(None, new_job)? } else { new_job()? };
        let outcome = setup.start(job)?.run()?;
        let code = outcome.status.map_or(1, os::exit_code);
        Ok(Exit::Code(if supervise::is_success(code, &self.success) { 0 } else { code }))
    }
}

/// A signal by its full name, with SIG.
fn signal(text: &str) -> Result<Signal, String> {
    let known = text.starts_with("SIG").then(|| text.parse::<Signal>().ok()).flatten();
    known.ok_or_else(|| format!("Not a valid option for -p: {text} (a name like SIGKILL)"))
}

fn code(text: &str) -> Result<u8, String> {
    text.parse().map_err(|_| format!("Not a valid option for -e: {text} (0 to 255)"))
}

/// The leading digits as a number, as atoi(3); 255 on overflow.
fn leading_number(text: &str) -> u8 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(if end == 0 { 0 } else { u8::MAX })
}
