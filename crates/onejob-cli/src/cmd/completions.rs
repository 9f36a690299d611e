//! `onejob completions`: generated from the definitions of the arguments.

use clap_complete::Shell;

use crate::{
    args,
    exit::Exit,
    failure::{Failure, print},
};

pub(super) fn completions(args: &args::CompletionsArgs) -> Result<Exit, Failure> {
    let shell = match args.shell {
        args::Shell::Bash => Shell::Bash,
        args::Shell::Zsh => Shell::Zsh,
        args::Shell::Fish => Shell::Fish,
        args::Shell::Powershell => Shell::PowerShell,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::definitions(), "onejob", &mut script);
    print(script)?;
    Ok(Exit::Success)
}
