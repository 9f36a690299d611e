//! Tables for people: aligned columns, cut to the terminal.

use std::{env, time::Duration};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::os;

/// How much room there is, and whether it may be coloured.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    /// `None` where nothing is cut: not a terminal.
    width: Option<usize>,
    styled: bool,
}

impl Screen {
    pub(crate) fn here() -> Screen {
        let width = os::terminal_width();
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_none_or(|term| term == "dumb");
        Screen { width, styled: width.is_some() && !plain }
    }

    pub(crate) fn is_terminal(self) -> bool {
        self.width.is_some()
    }

    pub(crate) fn is_styled(self) -> bool {
        self.styled
    }

    fn cut(self, line: &str) -> String {
        match self.width {
            Some(width) if line.width() > width => {
                let mut room = width.saturating_sub(1);
                let fits = |c: &char| {
                    let wide = c.width().unwrap_or(0);
                    let fits = wide <= room;
                    room = room.saturating_sub(wide);
                    fits
                };
                line.chars().take_while(fits).collect::<String>() + "…"
            }
            _ => line.to_owned(),
        }
    }

    /// One line, cut; the header of a table stands out.
    fn line(self, text: &str, is_header: bool) -> String {
        let text = self.cut(text.trim_end());
        match is_header && self.styled {
            true => format!("\x1b[1m{text}\x1b[0m\n"),
            false => text + "\n",
        }
    }
}

/// Columns with a header; numbers stand at the right, the last one is as wide as it wants.
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

    /// `right` says which columns hold numbers.
    pub(crate) fn draw(&self, screen: Screen, right: [bool; N]) -> String {
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
            screen.line(&line, is_header)
        };
        let rows = self.rows.iter().map(|row| draw(row, false));
        [draw(&header, true)].into_iter().chain(rows).collect()
    }
}

/// Names and arguments are the processes' own to choose: nothing of them moves the cursor, or turns
/// what follows around.
pub(crate) fn printable(text: &str) -> String {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_safe = |c: char| !c.is_control() && !turns(c);
    let safe = |c: char| if is_safe(c) { c.into() } else { c.escape_default().to_string() };
    text.chars().map(safe).collect()
}

/// Bytes in three digits and a unit.
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

/// CPU time.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.2}s", time.as_secs_f64()),
        _ => age(time),
    }
}

/// Time that has passed, in its two largest units.
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

pub(crate) fn unknown_or(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        let sizes = [0, 999, 1000, 1 << 20, 1536 << 20, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0B", "999B", "1.0K", "1.0M", "1.5G", "16777216T"]);
        let ages = [0, 59, 60, 3599, 3600, 86400, 100_000].map(Duration::from_secs).map(age);
        assert_eq!(ages, ["0s", "59s", "1m00s", "59m59s", "1h00m", "1d00h", "1d03h"]);
        assert_eq!(seconds(Duration::from_millis(1234)), "1.23s");
    }

    #[test]
    fn a_table_is_aligned_and_cut_and_nothing_in_it_moves_the_cursor() {
        let mut table = Table::new(["NAME", "N", "COMMAND"]);
        table.add(["a".into(), "10".into(), "x\x1b[2J y".into()]);
        table.add(["longer".into(), "1".into(), "z".repeat(50)]);
        let screen = Screen { width: Some(30), styled: false };
        let text = table.draw(screen, [false, true, false]);
        let expected = format!(
            "NAME     N  COMMAND\na       10  x\\u{{1b}}[2J y\nlonger   1  {}…\n",
            "z".repeat(17)
        );
        assert_eq!(text, expected);
    }
}
