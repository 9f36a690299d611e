//! A process that was started into a job.

use std::{
    fmt,
    process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus},
    time::{Duration, Instant},
};

use crate::{ProcessId, Result, Signal, sys};

/// A process that [`Job::spawn`](crate::Job::spawn) started.
///
/// Dropping it does nothing to the process, which stays a member of its job; nobody has to wait
/// for it, zombies of dropped children are cleared away.
pub struct Child {
    /// The writing end of its standard input, if it was [`piped`](crate::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// The reading end of its standard output, if it was piped.
    pub stdout: Option<ChildStdout>,
    /// The reading end of its standard error, if it was piped.
    pub stderr: Option<ChildStderr>,
    sys: sys::Child,
    status: Option<ExitStatus>,
}

impl Child {
    pub(crate) fn new(
        sys: sys::Child,
        stdin: Option<ChildStdin>,
        stdout: Option<ChildStdout>,
        stderr: Option<ChildStderr>,
    ) -> Child {
        Child { stdin, stdout, stderr, sys, status: None }
    }

    #[cfg(target_os = "linux")]
    #[allow(dead_code, reason = "only one mechanism looks after what it has started")]
    pub(crate) fn sys(&self) -> &sys::Child {
        &self.sys
    }

    /// Which process it is.
    pub fn id(&self) -> ProcessId {
        self.sys.id()
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.sys.pid()
    }

    /// Waits until it has ended and returns exactly how.
    ///
    /// Closes its standard input first, as std does. A grandchild that holds its pipes does not
    /// delay this.
    ///
    /// # Errors
    /// If the status was taken by somebody else (a `waitpid(-1)` in this process, an ignored
    /// `SIGCHLD`, a killed guard) and the kernel cannot tell it again (Linux before 6.15). Never
    /// hangs on that.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        loop {
            if let Some(status) = self.wait_until(None)? {
                return Ok(status);
            }
        }
    }

    /// Its status if it has ended, `None` if it is still running.
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

    /// Sends a signal to this process alone. An ended one is left alone, also if its number is
    /// somebody else's by now.
    ///
    /// # Errors
    /// [`is_permission_denied`](crate::Error::is_permission_denied) if it changed its user.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        self.sys.signal(signal)
    }

    /// Sends a signal to the process group that this process leads: nobody, if it leads none. An
    /// ended leader's group is reached from Linux 6.9 on; before, it is left alone, since the number
    /// could be somebody else's.
    ///
    /// # Errors
    /// [`is_permission_denied`](crate::Error::is_permission_denied) if none of them may be
    /// signalled.
    #[cfg(unix)]
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        self.sys.signal_group(signal)
    }

    /// Kills this process alone; what it started is the job's affair.
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
