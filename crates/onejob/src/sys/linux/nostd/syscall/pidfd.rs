//! Pidfds: descriptors of processes.

use super::{
    errno::{Errno, Result},
    fd::{AsFd, OwnedFd, syscall_fd},
    poll::{POLLIN, PollFd, poll},
    raw::{self, nr, syscall},
};

pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: no pointer is passed, and the kernel returns a new descriptor.
    unsafe { syscall_fd(raw::PIDFD_OPEN, [pid as usize, 0, 0, 0, 0, 0]) }
}

/// Sends `signal` to the process of a pidfd, and to no other. With signal 0 it only checks whether that
/// would be possible.
pub(crate) fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    // SAFETY: no pointer is passed.
    unsafe { syscall(raw::PIDFD_SEND_SIGNAL, [pidfd.as_fd().arg(), signal as usize, 0, 0, 0, 0]) }
        .map(drop)
}

/// Sends `signal` to the process group that the process leads or led (Linux 6.9).
pub(crate) fn pidfd_signal_group(pidfd: impl AsFd, signal: i32) -> Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: usize = 1 << 2;
    let args = [pidfd.as_fd().arg(), signal as usize, 0, PIDFD_SIGNAL_PROCESS_GROUP, 0, 0];
    // SAFETY: no pointer is passed.
    unsafe { syscall(raw::PIDFD_SEND_SIGNAL, args) }.map(drop)
}

/// Whether all threads of the process are dead. A zombie is dead.
pub(crate) fn is_dead(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, POLLIN)];
    poll(&mut fds, 0) == 1 && fds[0].is_readable()
}

/// `struct pidfd_info` in its first version, as `PIDFD_GET_INFO` fills it (`pidfd.h`).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// The pid, the thread group and the parent of the process, then its users and groups.
    ids: [u32; 11],
    exit_code: i32,
}

fn pidfd_info(pidfd: impl AsFd, mask: u64) -> Result<PidfdInfo> {
    const PIDFD_GET_INFO: usize = 0xC000_FF0B | size_of::<PidfdInfo>() << 16;
    let mut info = PidfdInfo { mask, ..PidfdInfo::default() };
    let args = [pidfd.as_fd().arg(), PIDFD_GET_INFO, &raw mut info as usize, 0, 0, 0];
    // SAFETY: the request contains the size of the struct, and the kernel writes no more than that.
    unsafe { syscall(nr::IOCTL, args) }?;
    if info.mask & mask == mask { Ok(info) } else { Err(Errno::NODEV) }
}

/// The pid of the parent; `Errno::SRCH` if the process was reaped. With another error the kernel does not
/// have the call (before Linux 6.13).
pub(crate) fn parent_of(pidfd: impl AsFd) -> Result<i32> {
    const PIDFD_INFO_PID: u64 = 1 << 0;
    pidfd_info(pidfd, PIDFD_INFO_PID).map(|info| info.ids[2] as i32)
}

/// The id of the process' cgroup, which is the inode of its directory (Linux 6.13).
pub(crate) fn cgroup_of(pidfd: impl AsFd) -> Option<u64> {
    const PIDFD_INFO_CGROUPID: u64 = 1 << 2;
    pidfd_info(pidfd, PIDFD_INFO_CGROUPID).ok().map(|info| info.cgroup)
}

/// The wait status of a process that any process has reaped (Linux 6.15).
pub(crate) fn exit_code(pidfd: impl AsFd) -> Option<i32> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    pidfd_info(pidfd, PIDFD_INFO_EXIT).ok().map(|info| info.exit_code)
}
