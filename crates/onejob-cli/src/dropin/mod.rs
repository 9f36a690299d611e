//! Replaces the program by whose name onejob was called: its command line, its environment variables,
//! its exit statuses, and the format of its messages. In addition, no process is left behind.

mod dumb_init;
mod getopt;
mod timeout;
mod tini;

use std::ffi::{OsStr, OsString};

use onejob::Job;

use crate::{
    exit::Exit,
    failure::print,
    os,
    output::{error, write_stderr},
    persona::Persona,
};

/// Does what this program does.
pub(crate) fn run(program: &str) -> Exit {
    let args = os::args().skip(1).collect();
    match program {
        "timeout" => {
            Persona::Timeout.set();
            timeout::timeout(args)
        }
        "dumb-init" => {
            Persona::DumbInit.set();
            dumb_init::dumb_init(args)
        }
        _ => {
            Persona::Tini.set();
            tini::tini(args)
        }
    }
}

/// The job of a drop-in. Where no mechanism is available (no `/proc` is mounted), it reaches CMD and its
/// process group, as the original does.
fn new_job() -> onejob::Result<Job> {
    Job::new().or_else(|error| match error.is_unsupported() {
        true => Job::builder().enclose().map_err(|_| error),
        false => Err(error),
    })
}

/// Invalid usage: prints the reason, if there is one, and the usage or a pointer to it.
fn usage_error(reason: impl AsRef<str>, usage: &str) -> Exit {
    if !reason.as_ref().is_empty() {
        error(reason.as_ref());
    }
    write_stderr(usage);
    Exit::InternalError
}

/// The name of the program is empty: no such file exists.
fn empty_program_name() -> Exit {
    error("failed to execute \"\": the name of the program is empty");
    Exit::NotFound
}

/// Prints help, a version or a license to standard output.
fn print_info(text: &str) -> Exit {
    print(text).map_or_else(|failure| failure.report(), |()| Exit::Success)
}

/// A value in the notation of messages.
fn quoted(text: &OsStr) -> String {
    format!("'{}'", text.to_string_lossy())
}

/// The value of an option that takes one. Bytes that are not UTF-8 make it invalid for every option.
fn text(value: Option<OsString>) -> String {
    value.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}
