//! Signals by name and number.

use std::{fmt, str::FromStr};

use crate::{Error, Result};

/// A signal: a number with a name. From text: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
///
/// Source: [`signal(7)`](https://man7.org/linux/man-pages/man7/signal.7.html).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(i32);

macro_rules! signals {
    ($($name:ident = $number:literal, $doc:literal;)+) => {
        impl Signal {
            $(#[doc = $doc] pub const $name: Signal = Signal($number);)+

            const NAMES: &[(&str, Signal)] = &[$((stringify!($name), Signal::$name)),+];
        }
    };
}

// The numbers of Linux on every architecture but alpha, mips, parisc and sparc.
signals! {
    HUP = 1, "The terminal hung up.";
    INT = 2, "Interrupt from the keyboard.";
    QUIT = 3, "Quit from the keyboard.";
    ILL = 4, "Illegal instruction.";
    TRAP = 5, "Breakpoint.";
    ABRT = 6, "Abort.";
    BUS = 7, "Bad memory access.";
    FPE = 8, "Arithmetic error.";
    KILL = 9, "Kill; cannot be caught.";
    USR1 = 10, "User-defined.";
    SEGV = 11, "Invalid memory reference.";
    USR2 = 12, "User-defined.";
    PIPE = 13, "Write to a pipe that has no reader.";
    ALRM = 14, "Timer.";
    TERM = 15, "Termination request.";
    STKFLT = 16, "Unused.";
    CHLD = 17, "A child ended, stopped or continued.";
    CONT = 18, "Continue if stopped.";
    STOP = 19, "Stop; cannot be caught.";
    TSTP = 20, "Stop from the keyboard.";
    TTIN = 21, "Terminal input in the background.";
    TTOU = 22, "Terminal output in the background.";
    URG = 23, "Urgent data on a socket.";
    XCPU = 24, "CPU time limit.";
    XFSZ = 25, "File size limit.";
    VTALRM = 26, "Virtual timer.";
    PROF = 27, "Profiling timer.";
    WINCH = 28, "The window size changed.";
    IO = 29, "Input is possible.";
    PWR = 30, "Power failure.";
    SYS = 31, "Bad system call.";
}

/// The first and the last real-time signal that a C library leaves to programs.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

impl Signal {
    /// The signal with this number, if there is one.
    pub fn from_raw(number: i32) -> Option<Signal> {
        ((1..=31).contains(&number) || (RTMIN..=RTMAX).contains(&number)).then_some(Signal(number))
    }

    /// Its number.
    pub const fn as_raw(self) -> i32 {
        self.0
    }

    /// All signals.
    pub fn all() -> impl Iterator<Item = Signal> {
        (1..=RTMAX).filter_map(Signal::from_raw)
    }
}

impl FromStr for Signal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal);
        let real_time = |base: i32, rest: &str| match rest {
            "" => Some(base),
            _ => rest.parse::<i32>().ok().and_then(|offset| base.checked_add(offset)),
        };
        let number = if let Some(rest) = name.strip_prefix("RTMIN") {
            real_time(RTMIN, rest).filter(|number| *number >= RTMIN)
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            real_time(RTMAX, rest).filter(|number| *number >= RTMIN)
        } else {
            name.parse().ok()
        };
        named.or_else(|| number.and_then(Signal::from_raw)).ok_or_else(|| {
            Error::invalid(format!("unknown signal {text:?}"))
                .with_hint("a name like TERM or a number from 1 to 64; `kill -l` lists them")
        })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, signal)| signal == self) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_reads_back_as_it_prints() {
        for signal in Signal::all() {
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
            assert_eq!(signal.as_raw().to_string().parse::<Signal>().unwrap(), signal);
        }
    }

    #[test]
    fn invalid_signals_are_refused() {
        for text in ["", "0", "-1", "65", "32", "SIG", "FOO", "RTMIN-1", "RTMAX+1", "9999999999"] {
            assert!(text.parse::<Signal>().is_err(), "{text:?}");
        }
    }
}
