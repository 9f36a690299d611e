//! What can stand in the place of the last word, from the definitions of the arguments.

use std::fmt;

use clap::{Arg, Command};
use onejob::{Mechanism, Requirement, Resources, Signal};

use crate::{args, note::Note};

pub(super) enum Completion {
    /// A line for each candidate, with a description behind a tab.
    Candidates(Vec<(String, String)>),
    /// `:command N`: word N of the command line, counted from `onejob`, is a command, which the shell completes
    /// with its arguments.
    Command(usize),
    /// `:directories`
    Directories,
}

impl fmt::Display for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Completion::Command(at) => writeln!(f, ":command {at}"),
            Completion::Directories => writeln!(f, ":directories"),
            Completion::Candidates(all) => all.iter().try_for_each(|(word, about)| {
                let about = about.split(['\t', '\n']).next().unwrap_or_default();
                if about.is_empty() {
                    writeln!(f, "{word}")
                } else {
                    writeln!(f, "{word}\t{about}")
                }
            }),
        }
    }
}

/// The completion of the last of the words that follow `onejob`.
pub(super) fn of(words: &[&str]) -> Completion {
    let mut root = args::definitions();
    root.build();
    let Some((current, before)) = words.split_last() else { return Completion::Candidates(vec![]) };
    let found = Position::of(&root, before);
    let completion = match &found {
        Position::Command(at) => return Completion::Command(*at),
        Position::Value(arg) => values_of(arg, ""),
        Position::Free { command, next, options_ended } => {
            let option = current.split_once('=').filter(|_| current.starts_with("--"));
            match option {
                Some((name, _)) => {
                    let arg = command.get_arguments().find(|arg| is_named(arg, name));
                    arg.map_or(Completion::Candidates(vec![]), |arg| {
                        values_of(arg, &format!("{name}="))
                    })
                }
                None if current.starts_with('-') && !options_ended => {
                    Completion::Candidates(options_of(command))
                }
                None => match next {
                    Some(arg) if is_command(arg) => return Completion::Command(words.len()),
                    Some(arg) => values_of(arg, ""),
                    None => Completion::Candidates(subcommands_of(command)),
                },
            }
        }
    };
    match completion {
        Completion::Candidates(mut all) => {
            all.retain(|(word, _)| word.starts_with(current));
            Completion::Candidates(all)
        }
        other => other,
    }
}

/// Where the last word stands.
enum Position<'a> {
    /// CMD or one of its arguments: CMD is this word of the command line.
    Command(usize),
    /// The value of an option.
    Value(&'a Arg),
    /// An option, a subcommand, or the next positional argument.
    Free { command: &'a Command, next: Option<&'a Arg>, options_ended: bool },
}

impl<'a> Position<'a> {
    fn of(root: &'a Command, before: &[&str]) -> Position<'a> {
        let (mut command, mut count, mut options_ended) = (root, 0, false);
        let mut words = before.iter().enumerate();
        while let Some((at, word)) = words.next() {
            if *word == "--" && !options_ended {
                options_ended = true;
            } else if word.starts_with('-') && word.len() > 1 && !options_ended {
                let arg = command.get_arguments().find(|arg| is_named(arg, word));
                let takes_next = arg.filter(|arg| takes_value(arg) && !arg.is_require_equals_set());
                if let Some((arg, None)) = takes_next.map(|arg| (arg, words.next())) {
                    return Position::Value(arg);
                }
            } else if let Some(subcommand) = command.find_subcommand(word).filter(|_| count == 0) {
                command = subcommand;
            } else {
                if positional(command, count).is_some_and(is_command) {
                    return Position::Command(at + 1);
                }
                count += 1;
            }
        }
        Position::Free { command, next: positional(command, count), options_ended }
    }
}

/// The positional argument of this number; the last one may take several words.
fn positional(command: &Command, count: usize) -> Option<&Arg> {
    let all: Vec<_> = command.get_positionals().collect();
    let is_repeated = |arg: &&Arg| {
        arg.get_num_args().is_some_and(|range| range.max_values() > 1)
            || matches!(arg.get_action(), clap::ArgAction::Append)
    };
    all.get(count).copied().or_else(|| all.last().copied().filter(is_repeated))
}

fn is_named(arg: &Arg, word: &str) -> bool {
    match word.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => arg.get_short().is_some_and(|short| word == format!("-{short}")),
    }
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn is_command(arg: &Arg) -> bool {
    arg.is_trailing_var_arg_set()
}

fn options_of(command: &Command) -> Vec<(String, String)> {
    let options = command.get_arguments().filter(|arg| !arg.is_positional());
    let with_help = |arg: &Arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let equals = if arg.is_require_equals_set() { "=" } else { "" };
        let long = arg.get_long().map(|long| format!("--{long}{equals}"));
        let short = arg.get_short().map(|short| format!("-{short}"));
        long.into_iter().chain(short).map(move |name| (name, help.clone())).collect::<Vec<_>>()
    };
    options.flat_map(with_help).collect()
}

