//! dumb-init: `dumb-init [option] command [[arg] ...]`.

use std::{env, ffi::OsString};

use onejob::Signal;

use super::{
    getopt::{self, Known, Line},
    misused, text, unnamed,
};
use crate::{
    args::GRACE,
    cmd,
    exit::{Exit, Failure},
    os::{self, Place},
    output::{set_verbosity, write_err},
    supervise::{Forwarding, Manner, Plan, Rest, supervise},
};

const VERSION: &str = concat!("dumb-init (onejob ", env!("CARGO_PKG_VERSION"), ")\n");

const USAGE: &str = "\
Usage: dumb-init [option] command [[arg] ...]

Run a command as the child of an init: signals are passed on, orphans are reaped, and when it ends,
what it left behind is stopped.

  -c, --single-child  Pass signals on to the child alone, which gets no session of its own
  -r, --rewrite s:r   Pass signal s on as r, and not at all if r is 0 (several)
  -v, --verbose       Say what is done
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
The second may be 0: not passed on. Use --help for full usage.
";

const KNOWN: [Known; 5] = [
    Known('h', "help", false),
    Known('c', "single-child", false),
    Known('r', "rewrite", true),
    Known('v', "verbose", false),
    Known('V', "version", false),
];

pub(super) fn dumb_init(args: Vec<OsString>) -> Exit {
    let Line { options, words } = match getopt::read(args, &KNOWN) {
        Ok(line) => line,
        Err(why) => return misused(why, ""),
    };
    let mut session = env::var_os("DUMB_INIT_SETSID").is_none_or(|value| value != "0");
    let mut verbose = env::var_os("DUMB_INIT_DEBUG").is_some_and(|value| value == "1");
    let mut rewrites = Vec::new();
    for (letter, value) in options {
        match letter {
            // It says even this on stderr.
            'h' | 'V' => {
                write_err(if letter == 'h' { USAGE } else { VERSION });
                return Exit::Success;
            }
            'c' => session = false,
            'v' => verbose = true,
            _ => match rewrite(&text(value)) {
                Some(both) => rewrites.push(both),
                None => return misused("", NO_REWRITE),
            },
        }
    }
    match words.first() {
        None => return misused("", NO_PROGRAM),
        Some(name) if name.is_empty() => return unnamed(),
        _ => {}
    }
    set_verbosity(if verbose { u8::MAX } else { 1 });
    carry_out(&words, session, rewrites).unwrap_or_else(|failure| failure.report())
}

fn carry_out(
    command: &[OsString],
    session: bool,
    given: Vec<(Signal, Option<Signal>)>,
) -> Result<Exit, Failure> {
    let mut rewrites = cmd::stops_for(session);
    rewrites.extend(given);
    let plan = Plan {
        command,
        place: if session { Place::Session } else { Place::Beside },
        manner: Manner::Init(Forwarding {
            to_group: session,
            rewrites,
            suspends: true,
            ..Forwarding::default()
        }),
        timeout: None,
        signal: Signal::TERM,
        grace: GRACE,
        rest: Rest::Stop,
        lifeline: None,
    };
    let end = supervise(plan, &mut || cmd::job(None))?;
    Ok(Exit::Code(end.status.map_or(1, os::code)))
}

/// Two numbers, of which the second may be 0.
fn rewrite(text: &str) -> Option<(Signal, Option<Signal>)> {
    let (from, to) = text.split_once(':')?;
    let signal = |text: &str| {
        let number = text.parse::<i32>().ok().filter(|number| (1..=31).contains(number))?;
        Signal::from_raw(number)
    };
    let to = if to == "0" { None } else { Some(signal(to)?) };
    Some((signal(from)?, to))
}
