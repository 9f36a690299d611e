//! Which program's message format and exit statuses this process uses.

use std::{fmt, sync::OnceLock};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persona {
    Onejob,
    Tini,
    DumbInit,
    Timeout,
}

static CURRENT: OnceLock<Persona> = OnceLock::new();

/// The severity of a message.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    Error,
    Warning,
    Info,
}

impl Persona {
    pub(crate) fn current() -> Persona {
        CURRENT.get().copied().unwrap_or(Persona::Onejob)
    }

    /// Makes it the persona of this process. Only the first call has an effect.
    pub(crate) fn set(self) {
        let _ = CURRENT.set(self);
    }

    /// A message in this program's format, with a line feed.
    pub(crate) fn format(self, level: Level, message: impl fmt::Display) -> String {
        match self {
            Persona::Onejob => format!("onejob: {message}\n"),
            Persona::Tini => {
                let level = match level {
                    Level::Error => "FATAL",
                    Level::Warning => "WARN ",
                    Level::Info => "INFO ",
                };
                format!("[{level} tini ({})] {message}\n", std::process::id())
            }
            Persona::DumbInit => format!("[dumb-init] {message}\n"),
            Persona::Timeout => format!("timeout: {message}\n"),
        }
    }
}
