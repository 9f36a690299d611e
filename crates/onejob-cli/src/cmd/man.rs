//! `onejob man`: a page for the command and one for each subcommand, from the definitions of the arguments and
//! from `args::pages`.

use std::{fs, io, path::Path};

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use crate::{
    args::{
        self,
        pages::{self, Page},
    },
    exit::Exit,
    failure::Failure,
    shell_words,
};

pub(super) fn man(args: &args::ManArgs) -> Result<Exit, Failure> {
    write_pages(&args.directory).map_err(|error| {
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

fn write_pages(directory: &Path) -> io::Result<()> {
    let mut command = args::definitions();
    command.build();
    let subcommands: Vec<_> = command.get_subcommands().cloned().collect();
    let others: Vec<_> =
        subcommands.iter().map(|one| format!("onejob-{}(1)", one.get_name())).collect();
    fs::write(directory.join("onejob.1"), page(command, None, others)?)?;
    for subcommand in subcommands {
        let name = subcommand.get_name().to_owned();
        let about = pages::of(&name);
        let see_also = about.map(|page| page.see_also).unwrap_or_default();
        let others = ["onejob(1)".to_owned()].into_iter();
        let others = others.chain(see_also.iter().map(|&name| name.to_owned())).collect();
        fs::write(directory.join(format!("onejob-{name}.1")), page(subcommand, about, others)?)?;
    }
    Ok(())
}

/// A page in the order of man-pages(7).
fn page(command: Command, about: Option<&Page>, see_also: Vec<String>) -> io::Result<Vec<u8>> {
    let has_subcommands = command.has_subcommands();
    let man = Man::new(command).manual("onejob manual");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_subcommands {
        man.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    if let Some(page) = about {
        list(&mut rest, "EXIT STATUS", page.statuses.iter().copied());
    }
    list(&mut rest, "ENVIRONMENT", pages::ENVIRONMENT.iter().copied());
    list(&mut rest, "FILES", pages::FILES.iter().copied());
    if let Some(page) = about {
        rest.control("SH", ["EXAMPLES"]);
        for (purpose, line) in page.examples {
            rest.control("PP", []).text([roman(format!("{purpose}:"))]);
            rest.control("PP", []).control("RS", ["4"]).control("nf", []);
            rest.text([bold(*line)]).control("fi", []).control("RE", []);
        }
    }
    rest.control("SH", ["SEE ALSO"]).text([roman(see_also.join(", "))]);
    rest.to_writer(&mut text)?;
    Ok(text)
}

/// A section with terms and their meanings.
fn list<'a>(roff: &mut Roff, title: &str, entries: impl Iterator<Item = (&'a str, &'a str)>) {
    roff.control("SH", [title]);
    for (term, meaning) in entries {
        roff.control("TP", []).text([bold(term)]).text([roman(meaning)]);
    }
}
