//! Moving a running process into a cgroup.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::{
    dir::{open_cgroup, write_job_text, write_text},
    location,
    members::Members,
};
use crate::{
    Error, ProcessId, Result,
    sys::linux::{
        nostd::{
            procfs::Proc,
            syscall::{self, Errno},
        },
        process::identity,
    },
};

/// Moves a running process into a cgroup. If its pid passes to another process at that moment, that
/// process is moved back.
pub(crate) fn adopt(cgroup: BorrowedFd<'_>, process: &ProcessId) -> Result<()> {
    if process.pid == 1 {
        return Err(Error::invalid("cannot adopt process 1"));
    }
    let pidfd = identity::reopen(process)?;
    let pid = process.pid;
    write_job_text(cgroup, c"cgroup.procs", &pid.to_string()).map_err(|e| {
        if e.raw_os_error() == Some(Errno::SRCH.0) {
            return Error::stale(format!("process {pid} is gone"));
        }
        Error::os(format!("move process {pid} into the cgroup of the job"), e)
    })?;
    if syscall::pidfd_send_signal(pidfd.as_raw_fd(), 0) != Err(Errno::SRCH) {
        // It still exists, so no other process had its pid when it was moved.
        return Ok(());
    }
    move_back(pid, cgroup);
    Err(Error::stale(format!("process {pid} is gone")))
}

/// Another process got the pid just before the move. It is moved to the cgroup of its parent, in which it
/// was started.
fn move_back(pid: u32, from: BorrowedFd<'_>) {
    let was_moved = Members(vec![from]).pids().is_ok_and(|pids| pids.contains(&pid));
    let proc = Proc::open().ok().filter(|_| was_moved);
    let parent = proc.and_then(|proc| proc.stat(pid as i32).ok()).map(|stat| stat.parent);
    let origin = parent.and_then(|parent| location::cgroup_of(parent).ok());
    if let Some(origin) = origin.and_then(|path| open_cgroup(&path).ok()) {
        let _ = write_text(origin.as_fd(), "cgroup.procs", &pid.to_string());
    }
}
