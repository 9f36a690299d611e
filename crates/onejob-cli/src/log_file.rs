//! The log file of a detached job.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
};

use crate::os;

/// The possible logs of the detached job with this name or id: in the user's directory for logs, and for
/// a user without a writable one, beside the records of the jobs. None if the name is not a plain file name.
fn paths(job: &str) -> Vec<PathBuf> {
    let is_plain = !job.contains(['/', '\\', ':', '\0']) && !job.starts_with('.');
    let beside_records = || onejob::runtime_dir().ok().map(|records| records.join("logs"));
    let directories = [os::log_dir(), is_plain.then(beside_records).flatten()];
    let paths = directories.into_iter().flatten().map(|dir| dir.join(format!("{job}.log")));
    paths.filter(|_| is_plain).collect()
}

/// Creates the log of a job in the first directory where that is possible. The error is that of the first
/// one; `None` if no directory for logs is known.
pub(crate) fn create(job: &str) -> Option<Result<(PathBuf, File), (PathBuf, io::Error)>> {
    let mut refusal = None;
    for path in paths(job) {
        match os::create_log(&path) {
            Ok(file) => return Some(Ok((path, file))),
            Err(error) => refusal = refusal.or(Some(Err((path, error)))),
        }
    }
    refusal
}

/// The log of a job that has ended: the newest one.
pub(crate) fn find(job: &str) -> Option<PathBuf> {
    let modified = |path: &PathBuf| fs::metadata(path).and_then(|log| log.modified()).ok();
    paths(job).into_iter().filter(|path| path.exists()).max_by_key(modified)
}
