//! Running in the background: a forked process goes on, and reports its start to its parent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, PipeReader, PipeWriter},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

/// The side of the fork.
pub(crate) enum DaemonSide {
    /// In the foreground: reads the daemon's report.
    Parent(PipeReader),
    /// In a new session: writes the report.
    Daemon(PipeWriter),
}

/// The directory of log files: `$XDG_STATE_HOME/onejob` or `~/.local/state/onejob`.
pub(crate) fn log_dir() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("onejob"))
}

/// Creates a log file with mode 0600. The previous one is renamed to `….1`.
pub(crate) fn create_log(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut previous = path.as_os_str().to_owned();
    previous.push(".1");
    match fs::rename(path, previous) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

/// Forks into the background. The process must have one thread.
pub(crate) fn daemonize() -> io::Result<DaemonSide> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: the process has one thread, so no lock is held in the child that another thread of the
    // parent had taken.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            rustix::process::setsid()?;
            Ok(DaemonSide::Daemon(writer))
        }
        _ => Ok(DaemonSide::Parent(reader)),
    }
}

/// Redirects standard input from `/dev/null`, standard output and error to the log.
pub(crate) fn redirect_stdio(log: &File) -> io::Result<()> {
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(log)?;
    Ok(dup2_stderr(log)?)
}
