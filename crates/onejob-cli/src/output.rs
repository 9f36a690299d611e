//! Standard output is for data, standard error for messages.

use std::{
    fmt,
    io::{self, Write as _},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use crate::{
    os,
    persona::{Level, Persona},
};

/// How verbose the messages are: 0 prints errors only, 1 warnings too, more prints information.
static VERBOSITY: AtomicU8 = AtomicU8::new(1);

pub(crate) fn set_verbosity(verbosity: u8) {
    VERBOSITY.store(verbosity, Relaxed);
}

/// Prints the reason why the requested action failed.
pub(crate) fn error(message: impl fmt::Display) {
    print_message(Level::Error, message);
}

/// Prints a remedy below an error. Only onejob does that, the programs that it replaces do not.
pub(crate) fn hint(remedy: &str) {
    if Persona::current() == Persona::Onejob {
        write_stderr(&format!("hint: {remedy}\n"));
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
    write_stderr(&Persona::current().format(level, message));
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
