//! The object of a subcommand: a job or a process.

use std::fmt;

use super::values::ValueError;
use crate::os;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// `=NAME`: a job by its name.
    Name(String),
    /// A job by its name or the beginning of its id.
    Word(String),
    /// `pid:N`: a process.
    Pid(u32),
    /// A number: a process, unless it is a job's name.
    Number(u32),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Name(name) | Target::Word(name) => f.write_str(name),
            Target::Pid(pid) | Target::Number(pid) => pid.fmt(f),
        }
    }
}

pub(super) fn target(text: &str) -> Result<Target, ValueError> {
    if let Some(name) = text.strip_prefix('=') {
        return Ok(Target::Name(name.to_owned()));
    }
    if let Some(number) = text.strip_prefix("pid:") {
        return pid(number).map(Target::Pid);
    }
    let digits = text.trim_start_matches('-');
    match !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => pid(text).map(Target::Number),
        false => Ok(Target::Word(text.to_owned())),
    }
}

/// A target that can be ended.
pub(super) fn kill_target(text: &str) -> Result<Target, ValueError> {
    let target = target(text)?;
    if let Target::Pid(pid) | Target::Number(pid) = target {
        if let Some(why) = os::protected_process(pid) {
            return Err(ValueError::expected(why, HINT));
        }
        if pid == std::process::id() {
            return Err(ValueError::expected("refusing to stop onejob itself", HINT));
        }
    }
    Ok(target)
}

const HINT: &str = "the pid of another process, or a job (see `onejob ls`)";

fn pid(text: &str) -> Result<u32, ValueError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(0) => Err(ValueError::expected(
            "invalid pid 0 (kill(2) would signal the caller's process group)",
            HINT,
        )),
        Ok(pid) if is_number && i32::try_from(pid).is_ok() => Ok(pid),
        _ if is_number => Err(ValueError::expected("invalid pid: larger than any pid", HINT)),
        _ => Err(ValueError::expected("invalid pid", HINT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number is a pid, `=` marks a name, `pid:` a pid, and everything else is a word.
    #[test]
    fn kinds_of_targets() {
        for (text, expected) in [
            ("dev", Target::Word("dev".into())),
            ("=dev", Target::Name("dev".into())),
            ("=1234", Target::Name("1234".into())),
            ("1234", Target::Number(1234)),
            ("pid:1234", Target::Pid(1234)),
            ("0123456789abcdef-1", Target::Word("0123456789abcdef-1".into())),
            ("1a", Target::Word("1a".into())),
            ("", Target::Word(String::new())),
        ] {
            assert_eq!(target(text), Ok(expected), "{text}");
        }
        for text in ["0", "-5", "pid:", "pid:x", "pid:0", "pid:-1", "4294967295", "99999999999999"]
        {
            assert!(target(text).is_err(), "{text}");
        }
        assert!(kill_target(&std::process::id().to_string()).is_err());
        assert!(kill_target(&format!("pid:{}", std::process::id())).is_err());
    }

    /// No text makes the parser panic, and an accepted pid is the pid of a process.
    #[test]
    #[cfg(target_os = "linux")]
    fn any_text_is_read_or_refused() {
        let texts = ["=7", "pid:7", "1234", "-1", "pid:99999999999999999999", "dev", "\u{e9}"];
        let seeds: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        testkit::fuzz::torture(&seeds, |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            for target in [target(text), kill_target(text)].into_iter().flatten() {
                if let Target::Pid(pid) | Target::Number(pid) = target {
                    assert!(pid > 0 && i32::try_from(pid).is_ok());
                }
            }
        });
    }
}
