//! Data goes to stdout, talk to stderr.

use std::{
    fmt,
    io::{self, Write as _},
};

use crate::{exit::Exit, os};

/// Says one line on stderr.
///
/// Nobody may be listening any more, and under `stty tostop` a background write would stop us:
/// neither is a reason to abandon a tree.
pub(crate) fn talk(message: impl fmt::Display) {
    let line = format!("onejob: {message}\n");
    os::quietly(|| {
        let _ = io::stderr().write_all(line.as_bytes());
    });
}

/// Writes one line of data to stderr, where CMD's own data cannot meet it.
pub(crate) fn line(text: &str) {
    let line = format!("{text}\n");
    os::quietly(|| {
        let _ = io::stderr().write_all(line.as_bytes());
    });
}

/// Writes the data a verb was asked for. A reader that has seen enough is a success, and no more is
/// to be written.
pub(crate) fn data(text: &str) -> Result<(), Exit> {
    raw_data(text.as_bytes())
}

/// The same for what need not be text.
pub(crate) fn raw_data(bytes: &[u8]) -> Result<(), Exit> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Exit::Success),
        Err(error) => {
            talk(format_args!("failed to write to standard output: {error}"));
            Err(Exit::Ours)
        }
        Ok(()) => Ok(()),
    }
}
