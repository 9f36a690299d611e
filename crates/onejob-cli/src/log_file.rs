//! The log file of a detached job.

use std::path::PathBuf;

use crate::os;

/// The log of the detached job with this name or id. `None` if no directory for logs is known, or if
/// the name is not a plain file name.
pub(crate) fn path(job: &str) -> Option<PathBuf> {
    let is_plain = !job.contains(['/', '\\', ':', '\0']) && !job.starts_with('.');
    Some(os::log_dir().filter(|_| is_plain)?.join(format!("{job}.log")))
}
