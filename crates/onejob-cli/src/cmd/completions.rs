//! `onejob completions` and `onejob man`: made from the definitions of the arguments.

use clap_complete::Shell;

use crate::{
    args,
    exit::{Exit, Failure},
    output::raw_data,
};

pub(crate) fn completions(args: &args::Completions) -> Exit {
    let shell = match args.shell {
        args::Shell::Bash => Shell::Bash,
        args::Shell::Zsh => Shell::Zsh,
        args::Shell::Fish => Shell::Fish,
        args::Shell::Powershell => Shell::PowerShell,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::definitions(), "onejob", &mut script);
    raw_data(&script).err().unwrap_or(Exit::Success)
}

/// One page for the command, and one for each verb.
pub(crate) fn man(args: &args::Man) -> Exit {
    match clap_mangen::generate_to(args::definitions(), &args.folder) {
        Ok(()) => Exit::Success,
        Err(error) => {
            let folder = args.folder.display();
            Failure::os(format_args!("write the manual pages into {folder}"), error).report()
        }
    }
}
