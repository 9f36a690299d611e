//! The mistake in a command line, and the likely intention.

use std::{env, error::Error as _, ffi::OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use onejob::Signal;

use super::values::ValueError;
use crate::{failure::Failure, shell_words};

const NO_COMMAND: &str = "`onejob run CMD` runs a command, `onejob --help` lists the subcommands";

/// The message for an invalid command line, whose first word is the program.
pub(super) fn failure(error: &clap::Error, words: &[OsString]) -> Failure {
    let line = CommandLine { error, words };
    let (message, hint) = match error.kind() {
        ErrorKind::InvalidSubcommand => line.unknown_subcommand(),
        ErrorKind::UnknownArgument => line.unknown_argument(),
        ErrorKind::InvalidValue => line.invalid_value(),
        ErrorKind::ValueValidation => line.refused_value(),
        ErrorKind::MissingRequiredArgument => line.missing_argument(),
        ErrorKind::ArgumentConflict => line.conflict(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            ("no command given".to_owned(), NO_COMMAND.to_owned())
        }
        _ => (first_line(error), line.see_help()),
    };
    Failure::new(message).with_hint(hint).with_kind("usage")
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

struct CommandLine<'a> {
    error: &'a clap::Error,
    words: &'a [OsString],
}

/// A message and its hint.
type Explained = (String, String);

impl CommandLine<'_> {
    fn unknown_subcommand(&self) -> Explained {
        let name = self.text(ContextKind::InvalidSubcommand);
        let message = format!("unrecognized subcommand '{name}'");
        let rest = || self.words.iter().skip(1).cloned();
        let hint = if self.words.len() == 3 && self.word(2) == "--help" {
            let nearest = self.texts(ContextKind::SuggestedSubcommand).pop();
            nearest.map(|nearest| format!("did you mean `onejob help {nearest}`?"))
        } else if shell_words::is_assignment(&name) {
            let words = ["onejob", "run", "env"].map(OsString::from).into_iter().chain(rest());
            Some(format!("did you mean {}?", shell_words::line(words)))
        } else if is_program(&name) {
            let words = ["onejob", "run"].map(OsString::from).into_iter().chain(rest());
            Some(format!("did you mean {}?", shell_words::line(words)))
        } else {
            let nearest = self.texts(ContextKind::SuggestedSubcommand).pop();
            nearest.map(|nearest| format!("did you mean {}?", self.line_with(&name, &[&nearest])))
        };
        (message, hint.unwrap_or_else(|| NO_COMMAND.to_owned()))
    }

    fn unknown_argument(&self) -> Explained {
        let given = self.text(ContextKind::InvalidArg);
        if !given.starts_with('-') {
            let is_interval = given.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let has_watch = self.words.iter().any(|word| word == "-w" || word == "--watch");
            let hint = match is_interval && has_watch {
                true => format!("the interval is a part of the option: --watch={given}"),
                false => self.see_help(),
            };
            return (format!("unexpected argument '{given}'"), hint);
        }
        let option = self.whole_option(&given);
        let hint = match self.word(1).as_str() {
            "kill" => self.signal_option(&option),
            "exec" if ["-i", "-t", "-it", "-ti"].contains(&option.as_str()) => Some(format!(
                "exec uses this terminal in any case: {}",
                self.line_with(&option, &[])
            )),
            _ if given.starts_with("--error-format") => Some(format!(
                "it goes in front of the subcommand: `onejob --error-format json {}`",
                self.word(1)
            )),
            _ => None,
        };
        let nearest = || {
            let nearest = self.texts(ContextKind::SuggestedArg).pop()?;
            Some(format!("did you mean {}?", option_name(&nearest)))
        };
        let option = option.split('=').next().unwrap_or_default();
        let misplaced = || {
            let hint = "options of a subcommand follow its name; see `onejob --help`";
            self.word(1).starts_with('-').then(|| hint.to_owned())
        };
        let hint = hint.or_else(nearest).or_else(misplaced).unwrap_or_else(|| self.see_help());
        (format!("unknown option '{option}'"), hint)
    }

    /// The hint for a signal that is given as an option, as to kill(1).
    fn signal_option(&self, option: &str) -> Option<String> {
        let signal: Signal = option.strip_prefix('-')?.parse().ok()?;
        Some(match signal {
            Signal::KILL => format!("to kill at once: {}", self.line_with(option, &["--now"])),
            _ => {
                let name = signal.to_string();
                let name = name.strip_prefix("SIG").unwrap_or(&name);
                format!("a signal is given with -s: {}", self.line_with(option, &["-s", name]))
            }
        })
    }

    fn invalid_value(&self) -> Explained {
        let (arg, value) = (self.argument(), self.text(ContextKind::InvalidValue));
        if value.is_empty() {
            let given = self.text(ContextKind::InvalidArg);
            let placeholder = given.split_once('<').map_or("", |(_, rest)| rest);
            let placeholder = placeholder.trim_end_matches(['.', '>', ']']);
            return (format!("{arg} needs a value: {placeholder}"), self.see_help());
        }
        let known = self.texts(ContextKind::ValidValue).join(", ");
        (format!("invalid value '{value}' for {arg}"), format!("one of: {known}"))
    }

    fn refused_value(&self) -> Explained {
        let (arg, value) = (self.argument(), self.text(ContextKind::InvalidValue));
        let cause = self.error.source();
        let known = cause.and_then(|cause| cause.downcast_ref::<ValueError>());
        let (reason, hint) = match (known, cause) {
            (Some(error), _) => (error.reason.clone(), error.hint.clone()),
            (None, Some(error)) => (error.to_string(), None),
            (None, None) => ("invalid".to_owned(), None),
        };
        let message = format!("invalid value '{value}' for {arg}: {reason}");
        (message, hint.unwrap_or_else(|| self.see_help()))
    }

    fn missing_argument(&self) -> Explained {
        let missing = self.texts(ContextKind::InvalidArg);
        let is_missing = |name: &str| missing.iter().any(|arg| arg.contains(name));
        let list = "`onejob ls` lists the jobs".to_owned();
        if is_missing("<JOB|PID>") {
            return ("no job or process given".to_owned(), list);
        }
        if is_missing("<JOB>") {
            return ("no job given".to_owned(), list);
        }
        if is_missing("<CMD>") {
            let example = match self.word(1).as_str() {
                "init" => "onejob init /usr/sbin/server",
                "exec" => "onejob exec JOB ps",
                _ => "onejob run make test",
            };
            return ("no command given".to_owned(), format!("example: `{example}`"));
        }
        let names: Vec<_> = missing.iter().map(|arg| option_name(arg)).collect();
        (format!("missing: {}", names.join(", ")), self.see_help())
    }

    fn conflict(&self) -> Explained {
        let prior = self.texts(ContextKind::PriorArg);
        let prior: Vec<_> = prior.iter().map(|arg| option_name(arg)).collect();
        let arg = self.argument();
        let message = match prior.is_empty() || prior.contains(&arg.as_str()) {
            true => format!("{arg} is given more than once"),
            false => format!("{arg} cannot be used with {}", prior.join(", ")),
        };
        (message, self.see_help())
    }

    fn see_help(&self) -> String {
        let name = self.word(1);
        match name.is_empty() || name.starts_with('-') {
            true => "see `onejob --help`".to_owned(),
            false => format!("see `onejob {name} --help`"),
        }
    }

    /// The argument that is wrong, as it is called on the command line.
    fn argument(&self) -> String {
        option_name(&self.text(ContextKind::InvalidArg)).to_owned()
    }

    /// The command line with this word replaced.
    fn line_with(&self, old: &str, new: &[&str]) -> String {
        let mut words = vec![OsString::from("onejob")];
        let mut is_replaced = false;
        for word in &self.words[1..] {
            if word == old && !is_replaced {
                is_replaced = true;
                words.extend(new.iter().map(OsString::from));
            } else {
                words.push(word.clone());
            }
        }
        shell_words::line(words)
    }

    /// clap names only the first unknown letter of `-KILL`: the word that it is in.
    fn whole_option(&self, given: &str) -> String {
        let Some(letter) = given.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else {
            return given.to_owned();
        };
        let words = self.words.iter().skip(1).filter_map(|word| word.to_str());
        let mut words = words.take_while(|word| *word != "--").filter(|word| {
            word.strip_prefix('-')
                .is_some_and(|rest| !rest.starts_with('-') && rest.contains(letter))
        });
        // With known letters in front, only this one is wrong.
        let is_first = |word: &&str| word[1..].starts_with(letter);
        words.next().filter(is_first).unwrap_or(given).to_owned()
    }

    fn word(&self, at: usize) -> String {
        self.words.get(at).map(|word| word.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn text(&self, kind: ContextKind) -> String {
        self.texts(kind).into_iter().next().unwrap_or_default()
    }

    fn texts(&self, kind: ContextKind) -> Vec<String> {
        match self.error.get(kind) {
            Some(ContextValue::String(text)) => vec![text.clone()],
            Some(ContextValue::Strings(texts)) => texts.clone(),
            _ => Vec::new(),
        }
    }
}

/// `--stats` of `--stats[=<FORM>]`, `SHELL` of `<SHELL>`.
fn option_name(arg: &str) -> &str {
    let name = arg.split([' ', '[', '=']).next().unwrap_or_default();
    name.trim_start_matches('<').trim_end_matches(['.', '>'])
}

/// Whether a shell would find a command of this name.
fn is_program(name: &str) -> bool {
    if name.contains(std::path::is_separator) || shell_words::is_builtin(name) {
        return true;
    }
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    let path = env::var_os("PATH").unwrap_or_default();
    !name.is_empty() && env::split_paths(&path).any(|dir| dir.join(&file).is_file())
}
