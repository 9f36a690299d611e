//! `onejob man`: a page for the command and one for each subcommand, generated from the definitions of
//! the arguments.

use crate::{args, exit::Exit, failure::Failure};

pub(super) fn man(args: &args::ManArgs) -> Result<Exit, Failure> {
    clap_mangen::generate_to(args::definitions(), &args.directory).map_err(|error| {
        let directory = args.directory.display();
        Failure::os(format_args!("write the manual pages into {directory}"), error)
    })?;
    Ok(Exit::Success)
}
