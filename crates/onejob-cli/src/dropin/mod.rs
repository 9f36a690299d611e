//! Standing in for another program by whose name we were called: its command line, its environment
//! variables, its exit statuses, messages of its form. What it lacks is added: nothing is left
//! behind.

mod dumb_init;
mod getopt;
mod timeout;
mod tini;

use std::ffi::{OsStr, OsString};

use crate::{
    exit::Exit,
    os,
    output::{self, Voice, data},
};

/// Does what the program of this name does.
pub(crate) fn stand_in(name: &str) -> Exit {
    let args = os::args().skip(1).collect();
    match name {
        "timeout" => {
            Voice::Timeout.take();
            timeout::timeout(args)
        }
        "dumb-init" => {
            Voice::DumbInit.take();
            dumb_init::dumb_init(args)
        }
        _ => {
            Voice::Tini.take();
            tini::tini(args)
        }
    }
}

/// Bad usage: why, and where to find more.
fn misused(why: impl AsRef<str>, more: &str) -> Exit {
    if !why.as_ref().is_empty() {
        output::talk(why.as_ref());
    }
    output::write_err(more);
    Exit::Ours
}

/// A program without a name, which is what no file has.
fn unnamed() -> Exit {
    output::talk("failed to execute \"\": a program without a name is not found");
    Exit::NotFound
}

/// Help or a version that was asked for.
fn shown(text: &str) -> Exit {
    data(text).err().unwrap_or(Exit::Success)
}

/// A value as a message calls it.
fn quoted(text: &OsStr) -> String {
    format!("'{}'", text.to_string_lossy())
}

/// The value of an option that takes one, as text; what is no text is no valid value either.
fn text(value: Option<OsString>) -> String {
    value.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}
