//! Jobs of another version of onejob: their records and guards are left alone. The error names the older
//! version.

use std::{fmt, io};

use crate::{Error, sys::linux::nostd::syscall::Errno};

const HINT: &str =
    "use the version of onejob that made the job, or make the job again with this one";

/// The cause of an error: the guards of a job are of another version.
#[derive(Debug)]
struct OtherVersion {
    is_older: bool,
}

impl fmt::Display for OtherVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [theirs, ours] =
            if self.is_older { ["an older", "newer"] } else { ["a newer", "older"] };
        write!(f, "the guard of the job is of {theirs} version of onejob, this program is {ours}")
    }
}

impl std::error::Error for OtherVersion {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> io::Error {
        let is_older = match errno {
            Errno::FROM_OLDER => true,
            Errno::FROM_NEWER => false,
            errno => return io::Error::from_raw_os_error(errno.0),
        };
        io::Error::new(io::ErrorKind::Unsupported, OtherVersion { is_older })
    }
}

/// "failed to {what}: {cause}" for a request to a guard, with a hint if it is of another version.
pub(crate) fn guard_failed(what: impl Into<String>, cause: io::Error) -> Error {
    let is_of_another = cause.get_ref().is_some_and(|cause| cause.is::<OtherVersion>());
    let error = Error::os(what, cause);
    if is_of_another { error.with_hint(HINT) } else { error }
}

/// A record in another format.
pub(crate) fn other_record(path: &std::path::Path, format: u32, ours: u32) -> Error {
    let maker = if format > ours { "a newer" } else { "an older" };
    let path = path.display();
    Error::unsupported(format!(
        "the record {path} is in format {format} of {maker} version of onejob, this program reads \
         format {ours}"
    ))
    .with_hint(HINT)
}
