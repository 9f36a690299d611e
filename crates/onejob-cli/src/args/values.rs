//! Parsers for the values of options. Each error says what was expected; clap adds the option and the
//! value.

use std::{
    fmt,
    time::{Duration, Instant},
};

use onejob::Signal;

use crate::os;

const DURATION: &str = "invalid duration (examples: 10, 1.5, 500ms, 10s, 2m, 1h, 1d)";

/// A decimal number of seconds as in timeout(1), or of the unit that follows it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u128 = match unit {
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return Err(DURATION.to_owned()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return Err(DURATION.to_owned());
    }
    let whole = match whole {
        "" => Some(0),
        digits => digits.parse::<u64>().ok(),
    };
    let nanos = whole.and_then(|whole| u128::from(whole).checked_mul(unit));
    nanos
        .map(|nanos| nanos + fraction_of(fraction, unit))
        .and_then(|nanos| {
            let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
            let rest = (nanos % 1_000_000_000) as u32;
            Some(Duration::new(seconds, rest))
        })
        .filter(|duration| Instant::now().checked_add(*duration).is_some())
        .ok_or_else(|| "duration too long (the clock cannot represent its end)".to_owned())
}

/// A number of bytes, or of the binary unit that follows it.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const SIZE: &str = "invalid size (expected a positive whole number of bytes, or with K, M, G or T; example: 512M)";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(SIZE.to_owned()),
    };
    if number.is_empty() || number.bytes().all(|digit| digit == b'0') {
        return Err(SIZE.to_owned());
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    // The kernel uses signed 64-bit numbers.
    bytes
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| "size too large (at most 8388607T)".to_owned())
}

/// A size, or 0.
pub(super) fn size_or_zero(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { size(text) }
}

/// A cgroup weight.
pub(super) fn weight(text: &str) -> Result<u32, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| plain && (1..=10_000).contains(number));
    number.ok_or_else(|| "invalid weight (expected a whole number from 1 to 10000)".to_owned())
}

pub(super) fn cpus(text: &str) -> Result<f64, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse::<f64>().ok().filter(|number| plain && *number > 0.0);
    number.filter(|number| number.is_finite()).ok_or_else(|| {
        "invalid number of CPUs (expected a positive number; examples: 0.5, 2)".to_owned()
    })
}

pub(super) fn count(text: &str) -> Result<u32, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u32>().ok().filter(|number| plain && *number > 0);
    number
        .ok_or_else(|| "invalid number of processes (expected a positive whole number)".to_owned())
}

/// The decimal fraction of a unit, rounded up so that a positive fraction never becomes zero.
fn fraction_of(fraction: &str, unit: u128) -> u128 {
    let kept = &fraction[..fraction.len().min(18)];
    let lost = fraction[kept.len()..].bytes().any(|digit| digit != b'0');
    let digits = kept.parse::<u128>().unwrap_or(0);
    let scale = 10u128.pow(kept.len() as u32);
    (digits * unit).div_ceil(scale) + u128::from(lost && (digits * unit).is_multiple_of(scale))
}

/// The object of a subcommand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Job(String),
    Pid(u32),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Job(name) => f.write_str(name),
            Target::Pid(pid) => pid.fmt(f),
        }
    }
}

/// A number is a pid, anything else a job. A job name of digits needs a leading `=`.
pub(super) fn target(text: &str) -> Result<Target, String> {
    let digits = text.trim_start_matches('-');
    match text.strip_prefix('=') {
        Some(name) => Ok(Target::Job(name.to_owned())),
        None if digits.is_empty() || digits.bytes().any(|byte| !byte.is_ascii_digit()) => {
            Ok(Target::Job(text.to_owned()))
        }
        None => match text.parse::<u32>() {
            Ok(pid) if pid > 0 && i32::try_from(pid).is_ok() => Ok(Target::Pid(pid)),
            _ => Err("invalid pid (see ps)".into()),
        },
    }
}

/// A target that can be ended.
pub(super) fn kill_target(text: &str) -> Result<Target, String> {
    let is_number = text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
    if is_number { pid(text).map(Target::Pid) } else { target(text) }
}

/// The time between two listings.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("invalid interval (expected more than 0 seconds)".into()),
        interval => Ok(interval),
    }
}

/// The number of a file descriptor.
pub(super) fn descriptor(text: &str) -> Result<i32, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<i32>().ok().filter(|_| plain);
    number.ok_or_else(|| "invalid descriptor (expected a number; 0 is standard input)".to_owned())
}

/// An exit status.
pub(super) fn exit_status(text: &str) -> Result<u8, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u8>().ok().filter(|_| plain);
    number.ok_or_else(|| "invalid exit status (expected a number from 0 to 255)".to_owned())
}

/// Two signals, `FROM:TO`; a TO of 0 is none.
pub(super) fn rewrite(text: &str) -> Result<(Signal, Option<Signal>), String> {
    let (from, to) = text
        .split_once(':')
        .ok_or_else(|| "expected FROM:TO (two signals; examples: 15:3, TERM:QUIT)".to_owned())?;
    let signal = |text: &str| text.parse::<Signal>().map_err(|error| error.to_string());
    let to = if to == "0" { None } else { Some(signal(to)?) };
    Ok((signal(from)?, to))
}

