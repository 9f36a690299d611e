//! Showing a listing: as JSON, once, or again and again.

pub(crate) mod table;

use std::{thread, time::Duration};

use serde::Serialize;

use crate::{
    args::Show,
    exit::{Exit, Failure},
    output::{data, talk},
};

use table::Screen;

/// What a listing shows at one moment.
pub(crate) trait Listing: Serialize {
    fn draw(&self, screen: Screen) -> String;
}

/// Shows what `look` sees, as it was asked for.
pub(crate) fn show<L: Listing>(show: Show, look: impl Fn() -> Result<L, Failure>) -> Exit {
    let once = |screen: Screen| -> Result<(), Exit> {
        let seen = look().map_err(|failure| failure.report())?;
        match show.json {
            true => data(&json(&seen)),
            false => data(&seen.draw(screen)),
        }
    };
    let result = match show.watch {
        None => once(Screen::here()),
        Some(pause) => watch(pause, once),
    };
    result.err().unwrap_or(Exit::Success)
}

/// Until Ctrl-C ends us. A listing has no event to wait for.
fn watch(pause: Duration, once: impl Fn(Screen) -> Result<(), Exit>) -> Result<(), Exit> {
    loop {
        let screen = Screen::here();
        if !screen.is_terminal() {
            talk("--watch needs a terminal to draw on (without it, one listing is printed)");
            return Err(Exit::Ours);
        }
        // Home, and clear what was below; a terminal that cannot gets one listing after another.
        data(if screen.is_styled() { "\x1b[H\x1b[2J" } else { "\n" })?;
        once(screen)?;
        thread::sleep(pause);
    }
}

/// With a line's end. Strings, numbers and flags always serialise.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
