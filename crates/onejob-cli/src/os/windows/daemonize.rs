//! Going into the background: another process goes on, and this one tells how it started. Nothing
//! copies a process here, so it is this program again, with the same words.

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

/// Who we are.
pub(crate) enum Side {
    /// Still in the console; the other side's report comes here.
    Front(PipeReader),
    /// In a console of its own that nobody sees; to report and close.
    Back(PipeWriter),
}

/// Tells the other side that it is the other side.
const BACK: &str = "ONEJOB_BACKGROUND";

/// Where logs are kept: they are for reading after the job, and may be large.
pub(crate) fn log_folder() -> Option<PathBuf> {
    let local = env::var_os("LOCALAPPDATA").map(PathBuf::from).filter(|path| path.is_absolute());
    local.map(|local| local.join("onejob"))
}

/// A fresh log, in a folder of this user's; the one before it is kept as `….1`.
pub(crate) fn make_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut kept = path.as_os_str().to_owned();
    kept.push(".1");
    match fs::rename(path, kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().append(true).create_new(true).open(path)
}

/// Goes on in a process that nobody waits for, too. Only to be called while there is one thread.
pub(crate) fn split() -> io::Result<Side> {
    if env::var_os(BACK).is_some() {
        // SAFETY: there is one thread. CMD is not to find it.
        unsafe { env::remove_var(BACK) };
        // SAFETY: the pipe that the front made our standard output, open until `redirect`.
        let stdout = unsafe { BorrowedHandle::borrow_raw(GetStdHandle(STD_OUTPUT_HANDLE)) };
        return Ok(Side::Back(stdout.try_clone_to_owned()?.into()));
    }
    // Whoever reads what we write waits for our end, not for that of the other side, to whom std
    // passes on all that can be inherited.
    for stream in [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        // SAFETY: a handle of ours, or one that is none, which changes nothing.
        unsafe { SetHandleInformation(GetStdHandle(stream), HANDLE_FLAG_INHERIT, 0) };
    }
    let (reader, writer) = io::pipe()?;
    let mut back = Command::new(env::current_exe()?);
    back.args(env::args_os().skip(1)).env(BACK, "1");
    back.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
    // It goes on without us, whose end it does not wait for.
    back.creation_flags(CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP).spawn()?;
    Ok(Side::Front(reader))
}

/// From now on nothing is read, and what is written goes to the log.
pub(crate) fn redirect(log: &File) -> io::Result<()> {
    let streams = [
        (STD_INPUT_HANDLE, File::open("NUL")?),
        (STD_OUTPUT_HANDLE, log.try_clone()?),
        (STD_ERROR_HANDLE, log.try_clone()?),
    ];
    for (stream, file) in streams {
        // Open as long as we live.
        let file = ManuallyDrop::new(file);
        // SAFETY: gets the handle that the stream has now, if it has one.
        let before = unsafe { GetStdHandle(stream) };
        // SAFETY: an open handle that is never closed.
        if unsafe { SetStdHandle(stream, file.as_raw_handle()) } == 0 {
            return Err(io::Error::last_os_error());
        }
        // Or the front would wait for the end of its pipe.
        // SAFETY: ours since the start of this process, and nobody uses it any more.
        unsafe { CloseHandle(before) };
    }
    Ok(())
}
