//! `onejob man`: a page for the command and one for each subcommand, generated from the definitions of
//! the arguments.

use std::io;

use crate::{args, exit::Exit, failure::Failure, shell_words};

pub(super) fn man(args: &args::ManArgs) -> Result<Exit, Failure> {
    clap_mangen::generate_to(args::definitions(), &args.directory).map_err(|error| {
        let directory = args.directory.display();
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        let failure = Failure::os(format_args!("write the manual pages into {directory}"), error);
        match is_missing {
            true => failure.with_hint(format!(
                "make the directory first: {}",
                shell_words::line(["mkdir".as_ref(), "-p".as_ref(), args.directory.as_os_str()])
            )),
            false => failure,
        }
    })?;
    Ok(Exit::Success)
}
