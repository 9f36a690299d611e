//! Running in the background: a second process of this program, with the same arguments, goes on and
//! reports its start to the first one. Windows has no fork.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, PipeReader, PipeWriter},
    mem::ManuallyDrop,
    os::windows::{
        io::{AsRawHandle as _, BorrowedHandle},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use windows_sys::Win32::{
    Foundation::{CloseHandle, HANDLE_FLAG_INHERIT, SetHandleInformation},
    System::{
        Console::{
            GetStdHandle, STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, SetStdHandle,
        },
        Threading::{CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW},
    },
};

/// Which of the two processes this is.
pub(crate) enum DaemonSide {
    /// In the console: reads the daemon's report.
    Parent(PipeReader),
    /// In an invisible console of its own: writes the report.
    Daemon(PipeWriter),
}

/// The environment variable that makes a process the daemon.
const DAEMON: &str = "ONEJOB_BACKGROUND";

/// The directory of log files: `%LOCALAPPDATA%\\onejob`.
pub(crate) fn log_dir() -> Option<PathBuf> {
    let local = env::var_os("LOCALAPPDATA").map(PathBuf::from).filter(|path| path.is_absolute());
    local.map(|local| local.join("onejob"))
}

/// Creates a log file. The previous one is renamed to `….1`.
pub(crate) fn create_log(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut previous = path.as_os_str().to_owned();
    previous.push(".1");
    match fs::rename(path, previous) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().append(true).create_new(true).open(path)
}

/// Whether this process is the daemon. To be called before [`daemonize`].
pub(super) fn is_daemon() -> bool {
    env::var_os(DAEMON).is_some()
}

/// Starts the daemon, or recognises that this process is it. The process must have one thread.
pub(crate) fn daemonize() -> io::Result<DaemonSide> {
    if is_daemon() {
        // CMD must not inherit it.
        // SAFETY: this process has one thread.
        unsafe { env::remove_var(DAEMON) };
        // SAFETY: the parent has made a pipe the standard output; it stays open until
        // `redirect_stdio`.
        let stdout = unsafe { BorrowedHandle::borrow_raw(GetStdHandle(STD_OUTPUT_HANDLE)) };
        return Ok(DaemonSide::Daemon(stdout.try_clone_to_owned()?.into()));
    }
    // std passes every inheritable handle on. The daemon must not hold the standard streams of this
    // process open.
    for stream in [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        // SAFETY: the handle is a standard stream of this process; for an invalid one the call fails.
        unsafe { SetHandleInformation(GetStdHandle(stream), HANDLE_FLAG_INHERIT, 0) };
    }
    let (reader, writer) = io::pipe()?;
    let mut daemon = Command::new(env::current_exe()?);
    daemon.args(env::args_os().skip(1)).env(DAEMON, "1");
    daemon.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
    // It outlives this process.
    daemon.creation_flags(CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP).spawn()?;
    Ok(DaemonSide::Parent(reader))
}

/// Redirects standard input from `NUL`, standard output and error to the log.
pub(crate) fn redirect_stdio(log: &File) -> io::Result<()> {
    let streams = [
        (STD_INPUT_HANDLE, File::open("NUL")?),
        (STD_OUTPUT_HANDLE, log.try_clone()?),
        (STD_ERROR_HANDLE, log.try_clone()?),
    ];
    for (stream, file) in streams {
        // Stays open as long as the process lives.
        let file = ManuallyDrop::new(file);
        // SAFETY: GetStdHandle takes a number and touches no memory.
        let before = unsafe { GetStdHandle(stream) };
        // SAFETY: `file` is open, and ManuallyDrop keeps it open.
        if unsafe { SetStdHandle(stream, file.as_raw_handle()) } == 0 {
            return Err(io::Error::last_os_error());
        }
        // An open handle would keep the parent waiting for the end of its pipe.
        // SAFETY: `before` is the previous standard stream of this process, which is not used any
        // more.
        unsafe { CloseHandle(before) };
    }
    Ok(())
}
