//! The help: grouped, wrapped to the terminal, coloured on terminals, with exit statuses and examples.

use std::{ffi::OsString, fmt::Write as _};

use clap::builder::{
    StyledStr, Styles,
    styling::{AnsiColor, Style},
};

use super::{definitions, pages};
use crate::render::table::TerminalStyle;

/// The longest line of the help.
const MAX_WIDTH: usize = 100;

/// The help that a command line requests. The definitions that parse a command line have no examples, styles and
/// width, which would cost each start.
pub(super) fn requested_by(words: &[OsString]) -> Option<String> {
    let terminal = TerminalStyle::detect();
    let width = terminal.width().map_or(MAX_WIDTH, |width| width.min(MAX_WIDTH));
    let page = |command: clap::Command| {
        let name = command.get_name().to_owned();
        match pages::of(&name) {
            Some(page) => command.after_long_help(below(page)),
            None => command,
        }
    };
    let help =
        "Help for a subcommand: onejob help SUBCOMMAND, or onejob SUBCOMMAND -h for a summary";
    let command =
        definitions().styles(styles()).term_width(width).after_help(help).mut_subcommands(page);
    let text = command.try_get_matches_from(words).err()?.render();
    Some(if terminal.is_coloured() { text.ansi().to_string() } else { text.to_string() })
}

fn styles() -> Styles {
    Styles::styled()
        .header(HEADER)
        .usage(HEADER)
        .literal(AnsiColor::Cyan.on_default().bold())
        .placeholder(AnsiColor::Cyan.on_default())
}

const HEADER: Style = AnsiColor::Green.on_default().bold();

/// The exit statuses and examples below the options.
fn below(page: &pages::Page) -> StyledStr {
    let mut text = format!("{HEADER}Exit status:{HEADER:#}\n");
    // Writing to a string cannot fail.
    for (status, event) in page.statuses {
        let _ = writeln!(text, "  {status:<6} {event}");
    }
    let _ = write!(text, "\n{HEADER}Examples:{HEADER:#}");
    for (purpose, line) in page.examples {
        let _ = write!(text, "\n  {purpose}:\n      {line}");
    }
    text.into()
}
