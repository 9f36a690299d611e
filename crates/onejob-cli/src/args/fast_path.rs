//! The short way to `run`: its commonest options, read without building the definitions, which takes
//! longer than all the rest of a start.
//!
//! It decides nothing: what it does not take for certain is left to the definitions, errors and help
//! included, and what it takes they would have read the same.

use std::{ffi::OsString, iter, str::FromStr};

use onejob::Signal;

use super::{GRACE, Ladder, LimitArgs, Run, values::duration};

/// `run` with these arguments; `None` if the definitions are to look.
pub(super) fn run(mut args: impl Iterator<Item = OsString>) -> Option<Run> {
    let (mut name, mut mechanism) = (None, None);
    let (mut timeout, mut grace, mut signal) = (None, None, None);
    let command: Vec<_> = loop {
        let word = args.next()?;
        match word.to_str() {
            Some("--") => break args.collect(),
            Some("-n" | "--name") => once(&mut name, value(&mut args)?)?,
            Some("-t" | "--timeout") => once(&mut timeout, duration(&value(&mut args)?).ok()?)?,
            Some("-k" | "--kill-after") => once(&mut grace, duration(&value(&mut args)?).ok()?)?,
            Some("-s" | "--signal") => once(&mut signal, parsed(&mut args)?)?,
            Some("--mechanism") => once(&mut mechanism, parsed(&mut args)?)?,
            _ if word.as_encoded_bytes().starts_with(b"-") => return None,
            _ => break iter::once(word).chain(args).collect(),
        }
    };
    let ladder = Ladder { grace: grace.unwrap_or(GRACE), signal: signal.unwrap_or(Signal::TERM) };
    (!command.is_empty()).then_some(Run {
        name,
        detach: false,
        timeout,
        ladder,
        limits: LimitArgs::default(),
        keep: false,
        wait_all: false,
        lifeline: None,
        mechanism,
        require: Vec::new(),
        stats: None,
        command,
    })
}

/// The value of an option. What looks like an option may be one.
fn value(args: &mut impl Iterator<Item = OsString>) -> Option<String> {
    args.next()?.into_string().ok().filter(|value| !value.starts_with('-'))
}

fn parsed<T: FromStr>(args: &mut impl Iterator<Item = OsString>) -> Option<T> {
    value(args)?.parse().ok()
}

/// An option is given once.
fn once<T>(option: &mut Option<T>, value: T) -> Option<()> {
    option.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::RunAlone;

    #[test]
    fn what_the_short_way_takes_the_definitions_read_the_same() {
        const WORDS: [&str; 24] = [
            "--",
            "-",
            "true",
            "-t",
            "--timeout",
            "5",
            "1m",
            "-5",
            "",
            "-k",
            "--kill-after",
            "-s",
            "--signal",
            "INT",
            "9",
            "-n",
            "--name",
            "--mechanism",
            "cgroup",
            "--mechanism=cgroup",
            "--keep",
            "-t5",
            "-h",
            "é",
        ];
        let mut taken = 0;
        let mut compare = |words: &[&str]| {
            let Some(short) = run(words.iter().map(OsString::from)) else { return };
            let line = ["onejob", "run"].iter().chain(words);
            match RunAlone::try_parse_from(line) {
                Ok(RunAlone::Run(long)) => {
                    assert_eq!(format!("{short:?}"), format!("{long:?}"), "{words:?}");
                }
                Err(error) => panic!("{words:?}: {error}"),
            }
            taken += 1;
        };
        for first in WORDS {
            compare(&[first]);
            for second in WORDS {
                compare(&[first, second]);
                for third in WORDS {
                    compare(&[first, second, third]);
                    compare(&["-t", "5", first, second, third]);
                    compare(&[first, second, third, "true"]);
                }
            }
        }
        assert!(taken > 1000, "only {taken} were taken");
    }

    #[test]
    fn the_commonest_lines_go_the_short_way() {
        for line in [
            "true",
            "ls -l",
            "-- ls -l",
            "-t 5m -- make -j8 test",
            "-n dev npm start",
            "-k 10s -s INT server",
            "--mechanism subreaper -- true",
        ] {
            let run = run(line.split(' ').map(OsString::from));
            assert!(run.is_some_and(|run| !run.command.is_empty()), "{line}");
        }
    }
}
