//! A `std::process::Command` whose child joins a cgroup before it executes its program.

use std::os::{
    fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    unix::process::CommandExt as _,
};

use rustix::fs::{Mode, OFlags};

use crate::{Error, Result, sys::linux::nostd::syscall};

/// Adds a step to the command that moves the child into the cgroup between `fork` and `execve`.
pub(crate) fn join_cgroup_on_exec(
    command: &mut std::process::Command,
    cgroup: BorrowedFd<'_>,
) -> Result<()> {
    let procs =
        open_procs(cgroup).map_err(|e| Error::os("open cgroup.procs of the job's cgroup", e))?;
    let join = move || Ok(syscall::write(procs.as_raw_fd(), b"0").map(drop)?);
    // SAFETY: the step is one write(2), which is async-signal-safe, to a descriptor that it owns.
    unsafe { command.pre_exec(join) };
    Ok(())
}

/// The file of a cgroup that moves processes into it.
pub(super) fn open_procs(cgroup: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(cgroup, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}
