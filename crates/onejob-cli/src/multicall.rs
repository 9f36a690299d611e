//! The programs that a copy of onejob, or a link to it, replaces when it has their name.

use std::path::Path;

use crate::os;

const PROGRAMS: [&str; 4] = ["tini", "tini-static", "dumb-init", "timeout"];

/// The name of the replaced program by which this process was called.
pub(crate) fn called_as() -> Option<&'static str> {
    let path = os::args().next()?;
    let name = Path::new(&path).file_name()?;
    PROGRAMS.into_iter().find(|program| os::HAS_DROPINS && *program == name)
}
