//! The CPU time of a process.

use std::{io, os::fd::AsRawFd};

use super::identity;
use crate::{
    ProcessId,
    sys::linux::nostd::{
        procfs::Proc,
        syscall::{self, Errno},
    },
};

/// Microseconds of user and system time of a process and of the children it has waited for; zero if it is
/// gone: its parent has waited for it, or will.
pub(crate) fn cpu_time(proc: &Proc, process: &ProcessId) -> io::Result<[u64; 2]> {
    let Some(pidfd) = identity::find(process).map_err(io::Error::other)? else {
        return Ok([0; 2]);
    };
    let stat = match proc.stat(process.pid as i32) {
        Err(Errno::NOENT | Errno::SRCH) => return Ok([0; 2]),
        stat => stat?,
    };
    // While the process lives, no other process has its pid.
    if syscall::pidfd_send_signal(pidfd.as_raw_fd(), 0) == Err(Errno::SRCH) {
        return Ok([0; 2]);
    }
    let tick = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
    Ok([stat.user * tick, stat.system * tick])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn times_of_another_process_with_the_pid() {
        let proc = Proc::open().unwrap();
        let this = identity::identify(std::process::id()).unwrap();
        let start = Instant::now();
        while cpu_time(&proc, &this).expect("readable") == [0; 2] {
            assert!(start.elapsed() < Duration::from_secs(60), "this process uses CPU time");
        }
        let before = ProcessId { inode: this.inode.wrapping_add(1), start: this.start + 1, ..this };
        assert_eq!(cpu_time(&proc, &before).expect("gone"), [0; 2]);
    }
}
