//! Listings as JSON, or as tables on a terminal, once or repeatedly.

pub(crate) mod table;

use std::{thread, time::Duration};

use serde::Serialize;

use crate::{
    args::ListingArgs,
    exit::Exit,
    failure::{Failure, print},
};
use table::TerminalStyle;

/// The contents of a listing at one moment.
pub(crate) trait Listing: Serialize {
    fn draw(&self, style: TerminalStyle) -> String;
}

/// Prints the listing that `read` returns.
pub(crate) fn show<L: Listing>(
    args: ListingArgs,
    read: impl Fn() -> Result<L, Failure>,
) -> Result<Exit, Failure> {
    let once = |style: TerminalStyle| -> Result<(), Failure> {
        let listing = read()?;
        print(if args.json { json(&listing) } else { listing.draw(style) })
    };
    match args.watch {
        None => once(TerminalStyle::detect()),
        Some(interval) => watch(interval, once),
    }?;
    Ok(Exit::Success)
}

/// Repeats a listing until a signal ends this process. There is no event that reports every change.
fn watch(
    interval: Duration,
    once: impl Fn(TerminalStyle) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        let style = TerminalStyle::detect();
        if !style.is_terminal() {
            return Err(Failure::new("cannot use --watch: standard output is not a terminal")
                .with_hint("without --watch, the listing is printed once"));
        }
        // Cursor home and clear; a terminal that cannot do that shows one listing below the other.
        print(if style.is_coloured() { "\x1b[H\x1b[2J" } else { "\n" })?;
        once(style)?;
        thread::sleep(interval);
    }
}

/// JSON with a line feed. Strings, numbers and flags always serialise.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
