//! Tables with aligned columns, truncated to the width of the terminal.

use std::{env, time::Duration};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::os;

/// The width of the terminal, and whether escape sequences may be used.
#[derive(Clone, Copy)]
pub(crate) struct TerminalStyle {
    /// `None` if standard output is not a terminal: lines are not truncated.
    width: Option<usize>,
    /// Whether the terminal has a cursor that escape sequences move.
    has_escapes: bool,
    coloured: bool,
}

impl TerminalStyle {
    pub(crate) fn detect() -> TerminalStyle {
        let width = os::terminal_width();
        let has_escapes = width.is_some() && env::var_os("TERM").is_some_and(|term| term != "dumb");
        let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        TerminalStyle { width, has_escapes, coloured: has_escapes && !is_plain }
    }

    pub(crate) fn is_terminal(self) -> bool {
        self.width.is_some()
    }

    pub(crate) fn width(self) -> Option<usize> {
        self.width
    }

    pub(crate) fn moves_cursor(self) -> bool {
        self.has_escapes
    }

    pub(crate) fn is_coloured(self) -> bool {
        self.coloured
    }

    fn truncate(self, line: &str) -> String {
        match self.width {
            Some(width) if line.width() > width => {
                let mut left = width.saturating_sub(1);
                let fits = |c: &char| {
                    let columns = c.width().unwrap_or(0);
                    let fits = columns <= left;
                    left = left.saturating_sub(columns);
                    fits
                };
                line.chars().take_while(fits).collect::<String>() + "…"
            }
            _ => line.to_owned(),
        }
    }

    /// One truncated line; the header of a table is bold.
    fn line(self, text: &str, is_header: bool) -> String {
        let text = self.truncate(text.trim_end());
        match is_header && self.coloured {
            true => format!("\x1b[1m{text}\x1b[0m\n"),
            false => text + "\n",
        }
    }
}

/// Columns with a header. Numbers are right-aligned.
pub(crate) struct Table<const N: usize> {
    header: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(header: [&'static str; N]) -> Self {
        Table { header, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: [String; N]) {
        self.rows.push(row.map(|cell| printable(&cell)));
    }

    /// `right` marks the columns that are right-aligned.
    pub(crate) fn draw(&self, style: TerminalStyle, right: [bool; N]) -> String {
        let header = self.header.map(str::to_owned);
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&header]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.width()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..N).map(width).collect();
        let draw = |row: &[String; N], is_header| {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(right) {
                let padding = " ".repeat(width.saturating_sub(cell.width()));
                let (before, after) =
                    if right { (padding, "".into()) } else { ("".into(), padding) };
                line += &format!("{before}{cell}{after}  ");
            }
            style.line(&line, is_header)
        };
        let rows = self.rows.iter().map(|row| draw(row, false));
        [draw(&header, true)].into_iter().chain(rows).collect()
    }
}

/// Escapes control characters and characters that change the writing direction: processes choose their
/// names and arguments.
pub(crate) fn printable(text: &str) -> String {
    let is_bidi = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_safe = |c: char| !c.is_control() && !is_bidi(c);
    let safe = |c: char| if is_safe(c) { c.into() } else { c.escape_default().to_string() };
    text.chars().map(safe).collect()
}

/// A number of bytes in three digits and a unit.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "K", "M", "G", "T"] {
        if value < 1000.0 || unit == "T" {
            return match value < 10.0 && unit != "B" {
                true => format!("{value:.1}{unit}"),
                false => format!("{value:.0}{unit}"),
            };
        }
        value /= 1024.0;
    }
    unreachable!("the last unit returns")
}

/// CPU time, with hundredths of seconds below a minute.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.2}s", time.as_secs_f64()),
        _ => age(time),
    }
}

/// A duration in its two largest units.
pub(crate) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

pub(crate) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes and durations have at most three digits or two units.
    #[test]
    fn sizes_and_durations() {
        let sizes = [0, 999, 1000, 1 << 20, 1536 << 20, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0B", "999B", "1.0K", "1.0M", "1.5G", "16777216T"]);
        let ages = [0, 59, 60, 3599, 3600, 86400, 100_000].map(Duration::from_secs).map(age);
        assert_eq!(ages, ["0s", "59s", "1m00s", "59m59s", "1h00m", "1d00h", "1d03h"]);
        assert_eq!(seconds(Duration::from_millis(1234)), "1.23s");
    }

    /// A table is aligned and truncated, and its control characters are escaped.
    #[test]
    fn table_with_control_characters() {
        let mut table = Table::new(["NAME", "N", "COMMAND"]);
        table.add(["a".into(), "10".into(), "x\x1b[2J y".into()]);
        table.add(["longer".into(), "1".into(), "z".repeat(50)]);
        let style = TerminalStyle { width: Some(30), has_escapes: false, coloured: false };
        let text = table.draw(style, [false, true, false]);
        let expected = format!(
            "NAME     N  COMMAND\na       10  x\\u{{1b}}[2J y\nlonger   1  {}…\n",
            "z".repeat(17)
        );
        assert_eq!(text, expected);
    }
}
