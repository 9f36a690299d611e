//! A process that was started into a job.

use std::{
    os::windows::{
        io::{AsHandle, AsRawHandle as _, BorrowedHandle, OwnedHandle},
        process::ExitStatusExt as _,
    },
    process::ExitStatus,
    time::Instant,
};

use windows_sys::Win32::System::Threading::{GetExitCodeProcess, TerminateProcess};

use super::{
    handles::{check, is_signalled, wait_any},
    object::KILLED,
};
use crate::{Error, ProcessId, Result, Signal};

pub(crate) struct ChildProcess {
    pub(super) id: ProcessId,
    pub(super) process: OwnedHandle,
}

impl ChildProcess {
    pub(crate) fn id(&self) -> ProcessId {
        self.id
    }

    pub(crate) fn pid(&self) -> u32 {
        self.id.pid
    }

    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        let failed = |e| Error::os(format!("wait for process {}", self.id), e);
        if wait_any(&[self.process.as_handle()], deadline).map_err(failed)?.is_none() {
            return Ok(None);
        }
        let mut code = 0;
        // SAFETY: an open handle and a place to write to.
        check(unsafe { GetExitCodeProcess(self.process.as_raw_handle(), &raw mut code) })
            .map_err(failed)?;
        Ok(Some(ExitStatus::from_raw(code)))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if signal != Signal::KILL {
            return Err(no_signal(signal));
        }
        terminate(self.process.as_handle())
            .map_err(|e| Error::os(format!("kill process {}", self.id), e))
    }
}

pub(super) fn no_signal(signal: Signal) -> Error {
    Error::unsupported(format!("Windows cannot send {signal}"))
        .with_hint("SIGKILL kills a process, and Job::stop requests a graceful end where possible")
}

/// Does not fail if the process has already ended.
pub(super) fn terminate(process: BorrowedHandle<'_>) -> std::io::Result<()> {
    // SAFETY: an open handle.
    check(unsafe { TerminateProcess(process.as_raw_handle(), KILLED) })
        .or_else(|error| if is_signalled(process) { Ok(()) } else { Err(error) })
}

/// Signalled once the process has ended.
impl AsHandle for ChildProcess {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.process.as_handle()
    }
}
