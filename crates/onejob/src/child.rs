//! A process that was started into a job.

use std::{
    fmt,
    process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus},
    time::{Duration, Instant},
};

use crate::{ProcessId, Result, Signal, sys};

/// A process that [`Job::spawn`](crate::Job::spawn) started.
///
/// Dropping it does nothing to the process, which stays a member of its job. It need not be waited
/// for: zombies of dropped children are reaped.
pub struct Child {
    /// The write end of its standard input, if it was [`piped`](crate::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// The read end of its standard output, if it was piped.
    pub stdout: Option<ChildStdout>,
    /// The read end of its standard error, if it was piped.
    pub stderr: Option<ChildStderr>,
    sys: sys::ChildProcess,
    status: Option<ExitStatus>,
}

impl Child {
    pub(crate) fn new(
        sys: sys::ChildProcess,
        stdin: Option<ChildStdin>,
        stdout: Option<ChildStdout>,
        stderr: Option<ChildStderr>,
    ) -> Child {
        Child { stdin, stdout, stderr, sys, status: None }
    }

    #[cfg(target_os = "linux")]
    #[allow(dead_code, reason = "only one mechanism keeps track of the processes it has started")]
    pub(crate) fn sys(&self) -> &sys::ChildProcess {
        &self.sys
    }

    /// The identity of the process.
    pub fn id(&self) -> ProcessId {
        self.sys.id()
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.sys.pid()
    }

    /// Waits until the process has ended and returns its exact exit status.
    ///
    /// Closes its standard input first, as std does. A grandchild that holds its pipes open does not
    /// delay this.
    ///
    /// # Errors
    /// If the status was lost (to a `waitpid(-1)` in this process, an ignored `SIGCHLD` or a killed
    /// guard) and the kernel does not keep it (Linux before 6.15). Never hangs in this case.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        loop {
            if let Some(status) = self.wait_until(None)? {
                return Ok(status);
            }
        }
    }

    /// Its exit status if it has ended, `None` if it is still running.
    ///
    /// # Errors
    /// As [`wait`](Child::wait).
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.wait_until(Some(Instant::now()))
    }

    /// Waits for at most `timeout`; `None` if it is still running then.
    ///
    /// # Errors
    /// As [`wait`](Child::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.sys.wait(deadline)?;
        }
        Ok(self.status)
    }

    /// Sends a signal to this process alone. Does nothing if the process has ended, also if another
    /// process has its pid by now.
    ///
    /// # Errors
    /// [`is_permission_denied`](crate::Error::is_permission_denied) if the process has changed its
    /// user.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        self.sys.signal(signal)
    }

    /// Sends a signal to the process group that this process leads; does nothing if it leads none.
    /// If the leader has ended, its group is signalled on Linux 6.9 and later; on earlier kernels
    /// the group is left alone, because another group could have its number.
    ///
    /// # Errors
    /// [`is_permission_denied`](crate::Error::is_permission_denied) if none of them may be
    /// signalled.
    #[cfg(unix)]
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        self.sys.signal_group(signal)
    }

    /// Kills this process alone, not its descendants.
    ///
    /// # Errors
    /// As [`signal`](Child::signal).
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }
}

/// Readable (`POLLIN`) once the process has ended.
#[cfg(unix)]
impl std::os::fd::AsFd for Child {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.sys.as_fd()
    }
}

/// Signalled once the process has ended.
#[cfg(windows)]
impl std::os::windows::io::AsHandle for Child {
    fn as_handle(&self) -> std::os::windows::io::BorrowedHandle<'_> {
        self.sys.as_handle()
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id()).field("status", &self.status).finish()
    }
}