/// The pid of a process that can be ended.
pub(super) fn pid(text: &str) -> Result<u32, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u32>();
    if let Some(why) = number.as_ref().ok().and_then(|pid| os::protected_process(*pid)) {
        return Err(why.into());
    }
    match number {
        Ok(0) => Err("invalid pid 0 (kill(2) would signal the caller's process group)".into()),
        Ok(pid) if pid == std::process::id() => Err("refusing to stop onejob itself".into()),
        Ok(pid) if is_number && i32::try_from(pid).is_ok() => Ok(pid),
        _ if is_number => Err("invalid pid: larger than any pid (see ps)".into()),
        _ => Err("invalid pid (a signal is given with -s, as in -s KILL)".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Durations are read as timeout(1) reads them, with ms in addition.
    #[test]
    fn valid_durations() {
        let nanos = |text: &str| duration(text).map(|duration| duration.as_nanos());
        for (text, expected) in [
            ("0", 0),
            ("10", 10_000_000_000),
            ("1.5", 1_500_000_000),
            (".5", 500_000_000),
            ("5.", 5_000_000_000),
            ("10s", 10_000_000_000),
            ("500ms", 500_000_000),
            ("0.5ms", 500_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1d", 86_400_000_000_000),
            ("0.0000000001", 1),
            ("0.00000000000000000000000001", 1),
        ] {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
    }

    /// Sizes, CPUs, weights and counts are accepted or refused.
    #[test]
    fn limits() {
        for (text, expected) in [("1", 1), ("512M", 512 << 20), ("2G", 2 << 30), ("1K", 1024)] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["0", "00M", "-1", "2X", "", "G", "1.5G", "+1", "8388608T", "1e3"] {
            assert!(size(text).is_err(), "{text:?}");
        }
        assert_eq!(cpus("0.5"), Ok(0.5));
        for text in ["0", "-1", "x", "", "inf", "nan", "1e3", "0.0", "+1"] {
            assert!(cpus(text).is_err(), "{text:?}");
        }
        assert_eq!(weight("10000"), Ok(10_000));
        for text in ["0", "-1", "10001", "", "x", "+1"] {
            assert!(weight(text).is_err(), "{text:?}");
        }
        assert_eq!(size_or_zero("0"), Ok(0));
        assert_eq!(size_or_zero("1K"), Ok(1024));
        assert!(size_or_zero("-1").is_err());
        assert_eq!(count("200"), Ok(200));
        for text in ["0", "-1", "1.5", "", "4294967296", "+1"] {
            assert!(count(text).is_err(), "{text:?}");
        }
    }

    /// Rewrites, exit statuses and descriptors are accepted or refused.
    #[test]
    fn rewrites_statuses_and_descriptors() {
        assert_eq!(rewrite("15:3"), Ok((Signal::TERM, Some(Signal::QUIT))));
        assert_eq!(rewrite("TERM:SIGQUIT"), Ok((Signal::TERM, Some(Signal::QUIT))));
        assert_eq!(rewrite("1:0"), Ok((Signal::HUP, None)));
        for text in ["", "15", "15:", ":3", "0:3", "15:3:1", "99:1", "15:99", "15:-1", "x:y"] {
            assert!(rewrite(text).is_err(), "{text:?}");
        }
        assert_eq!((exit_status("0"), exit_status("255")), (Ok(0), Ok(255)));
        for text in ["", "-1", "256", "+1", "x", "1.5"] {
            assert!(exit_status(text).is_err(), "{text:?}");
            assert!(text == "256" || descriptor(text).is_err(), "{text:?}");
        }
        assert_eq!(descriptor("7"), Ok(7));
        assert!(descriptor("2147483648").is_err());
    }

    /// Invalid durations are refused, and so are durations that the clock cannot count.
    #[test]
    fn invalid_durations() {
        for text in ["", ".", "-1", "1.2.3", "x", "1x", "s", "1 s", "+1", "1e3", "inf", "nan", "5S"]
        {
            assert!(duration(text).unwrap_err().starts_with("invalid duration"), "{text:?}");
        }
        // The clock of Windows has a larger range than a timespec.
        let beyond_timespec = cfg!(unix).then_some("9999999999999999999s");
        for text in
            ["18446744073709551616", "18446744073709551615d"].into_iter().chain(beyond_timespec)
        {
            assert!(duration(text).unwrap_err().starts_with("duration too long"), "{text:?}");
        }
    }

    /// No text makes a parser panic; a value that is accepted can be given again.
    #[test]
    #[cfg(target_os = "linux")]
    fn any_text_is_read_or_refused() {
        let texts = [
            "1.5",
            "500ms",
            "1h",
            "18446744073709551615d",
            "0.000000000000000000001",
            "512M",
            "8388607T",
            "10000",
            "=7",
            "-1",
            ".5",
            "99999999999999999999.9m",
            "\u{e9}s",
        ];
        let seeds: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        testkit::fuzz::torture(&seeds, |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            if let Ok(time) = duration(text) {
                let nanos = format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
                assert_eq!(duration(&nanos), Ok(time));
                let is_zero = !text.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
                assert_eq!(time.is_zero(), is_zero, "a positive duration never becomes zero");
            }
            if let Ok(bytes) = size_or_zero(text) {
                assert_eq!(size_or_zero(&bytes.to_string()), Ok(bytes));
            }
            if let Ok(number) = weight(text) {
                assert!((1..=10_000).contains(&number));
            }
            if let Ok(number) = cpus(text) {
                assert!(number > 0.0 && number.is_finite());
            }
            let _ = (count(text), interval(text));
            for target in [target(text), kill_target(text)].into_iter().flatten() {
                if let Target::Pid(pid) = target {
                    assert!(pid > 0 && i32::try_from(pid).is_ok());
                }
            }
        });
    }
}
