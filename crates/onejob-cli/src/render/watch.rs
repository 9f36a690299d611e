//! A listing that is repeated on the alternate screen of the terminal, its first lines first, until q or a signal.

use std::{
    thread,
    time::{Duration, Instant},
};

use onejob::Signal;

use super::table::TerminalStyle;
use crate::{
    failure::{Failure, print},
    os::{self, Keys, SignalFilter, SignalQueue, Terminal, WaitEvent},
};

/// Repeats the listing that `draw` returns. There is no event that reports every change.
pub(super) fn watch(
    interval: Duration,
    draw: impl Fn(TerminalStyle) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let style = TerminalStyle::detect();
    if !style.is_terminal() {
        return Err(Failure::new("cannot use --watch: standard output is not a terminal")
            .with_hint("without --watch, the listing is printed once"));
    }
    if !style.moves_cursor() {
        // One listing below the other, until a signal ends this process.
        loop {
            print(draw(TerminalStyle::detect())? + "\n")?;
            thread::sleep(interval);
        }
    }
    let signals = SignalQueue::new(SignalFilter::All)
        .map_err(|e| Failure::os("create a queue for signals", e))?;
    let mut screen = Screen { keys: None, is_in_foreground: Terminal::in_foreground().is_some() };
    screen.enter()?;
    loop {
        let text = draw(TerminalStyle::detect())?;
        screen.show(&text)?;
        if screen.wait(&signals, Instant::now() + interval)? {
            return Ok(());
        }
    }
}

/// The alternate screen with a hidden cursor and keys without echo. Dropping it restores the terminal.
struct Screen {
    /// `None` if standard input is not a terminal.
    keys: Option<Keys>,
    /// Whether this process was started in the foreground of its terminal.
    is_in_foreground: bool,
}

impl Screen {
    fn enter(&mut self) -> Result<(), Failure> {
        self.keys = Keys::new();
        print("\x1b[?1049h\x1b[?25l")
    }

    fn leave(&mut self) {
        // The terminal may be gone.
        let _ = print("\x1b[?25h\x1b[?1049l");
        self.keys = None;
    }

    /// Shows the first lines, as many as fit above a line with the keys.
    fn show(&self, text: &str) -> Result<(), Failure> {
        let rows = os::terminal_height().unwrap_or(24);
        let lines: Vec<_> = text.lines().collect();
        let count = lines.len().min(rows.saturating_sub(1));
        let mut frame = "\x1b[H".to_owned();
        for line in &lines[..count] {
            frame += &format!("{line}\x1b[K\n");
        }
        let more = match lines.len() - count {
            0 => String::new(),
            more => format!("{more} more lines   "),
        };
        let keys = if self.keys.is_some() { "q quit" } else { "Ctrl-C quit" };
        frame += &format!("\x1b[J\x1b[{rows};1H\x1b[7m{more}{keys}\x1b[0m");
        print(frame)
    }

    /// Waits until the next listing is due. Returns whether the user has quit. A signal that ends a process ends
    /// this one.
    fn wait(&mut self, signals: &SignalQueue, until: Instant) -> Result<bool, Failure> {
        loop {
            let failed = |e| Failure::os("wait for a key", e);
            let event = match &self.keys {
                Some(keys) => os::wait_for(keys, signals, &[], Some(until)),
                None => os::wait_for(signals, signals, &[], Some(until)),
            };
            match (event.map_err(failed)?, &self.keys) {
                (WaitEvent::First, Some(keys)) => match keys.read() {
                    // Ctrl-D, and the end of the input.
                    None | Some(b'q' | b'Q' | 4) => return Ok(true),
                    Some(b' ' | b'\r' | b'\n') => return Ok(false),
                    Some(_) => {}
                },
                (WaitEvent::First | WaitEvent::Second, _) => {
                    while let Some(received) = signals.next() {
                        if self.handle(received.signal)? {
                            return Ok(false);
                        }
                    }
                }
                (WaitEvent::Deadline | WaitEvent::LifelineLost, _) => return Ok(false),
            }
        }
    }

    /// Returns whether the listing has to be drawn again.
    fn handle(&mut self, signal: Signal) -> Result<bool, Failure> {
        match signal {
            Signal::CHLD | Signal::URG => Ok(false),
            Signal::WINCH | Signal::CONT => Ok(true),
            Signal::TSTP | Signal::TTIN | Signal::TTOU => {
                self.leave();
                os::stop_self();
                // After `bg`: as on a write to a terminal of another process group.
                while self.is_in_foreground && Terminal::in_foreground().is_none() {
                    os::stop_self();
                }
                self.enter()?;
                Ok(true)
            }
            signal => {
                self.leave();
                os::die_by(signal)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}
