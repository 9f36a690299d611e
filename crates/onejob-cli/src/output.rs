//! Standard output is for data, standard error for messages.

use std::{
    fmt,
    io::{self, Write as _},
    sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
};

use serde::Serialize;

use crate::{
    os,
    persona::{Level, Persona},
};

/// How verbose the messages are: 0 prints errors only, 1 warnings too, more prints information.
static VERBOSITY: AtomicU8 = AtomicU8::new(1);

pub(crate) fn set_verbosity(verbosity: u8) {
    VERBOSITY.store(verbosity, Relaxed);
}

/// Whether each message is a line of JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

pub(crate) fn use_json() {
    IS_JSON.store(true, Relaxed);
}

/// A message as JSON. The keys are stable: keys may be added, the others keep their meaning, or `schema`
/// changes.
#[derive(Serialize)]
struct Message<'a> {
    schema: u32,
    level: &'static str,
    message: &'a str,
    hint: Option<&'a str>,
    kind: Option<&'a str>,
    /// The exit status, if the message is the reason for it.
    status: Option<i32>,
}

/// Prints the reason why the requested action failed.
pub(crate) fn error(message: impl fmt::Display) {
    print_message(Level::Error, message);
}

/// Prints why onejob exits with this status, and the remedy below it. Only onejob prints remedies, the
/// programs that it replaces do not.
pub(crate) fn failure(message: &str, hint: Option<&str>, kind: &str, status: i32) {
    if IS_JSON.load(Relaxed) {
        let (kind, status) = (Some(kind), Some(status));
        return print_json(&Message { schema: 1, level: "error", message, hint, kind, status });
    }
    error(message);
    if let (Some(hint), Persona::Onejob) = (hint, Persona::current()) {
        write_stderr(&format!("hint: {hint}\n"));
    }
}

/// Prints a warning. It has no influence on the exit status.
pub(crate) fn warn(message: impl fmt::Display) {
    if VERBOSITY.load(Relaxed) >= 1 {
        print_message(Level::Warning, message);
    }
}

/// Prints a message if the verbosity is at least this.
pub(crate) fn info(verbosity: u8, message: impl fmt::Display) {
    if VERBOSITY.load(Relaxed) >= verbosity {
        print_message(Level::Info, message);
    }
}

fn print_message(level: Level, message: impl fmt::Display) {
    if IS_JSON.load(Relaxed) {
        let level = match level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
        };
        let (message, schema) = (&*message.to_string(), 1);
        let (hint, kind, status) = (None, None, None);
        return print_json(&Message { schema, level, message, hint, kind, status });
    }
    write_stderr(&Persona::current().format(level, message));
}

fn print_json(message: &Message<'_>) {
    // Strings and numbers always serialise.
    write_stderr(&(serde_json::to_string(message).unwrap_or_default() + "\n"));
}

/// Writes text to standard error.
///
/// A failed write is ignored and `stty tostop` has no effect: a message that cannot be printed is no
/// reason to abandon a process tree.
pub(crate) fn write_stderr(text: &str) {
    os::without_tostop(|| {
        let _ = io::stderr().write_all(text.as_bytes());
    });
}

/// Writes data to standard output.
pub(crate) fn write_stdout(data: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush())
}