fn subcommands_of(command: &Command) -> Vec<(String, String)> {
    let about = |one: &Command| one.get_about().map(ToString::to_string).unwrap_or_default();
    command.get_subcommands().map(|one| (one.get_name().to_owned(), about(one))).collect()
}

/// The values of an argument, each behind `prefix`.
fn values_of(arg: &Arg, prefix: &str) -> Completion {
    let names = arg.get_value_names().unwrap_or_default();
    let plain = |words: Vec<String>| words.into_iter().map(|word| (word, String::new())).collect();
    let values: Vec<(String, String)> = match names.first().map_or("", |name| name.as_str()) {
        "JOB" | "JOB|PID" => jobs(),
        "SIG" => plain(Signal::all().map(|signal| signal.to_string().replace("SIG", "")).collect()),
        "LEVEL" => plain(Requirement::all().map(|one| one.to_string()).collect()),
        "M" => plain(Mechanism::of_this_system().map(|one| one.to_string()).collect()),
        "WHAT" => plain(Resources::each().map(|one| one.to_string()).collect()),
        "DIR" => return Completion::Directories,
        _ => {
            let values = arg.get_possible_values();
            plain(values.iter().map(|value| value.get_name().to_owned()).collect())
        }
    };
    let behind = |(word, about): (String, String)| (format!("{prefix}{word}"), about);
    Completion::Candidates(values.into_iter().map(behind).collect())
}

/// The running jobs, with their commands.
fn jobs() -> Vec<(String, String)> {
    let described = |entry: onejob::JobEntry| {
        let note = entry.open().ok().and_then(|job| Note::read(&job));
        let command = note.map(|note| crate::render::table::printable(&note.argv.join(" ")));
        (entry.name.unwrap_or(entry.id), command.unwrap_or_default())
    };
    onejob::jobs().map(|jobs| jobs.map(described).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(line: &str) -> String {
        let words: Vec<_> = line.split(' ').collect();
        of(&words).to_string()
    }

    fn words(line: &str) -> Vec<String> {
        let lines = complete(line);
        lines.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    /// Subcommands, options, values and the place of CMD.
    #[test]
    fn each_place() {
        assert_eq!(words("fr"), ["freeze"]);
        assert!(words("").contains(&"run".to_owned()) && words("").len() > 10);
        assert_eq!(words("run --mem"), ["--memory"]);
        assert_eq!(words("run --st"), ["--stats="]);
        assert_eq!(words("run --stats=j"), ["--stats=json"]);
        assert_eq!(words("run -t 5 --stats=t"), ["--stats=text"]);
        assert_eq!(words("kill -s TE"), ["TERM"]);
        assert_eq!(words("run --signal USR"), ["USR1", "USR2"]);
        assert_eq!(
            words("run --require kill="),
            ["kill=best-effort", "kill=converging", "kill=atomic"]
        );
        assert_eq!(words("run --require=kill=a"), ["--require=kill=atomic"]);
        assert_eq!(words("limit --lift io"), ["io-weight"]);
        assert_eq!(words("completions f"), ["fish"]);
        assert_eq!(words("--error-format j"), ["json"]);
        assert_eq!(words("--error-format json wa"), ["wait"]);
        let mechanism = Mechanism::of_this_system().next().map(|one| one.to_string());
        assert_eq!(words("run --mechanism ").into_iter().next(), mechanism);
        assert!(complete("fr").contains("\tFreeze jobs"));
        for (line, expected) in [
            ("run ", ":command 2\n"),
            ("run ma", ":command 2\n"),
            ("run -t 5 -- make -", ":command 5\n"),
            ("run -- ", ":command 3\n"),
            ("run make --", ":command 2\n"),
            ("run --stats=json git che", ":command 3\n"),
            ("init -g server --", ":command 3\n"),
            ("exec dev ", ":command 3\n"),
            ("exec dev git --v", ":command 3\n"),
            ("man ", ":directories\n"),
        ] {
            assert_eq!(complete(line), expected, "{line}");
        }
        for line in ["run -t ", "run --zzz", "run --memory=", "stats a b", "ls x"] {
            assert!(!complete(line).contains("run"), "{line}: {}", complete(line));
        }
    }
}
