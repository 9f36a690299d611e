//! `onejob completions`: scripts that ask `onejob __complete` for the candidates, so that jobs that run now are
//! completed too.

mod candidates;

use std::ffi::OsString;

use crate::{
    args,
    exit::Exit,
    failure::{Failure, print},
};

pub(super) fn completions(args: &args::CompletionsArgs) -> Result<Exit, Failure> {
    print(match args.shell {
        args::Shell::Bash => include_str!("onejob.bash"),
        args::Shell::Zsh => include_str!("onejob.zsh"),
        args::Shell::Fish => include_str!("onejob.fish"),
        args::Shell::Powershell => include_str!("onejob.ps1"),
    })?;
    Ok(Exit::Success)
}

/// `onejob __complete WORD…`: the candidates for the last word, a line each, with a tab and a description; or one
/// line that begins with a colon, see [`candidates::Completion`].
pub(super) fn complete(words: &[OsString]) -> Result<Exit, Failure> {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    print(candidates::of(&words).to_string())?;
    Ok(Exit::Success)
}
