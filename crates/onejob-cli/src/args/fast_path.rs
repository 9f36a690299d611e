//! A parser for the most common options of `run` that does not build clap's definitions, which saves 5 %
//! of the time of `onejob run -- true`.
//!
//! It accepts only command lines that clap would read the same; all others, errors and help included,
//! are left to clap.

use std::{ffi::OsString, iter};

use onejob::Signal;

use super::{
    DEFAULT_GRACE, LifelineOptions, RunArgs, StopArgs,
    limits::LimitOptions,
    values::{duration, job_name, mechanism, signal},
};

/// The arguments of `run`; `None` if clap has to parse them.
pub(super) fn run(mut args: impl Iterator<Item = OsString>) -> Option<RunArgs> {
    let (mut name, mut chosen) = (None, None);
    let (mut timeout, mut grace, mut first) = (None, None, None);
    let command: Vec<_> = loop {
        let word = args.next()?;
        match word.to_str() {
            Some("--") => break args.collect(),
            Some("-n" | "--name") => once(&mut name, job_name(&value(&mut args)?).ok()?)?,
            Some("-t" | "--timeout") => once(&mut timeout, duration(&value(&mut args)?).ok()?)?,
            Some("-k" | "--kill-after") => once(&mut grace, duration(&value(&mut args)?).ok()?)?,
            Some("-s" | "--signal") => once(&mut first, signal(&value(&mut args)?).ok()?)?,
            Some("--mechanism") => once(&mut chosen, mechanism(&value(&mut args)?).ok()?)?,
            _ if word.as_encoded_bytes().starts_with(b"-") => return None,
            _ => break iter::once(word).chain(args).collect(),
        }
    };
    let stop =
        StopArgs { grace: grace.unwrap_or(DEFAULT_GRACE), signal: first.unwrap_or(Signal::TERM) };
    (!command.is_empty()).then_some(RunArgs {
        name,
        detach: false,
        timeout,
        stop,
        limits: LimitOptions::default(),
        keep: false,
        wait_all: false,
        lifelines: LifelineOptions::default(),
        mechanism: chosen,
        require: Vec::new(),
        stats: None,
        command,
    })
}

/// The value of an option; `None` if it begins with a dash.
fn value(args: &mut impl Iterator<Item = OsString>) -> Option<String> {
    args.next()?.into_string().ok().filter(|value| !value.starts_with('-'))
}

/// Sets an option; `None` if it was set before.
fn once<T>(option: &mut Option<T>, value: T) -> Option<()> {
    option.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::RunOnly;

    /// Every accepted command line gives the same arguments as clap.
    #[test]
    fn agrees_with_clap() {
        const WORDS: [&str; 26] = [
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
            "job-object",
            "1h30m",
            "--keep",
            "-t5",
            "-h",
            "é",
        ];
        let mut accepted = 0;
        let mut compare = |words: &[&str]| {
            let Some(fast) = run(words.iter().map(OsString::from)) else { return };
            let line = ["onejob", "run"].iter().chain(words);
            match RunOnly::try_parse_from(line) {
                Ok(RunOnly::Run(clap)) => {
                    assert_eq!(format!("{fast:?}"), format!("{clap:?}"), "{words:?}");
                }
                Err(error) => panic!("{words:?}: {error}"),
            }
            accepted += 1;
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
        assert!(accepted > 1000, "only {accepted} were accepted");
    }

    /// The most common command lines are accepted.
    #[test]
    fn common_lines_are_accepted() {
        for line in [
            "true",
            "ls -l",
            "-- ls -l",
            "-t 5m -- make -j8 test",
            "-n dev npm start",
            "-k 10s -s INT server",
            if cfg!(windows) {
                "--mechanism job-object true"
            } else {
                "--mechanism subreaper -- true"
            },
        ] {
            let run = run(line.split(' ').map(OsString::from));
            assert!(run.is_some_and(|run| !run.command.is_empty()), "{line}");
        }
    }

    /// The same for random lines.
    #[test]
    #[cfg(target_os = "linux")]
    fn random_lines_agree_with_clap() {
        use std::os::unix::ffi::OsStringExt as _;
        let lines = [
            "-t\n5m\n--\nmake\n-j8",
            "-n\ndev\n-k\n1.5\n-s\nSIGINT\nserver",
            "--name\n-\n--timeout\n0\n--kill-after\n10ms\n--signal\nRTMIN+1\n--mechanism\nsubreaper\nx",
            "--\n-t\n--help",
        ];
        let seeds: Vec<_> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        testkit::fuzz::torture(&seeds, |bytes| {
            let words = bytes.split(|byte| *byte == b'\n');
            let words: Vec<_> = words.map(|word| OsString::from_vec(word.to_vec())).collect();
            let Some(fast) = run(words.iter().cloned()) else { return };
            let line = ["onejob", "run"].map(OsString::from).into_iter().chain(words);
            match RunOnly::try_parse_from(line) {
                Ok(RunOnly::Run(clap)) => assert_eq!(format!("{fast:?}"), format!("{clap:?}")),
                Err(error) => panic!("clap refuses it: {error}"),
            }
        });
    }
}
