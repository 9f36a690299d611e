//! Why CMD was not found, and what was probably meant.

use std::{ffi::OsString, iter};

use crate::{exit::Exit, failure::Failure, os, shell_words};

/// The failure to start CMD. If CMD was not found, with the likely reason and a command line that works.
pub(super) fn explain(failure: Failure, command: &[OsString]) -> Failure {
    let Some((program, args)) = command.split_first() else { return failure };
    let name = program.to_string_lossy();
    // With a path, the system's message is exact.
    if failure.exit() != Exit::NotFound
        || (name.contains(std::path::is_separator) && !name.contains(' '))
    {
        return failure;
    }
    Failure::new(format!("failed to execute {program:?}: command not found"))
        .with_exit(Exit::NotFound)
        .with_kind("command_not_found")
        .with_hint(hint(&name, program, args))
}

fn hint(name: &str, program: &OsString, args: &[OsString]) -> String {
    let before = words_before(args.len() + 1);
    let line = |words: Vec<OsString>| shell_words::line(before.iter().cloned().chain(words));
    let all = || iter::once(program.clone()).chain(args.iter().cloned());
    if let (Some(last), "text" | "json") = (before.last().filter(|word| *word == "--stats"), name) {
        let option = format!("{}={name}", last.to_string_lossy()).into();
        let words = before[..before.len() - 1].iter().cloned();
        let words = words.chain([option]).chain(args.iter().cloned());
        return format!("the format is a part of the option: {}", shell_words::line(words));
    }
    if shell_words::is_assignment(name) {
        let words = iter::once("env".into()).chain(all()).collect();
        return format!("env sets variables: {}", line(words));
    }
    if shell_words::is_builtin(name) {
        let words: Vec<_> =
            all().map(|word| shell_words::quote(&word.to_string_lossy()).into_owned()).collect();
        let script = format!("{}; …", words.join(" "));
        let words = vec!["sh".into(), "-c".into(), script.into()];
        return format!("{name} is built into the shell: {}", line(words));
    }
    if name.contains(|c: char| "|&;<>()$`*?\"'~\n".contains(c)) {
        let words = ["sh".into(), "-c".into(), program.clone()].into_iter();
        let words = words.chain(args.iter().cloned()).collect();
        return format!("the words of a shell need a shell: {}", line(words));
    }
    if name.contains(' ') {
        let words = name.split_whitespace().map(OsString::from);
        let words = words.chain(args.iter().cloned()).collect();
        return format!("a command and its arguments are separate words: {}", line(words));
    }
    "no directory of PATH contains it".to_owned()
}

/// The words of the command line before the last `count`, without a `--`.
fn words_before(count: usize) -> Vec<OsString> {
    let words: Vec<_> = os::args().collect();
    let end = words.len().saturating_sub(count);
    let mut words: Vec<_> =
        iter::once("onejob".into()).chain(words[..end].iter().skip(1).cloned()).collect();
    words.pop_if(|word| word == "--");
    words
}
