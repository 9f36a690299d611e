//! Data goes to stdout, talk to stderr.

use std::{
    fmt,
    io::{self, Write as _},
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use crate::{exit::Exit, os};

/// Whose words and exit statuses we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    Onejob,
    Tini,
    DumbInit,
    Timeout,
}

static VOICE: OnceLock<Voice> = OnceLock::new();

/// How much is said beside what matters: 1 are warnings.
static VERBOSITY: AtomicU8 = AtomicU8::new(1);

impl Voice {
    /// The voice of this process.
    pub(crate) fn ours() -> Voice {
        VOICE.get().copied().unwrap_or(Voice::Onejob)
    }

    /// Makes it the voice of this process, once.
    pub(crate) fn take(self) {
        let _ = VOICE.set(self);
    }

    fn line(self, gravity: Gravity, message: impl fmt::Display) -> String {
        match self {
            Voice::Onejob => format!("onejob: {message}\n"),
            Voice::Tini => format!("[{gravity} tini ({})] {message}\n", std::process::id()),
            Voice::DumbInit => format!("[dumb-init] {message}\n"),
            Voice::Timeout => format!("timeout: {message}\n"),
        }
    }
}

#[derive(Clone, Copy)]
enum Gravity {
    Fatal,
    Warning,
    Info,
}

impl fmt::Display for Gravity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Gravity::Fatal => "FATAL",
            Gravity::Warning => "WARN ",
            Gravity::Info => "INFO ",
        })
    }
}

/// Says one line on stderr: why something that was asked for cannot be done.
pub(crate) fn talk(message: impl fmt::Display) {
    say(Gravity::Fatal, message);
}

/// Says one line on stderr that changes nothing.
pub(crate) fn warn(message: impl fmt::Display) {
    if VERBOSITY.load(Relaxed) >= 1 {
        say(Gravity::Warning, message);
    }
}

/// Says one line on stderr to those who want to know that much.
pub(crate) fn tell(level: u8, message: impl fmt::Display) {
    if VERBOSITY.load(Relaxed) >= level {
        say(Gravity::Info, message);
    }
}

pub(crate) fn set_verbosity(level: u8) {
    VERBOSITY.store(level, Relaxed);
}

fn say(gravity: Gravity, message: impl fmt::Display) {
    write_err(&Voice::ours().line(gravity, message));
}

/// Writes to stderr.
///
/// Nobody may be listening any more, and under `stty tostop` a background write would stop us:
/// neither is a reason to abandon a tree.
pub(crate) fn write_err(text: &str) {
    os::quietly(|| {
        let _ = io::stderr().write_all(text.as_bytes());
    });
}

/// Writes one line of data to stderr, where CMD's own data cannot meet it.
pub(crate) fn line(text: &str) {
    let line = format!("{text}\n");
    os::quietly(|| {
        let _ = io::stderr().write_all(line.as_bytes());
    });
}

/// Writes the data a verb was asked for. A reader that has seen enough is a success, and no more is
/// to be written.
pub(crate) fn data(text: &str) -> Result<(), Exit> {
    raw_data(text.as_bytes())
}

/// The same for what need not be text.
pub(crate) fn raw_data(bytes: &[u8]) -> Result<(), Exit> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Exit::Success),
        Err(error) => {
            talk(format_args!("failed to write to standard output: {error}"));
            Err(Exit::Ours)
        }
        Ok(()) => Ok(()),
    }
}
