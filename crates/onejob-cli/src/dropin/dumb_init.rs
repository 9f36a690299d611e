//! dumb-init: `dumb-init [option] command [[arg] ...]`.

use std::{env, ffi::OsString};

use onejob::Signal;

use super::{
    empty_program_name,
    getopt::{self, OptionSpec, ParsedLine},
    new_job, text, usage_error,
};
use crate::{
    args::{DEFAULT_GRACE, StopArgs},
    exit::Exit,
    failure::Failure,
    os::{self, ProcessGroup},
    output::{set_verbosity, write_stderr},
    supervise::{self, InitMode, LeftoverPolicy, Options, Setup, SignalMode},
};

const VERSION: &str = concat!("dumb-init (onejob ", env!("CARGO_PKG_VERSION"), ")\n");

const USAGE: &str = "\
Usage: dumb-init [option] command [[arg] ...]

Run a command as the child of an init: signals are forwarded, orphans are reaped, and when the
command exits, the processes that it left behind are stopped.

  -c, --single-child  Forward signals to the child alone, and start it in the current session
  -r, --rewrite s:r   Forward signal s as r, or not at all if r is 0 (can be repeated)
  -v, --verbose       Print messages
  -h, --help          Show this help
  -V, --version       Show the version

Environment: DUMB_INIT_SETSID=0 as -c, DUMB_INIT_DEBUG=1 as -v
";

const NO_PROGRAM: &str = "\
Usage: dumb-init [option] program [args]
Try dumb-init --help for full usage.
";

const NO_REWRITE: &str = "\
Usage: -r option takes <signum>:<signum>, where <signum> is between 1 and 31.
The second may be 0: not forwarded. Use --help for full usage.
";

const OPTIONS: [OptionSpec; 5] = [
    OptionSpec('h', "help", false),
    OptionSpec('c', "single-child", false),
    OptionSpec('r', "rewrite", true),
    OptionSpec('v', "verbose", false),
    OptionSpec('V', "version", false),
];

pub(super) fn dumb_init(args: Vec<OsString>) -> Exit {
    let ParsedLine { options, words } = match getopt::parse(args, &OPTIONS) {
        Ok(line) => line,
        Err(reason) => return usage_error(reason, ""),
    };
    let mut session = env::var_os("DUMB_INIT_SETSID").is_none_or(|value| value != "0");
    let mut verbose = env::var_os("DUMB_INIT_DEBUG").is_some_and(|value| value == "1");
    let mut rewrites = Vec::new();
    for (letter, value) in options {
        match letter {
            // The original prints them to standard error.
            'h' | 'V' => {
                write_stderr(if letter == 'h' { USAGE } else { VERSION });
                return Exit::Success;
            }
            'c' => session = false,
            'v' => verbose = true,
            _ => match rewrite(&text(value)) {
                Some(rewrite) => rewrites.push(rewrite),
                None => return usage_error("", NO_REWRITE),
            },
        }
    }
    match words.first() {
        None => return usage_error("", NO_PROGRAM),
        Some(name) if name.is_empty() => return empty_program_name(),
        _ => {}
    }
    set_verbosity(if verbose { u8::MAX } else { 1 });
    execute(&words, session, rewrites).unwrap_or_else(|failure| failure.report())
}

fn execute(
    command: &[OsString],
    session: bool,
    rewrites: Vec<(Signal, Option<Signal>)>,
) -> Result<Exit, Failure> {
    let mut all_rewrites = supervise::stop_rewrites(session);
    all_rewrites.extend(rewrites);
    let setup = Setup::new(Options {
        command,
        process_group: if session { ProcessGroup::NewSession } else { ProcessGroup::Inherit },
        mode: SignalMode::Init(InitMode {
            to_group: session,
            rewrites: all_rewrites,
            stops_with_child: true,
            ..InitMode::default()
        }),
        timeout: None,
        stop: StopArgs { signal: Signal::TERM, grace: DEFAULT_GRACE },
        leftovers: LeftoverPolicy::Stop,
        lifelines: Vec::new(),
    })?;
    let outcome = setup.start(supervise::init_job(None, new_job)?)?.run()?;
    Ok(Exit::Code(outcome.status.map_or(1, os::exit_code)))
}

/// Two signal numbers, `FROM:TO`; a TO of 0 is none.
fn rewrite(text: &str) -> Option<(Signal, Option<Signal>)> {
    let (from, to) = text.split_once(':')?;
    let signal = |text: &str| {
        let number = text.parse::<i32>().ok().filter(|number| (1..=31).contains(number))?;
        Signal::from_raw(number)
    };
    let to = if to == "0" { None } else { Some(signal(to)?) };
    Some((signal(from)?, to))
}
