//! A process as a lifeline: when it has exited, the process tree ends.

use std::{
    io,
    os::windows::io::{
        AsHandle, AsRawHandle as _, BorrowedHandle, FromRawHandle as _, OwnedHandle,
    },
};

use windows_sys::Win32::{
    Foundation::{ERROR_INVALID_PARAMETER, WAIT_OBJECT_0},
    System::Threading::{OpenProcess, PROCESS_SYNCHRONIZE, WaitForSingleObject},
};

use super::{ancestors, daemonize::is_daemon};
use crate::os::LifelineProcess;

/// A handle of the process, which is signalled when the process has exited.
#[derive(Debug)]
pub(crate) struct Lifeline(OwnedHandle);

impl Lifeline {
    /// Not available: no handle of a pipe can be watched without reading from it.
    pub(crate) fn take(_: i32) -> Result<Lifeline, String> {
        Err("a descriptor cannot be a lifeline on Windows (the tree ends with onejob; --with names a \
             process)"
            .to_owned())
    }

    /// Watches a process. `None` if it has exited already.
    pub(crate) fn of_process(process: LifelineProcess) -> Result<Option<Lifeline>, String> {
        match process {
            LifelineProcess::Pid(pid) => match open(pid) {
                Ok(handle) => Ok(Some(Lifeline(handle))),
                Err(error) if error.raw_os_error() == Some(ERROR_INVALID_PARAMETER as i32) => {
                    Err(format!("process {pid} cannot be a lifeline: it does not exist"))
                }
                Err(error) => Err(format!("process {pid} cannot be a lifeline: {error}")),
            },
            LifelineProcess::Parent => {
                // The parent of a daemon is the onejob process that started it.
                let Some(parent) = parent() else { return Ok(None) };
                let handle = match open(parent) {
                    Ok(handle) => handle,
                    Err(error) if error.raw_os_error() == Some(ERROR_INVALID_PARAMETER as i32) => {
                        return Ok(None);
                    }
                    Err(error) => {
                        return Err(format!("the parent process cannot be a lifeline: {error}"));
                    }
                };
                // The open handle keeps the pid from being reused: now the answer is final.
                Ok((self::parent() == Some(parent)).then_some(Lifeline(handle)))
            }
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        // SAFETY: the handle is open as long as `self` lives; a timeout of 0 returns at once.
        unsafe { WaitForSingleObject(self.0.as_raw_handle(), 0) == WAIT_OBJECT_0 }
    }
}

impl AsHandle for Lifeline {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.as_handle()
    }
}

/// The process that started the onejob command.
fn parent() -> Option<u32> {
    ancestors(std::process::id()).get(usize::from(is_daemon())).copied()
}

fn open(pid: u32) -> io::Result<OwnedHandle> {
    // SAFETY: the call touches no memory of this process; the handle is not inheritable.
    let handle = unsafe { OpenProcess(PROCESS_SYNCHRONIZE, 0, pid) };
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the handle is open, and no other value owns it.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}
