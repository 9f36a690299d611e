//! The state of a job, as listings show it.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use onejob::Process;
use serde::Serialize;

use crate::{note::Note, os};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Running,
    /// No member can run.
    Frozen,
    /// The whole tree is being stopped.
    Stopping,
    /// CMD and the processes that it left behind have ended, and the job is being closed.
    Ended,
}

impl State {
    /// The state of a job with these members. `is_frozen`: whether none of them can run, if that is known.
    pub(super) fn of(note: Option<&Note>, members: &[Process], is_frozen: Option<bool>) -> State {
        let has_ended =
            |note: &Note| note.status.is_some() || (note.pid.is_some() && members.is_empty());
        if note.is_some_and(has_ended) {
            State::Ended
        } else if !members.is_empty()
            && is_frozen.unwrap_or_else(|| members.iter().all(os::is_frozen))
        {
            State::Frozen
        } else if note.is_some_and(|note| is_stopping(note, members)) {
            State::Stopping
        } else {
            State::Running
        }
    }
}

/// Whether the time limit has expired, or CMD has exited and its leftovers are to end.
fn is_stopping(note: &Note, members: &[Process]) -> bool {
    let stops_at = note.stops_at.map(|time| SystemTime::UNIX_EPOCH + Duration::from_millis(time));
    let has_exited = note.pid.is_some_and(|pid| !members.iter().any(|one| one.pid() == pid));
    stops_at.is_some_and(|time| time <= SystemTime::now()) || (note.ends_with_command && has_exited)
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Running => "running",
            State::Frozen => "frozen",
            State::Stopping => "stopping",
            State::Ended => "ended",
        })
    }
}

/// A time as in RFC 3339, in UTC, with milliseconds.
pub(super) fn rfc_3339(time: SystemTime) -> Option<String> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date_of(i64::try_from(days).ok()?);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = since.subsec_millis();
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"))
}

/// The date of the Gregorian calendar so many days after 1970-01-01: Howard Hinnant's `civil_from_days`.
fn date_of(days: i64) -> (i64, i64, i64) {
    // From 0000-03-01: the leap day is the last day of a year.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dates before and after leap days and at the turn of years.
    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(rfc_3339(time).as_deref(), Some(expected));
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_042);
        assert_eq!(rfc_3339(time).as_deref(), Some("2023-11-14T22:13:20.042Z"));
    }
}
