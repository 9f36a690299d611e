//! Parsers for the values of options. Each error has a reason and what was expected; the option and the
//! value are added by [`usage`](super::usage).

use std::{
    error::Error,
    fmt,
    time::{Duration, Instant},
};

use onejob::{Mechanism, Requirement, Resources, Signal};

use crate::failure::message_and_hint;

/// Why a value is invalid, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ValueError {
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

impl ValueError {
    pub(super) fn new(reason: impl Into<String>) -> ValueError {
        ValueError { reason: reason.into(), hint: None }
    }

    pub(super) fn expected(reason: &str, hint: impl Into<String>) -> ValueError {
        ValueError { reason: reason.to_owned(), hint: Some(hint.into()) }
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for ValueError {}

impl From<onejob::Error> for ValueError {
    fn from(error: onejob::Error) -> ValueError {
        let (reason, hint) = message_and_hint(&error);
        ValueError { reason, hint }
    }
}

type Result<T> = std::result::Result<T, ValueError>;

pub(super) fn signal(text: &str) -> Result<Signal> {
    text.parse()
        .map_err(|error| ValueError { reason: "unknown signal".into(), ..ValueError::from(error) })
}

/// A mechanism that this operating system has.
pub(super) fn mechanism(text: &str) -> Result<Mechanism> {
    let expected = |reason: String| {
        let here: Vec<_> = Mechanism::of_this_system().map(|one| one.to_string()).collect();
        ValueError::expected(&reason, format!("one of: {}", here.join(", ")))
    };
    let mechanism = text.parse::<Mechanism>().map_err(|_| expected("unknown mechanism".into()))?;
    match Mechanism::of_this_system().any(|one| one == mechanism) {
        true => Ok(mechanism),
        false => Err(expected(format!("it exists on {} only", mechanism.system()))),
    }
}

pub(super) fn requirement(text: &str) -> Result<Requirement> {
    Ok(text.parse()?)
}

pub(super) fn resources(text: &str) -> Result<Resources> {
    Ok(text.parse()?)
}

/// A decimal number of seconds as in timeout(1), or numbers with units, of which each is smaller than the
/// one before: `1h30m`. Only the last number may have a fraction.
pub(super) fn duration(text: &str) -> Result<Duration> {
    let invalid =
        || ValueError::expected("invalid duration", "examples: 10, 1.5, 500ms, 10s, 2m, 1h30m, 1d");
    let too_long = || ValueError::new("duration too long (the clock cannot represent its end)");
    let (mut rest, mut last, mut nanos) = (text, u128::MAX, 0u128);
    while !rest.is_empty() || last == u128::MAX {
        let (whole, fraction, unit, after) = number(rest).ok_or_else(invalid)?;
        let size = match unit {
            "ms" => 1_000_000,
            "s" | "sec" => 1_000_000_000,
            "" if last == u128::MAX => 1_000_000_000,
            "m" | "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return Err(invalid()),
        };
        if size >= last || !(fraction.is_empty() || after.is_empty()) {
            return Err(invalid());
        }
        let part = scaled(whole, fraction, size).ok_or_else(too_long)?;
        nanos = nanos.checked_add(part).ok_or_else(too_long)?;
        (rest, last) = (after, size);
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| too_long())?;
    let duration = Duration::new(seconds, (nanos % 1_000_000_000) as u32);
    Instant::now().checked_add(duration).map(|_| duration).ok_or_else(too_long)
}

/// Splits off a decimal number, as its whole and its fractional digits, and the letters behind it.
fn number(text: &str) -> Option<(&str, &str, &str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = whole.len() + fraction.len() > 0 && !fraction.contains('.');
    is_number.then_some((whole, fraction, unit, rest))
}

/// The number in the smaller unit of which `unit` has so many; `None` if it is too large.
fn scaled(whole: &str, fraction: &str, unit: u128) -> Option<u128> {
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    u128::from(whole).checked_mul(unit)?.checked_add(fraction_of(fraction, unit))
}

/// The decimal fraction of a unit, rounded up so that a positive fraction never becomes zero.
fn fraction_of(fraction: &str, unit: u128) -> u128 {
    let kept = &fraction[..fraction.len().min(18)];
    let lost = fraction[kept.len()..].bytes().any(|digit| digit != b'0');
    let digits = kept.parse::<u128>().unwrap_or(0);
    let scale = 10u128.pow(kept.len() as u32);
    (digits * unit).div_ceil(scale) + u128::from(lost && (digits * unit).is_multiple_of(scale))
}

/// A number of bytes: `K` and `KiB` are 1024 of them, `KB` is 1000.
pub(super) fn size(text: &str) -> Result<u64> {
    let invalid = || {
        ValueError::expected(
            "invalid size",
            "bytes, or with K, M, G or T; examples: 512M, 0.5G, 2GiB (2G), 2GB (2000 MB)",
        )
    };
    let (whole, fraction, unit, rest) = number(text).ok_or_else(invalid)?;
    let unit = unit.to_ascii_uppercase();
    let (letter, suffix) = unit.split_at_checked(1).unwrap_or(("", ""));
    let power = match letter {
        "" | "B" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(invalid()),
    };
    let base: u128 = match suffix {
        "" | "IB" if power > 0 => 1024,
        "B" if power > 0 => 1000,
        "" => 1,
        _ => return Err(invalid()),
    };
    let is_zero = !text.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    if !rest.is_empty() || is_zero || (power == 0 && !fraction.is_empty()) {
        return Err(invalid());
    }
    // The kernel uses signed 64-bit numbers.
    let bytes =
        scaled(whole, fraction, base.pow(power)).and_then(|bytes| i64::try_from(bytes).ok());
    bytes
        .map(i64::cast_unsigned)
        .ok_or_else(|| ValueError::expected("size too large", "at most 8388607T"))
}

/// A size, or 0.
pub(super) fn size_or_zero(text: &str) -> Result<u64> {
    if text == "0" { Ok(0) } else { size(text) }
}

/// A cgroup weight.
pub(super) fn weight(text: &str) -> Result<u32> {
    let number = digits(text).and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| (1..=10_000).contains(number))
        .ok_or_else(|| ValueError::expected("invalid weight", "a whole number from 1 to 10000"))
}

/// A number of CPUs, or a percentage of one.
pub(super) fn cpus(text: &str) -> Result<f64> {
    let (digits, scale) = text.strip_suffix('%').map_or((text, 1.0), |digits| (digits, 100.0));
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = digits.parse::<f64>().ok().filter(|number| is_plain && *number > 0.0);
    number.map(|number| number / scale).filter(|number| number.is_finite()).ok_or_else(|| {
        ValueError::expected("invalid number of CPUs", "a positive number; examples: 0.5, 2, 50%")
    })
}

pub(super) fn count(text: &str) -> Result<u32> {
    let number = digits(text).and_then(|number| u32::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| {
        ValueError::expected("invalid number of processes", "a positive whole number; example: 200")
    })
}

/// A number that consists of digits only.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The time between two listings.
pub(super) fn interval(text: &str) -> Result<Duration> {
    match duration(text)? {
        Duration::ZERO => Err(ValueError::expected("invalid interval", "more than 0 seconds")),
        interval => Ok(interval),
    }
}

/// The number of a file descriptor.
pub(super) fn descriptor(text: &str) -> Result<i32> {
    digits(text)
        .and_then(|number| i32::try_from(number).ok())
        .ok_or_else(|| ValueError::expected("invalid descriptor", "a number; 0 is standard input"))
}

/// An exit status.
pub(super) fn exit_status(text: &str) -> Result<u8> {
    digits(text)
        .and_then(|number| u8::try_from(number).ok())
        .ok_or_else(|| ValueError::expected("invalid exit status", "a number from 0 to 255"))
}

/// Two signals, `FROM:TO`; a TO of 0 is none.
pub(super) fn rewrite(text: &str) -> Result<(Signal, Option<Signal>)> {
    let (from, to) = text.split_once(':').ok_or_else(|| {
        ValueError::expected("not FROM:TO", "two signals; examples: 15:3, TERM:QUIT")
    })?;
    let to = if to == "0" { None } else { Some(signal(to)?) };
    Ok((signal(from)?, to))
}

/// A name for a new job.
pub(super) fn job_name(text: &str) -> Result<String> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Err(ValueError::expected(
            "other subcommands would read a number as a pid",
            format!("put a letter in front: job-{text}"),
        )),
        false => Ok(text.to_owned()),
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
            ("1h30m", 5_400_000_000_000),
            ("10min", 600_000_000_000),
            ("1d12h30m15s500ms", 131_415_500_000_000),
            ("90sec", 90_000_000_000),
            ("1m1.5s", 61_500_000_000),
        ] {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
    }

    /// Sizes, CPUs, weights and counts are accepted or refused.
    #[test]
    fn limits() {
        for (text, expected) in [
            ("1", 1),
            ("7B", 7),
            ("512M", 512 << 20),
            ("512m", 512 << 20),
            ("2G", 2 << 30),
            ("1K", 1024),
            ("2GiB", 2 << 30),
            ("2GB", 2_000_000_000),
            ("2gb", 2_000_000_000),
            ("1kB", 1000),
            ("0.5G", 1 << 29),
            ("1.5K", 1536),
            ("0.0001K", 1),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in [
            "0", "00M", "-1", "2X", "", "G", "1.5", "+1", "8388608T", "1e3", "0.0G", "2GX", "2GBB",
            "1 G", "1G1M", "iB", "2iB", "1.2.3G",
        ] {
            assert!(size(text).is_err(), "{text:?}");
        }
        assert_eq!((cpus("0.5"), cpus("50%"), cpus("250%")), (Ok(0.5), Ok(0.5), Ok(2.5)));
        for text in ["0", "-1", "x", "", "inf", "nan", "1e3", "0.0", "+1", "%", "0%", "5%%", "-5%"]
        {
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

    /// A name of digits is refused: other subcommands would read it as a pid.
    #[test]
    fn names_of_digits() {
        for name in ["1", "1234", "00"] {
            assert!(job_name(name).is_err(), "{name}");
        }
        for name in ["a1", "1-2", "1.5", "job-1", ""] {
            assert_eq!(job_name(name).as_deref(), Ok(name));
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
        for text in [
            "", ".", "-1", "1.2.3", "x", "1x", "s", "1 s", "+1", "1e3", "inf", "nan", "5S", "1h30",
            "30m1h", "1m1m", "1.5h30m", "1h 30m", "1hm", "1s5",
        ] {
            assert!(duration(text).unwrap_err().reason.starts_with("invalid duration"), "{text:?}");
        }
        // The clock of Windows has a larger range than a timespec.
        let beyond_timespec = cfg!(unix).then_some("9999999999999999999s");
        for text in
            ["18446744073709551616", "18446744073709551615d"].into_iter().chain(beyond_timespec)
        {
            assert!(
                duration(text).unwrap_err().reason.starts_with("duration too long"),
                "{text:?}"
            );
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
        });
    }
}
