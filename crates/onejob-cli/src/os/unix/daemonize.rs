//! Going into the background: another process goes on, and this one tells how it started.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, PipeReader, PipeWriter},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

/// Who we are after the fork.
pub(crate) enum Side {
    /// Still in the terminal; the other side's report comes here.
    Front(PipeReader),
    /// In a session of its own; to report and close.
    Back(PipeWriter),
}

/// Where logs are kept: they are for reading after the job, and may be large.
pub(crate) fn log_folder() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("onejob"))
}

/// A fresh log that only this user can read; the one before it is kept as `….1`.
pub(crate) fn make_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut kept = path.as_os_str().to_owned();
    kept.push(".1");
    match fs::rename(path, kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

/// Goes on in a process that nobody waits for, too. Only to be called while there is one thread.
pub(crate) fn split() -> io::Result<Side> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: there is one thread, so the copy may do whatever this process may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            rustix::process::setsid()?;
            Ok(Side::Back(writer))
        }
        _ => Ok(Side::Front(reader)),
    }
}

/// From now on nothing is read, and what is written goes to the log.
pub(crate) fn redirect(log: &File) -> io::Result<()> {
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(log)?;
    Ok(dup2_stderr(log)?)
}
