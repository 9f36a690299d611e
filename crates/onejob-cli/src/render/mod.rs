//! Listings as JSON, or as tables on a terminal, once or repeatedly.

pub(crate) mod table;
mod watch;

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
    match args.watch {
        Some(interval) => watch::watch(interval, |style| Ok(read()?.draw(style)))?,
        None if args.json => print(json(&read()?))?,
        None => print(read()?.draw(TerminalStyle::detect()))?,
    }
    Ok(Exit::Success)
}

/// JSON with a line feed. Strings, numbers and flags always serialise.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
