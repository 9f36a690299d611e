//! Command lines as a shell reads them, for hints that can be copied.

use std::{borrow::Cow, ffi::OsStr};

/// A command line of these words, in backquotes.
pub(crate) fn line(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let words: Vec<_> = words
        .into_iter()
        .map(|word| quote(&word.as_ref().to_string_lossy()).into_owned())
        .collect();
    format!("`{}`", words.join(" "))
}

/// The word, in quotes if a shell would change it.
pub(crate) fn quote(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || "-_=./:,+@%^".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', "'\\''")).into(),
    }
}

/// Whether this is a command that only the shell itself has, or a word of its grammar.
pub(crate) fn is_builtin(word: &str) -> bool {
    const BUILTINS: [&str; 29] = [
        ".", "[[", "alias", "bg", "case", "cd", "declare", "dirs", "eval", "exec", "exit",
        "export", "fg", "for", "history", "if", "jobs", "local", "popd", "pushd", "read", "set",
        "shopt", "source", "trap", "ulimit", "umask", "unset", "while",
    ];
    BUILTINS.contains(&word)
}

/// Whether this is `NAME=VALUE`, which sets a variable in front of a command.
pub(crate) fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(is_name) && !name.starts_with(|c: char| c.is_ascii_digit())
}
