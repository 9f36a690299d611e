//! Waiting until nothing lives below a process.

use std::{io, time::Instant};

use super::{Children, Root, children};
use crate::sys::linux::{
    deadline::{has_passed, wait_for},
    nostd::{
        procfs::Proc,
        syscall::{self, POLLIN, PollFd},
    },
};

/// Waits until a process is dead; whether that came before the deadline.
pub(crate) fn wait_dead(process: Root<'_>, deadline: Option<Instant>) -> bool {
    while !syscall::is_dead(process.pidfd) {
        if has_passed(deadline) {
            return false;
        }
        wait_for(&mut [PollFd::new(&process.pidfd, POLLIN)], deadline);
    }
    true
}

/// Waits until nobody lives below the root, or until the root itself has gone (`false`, before the
/// deadline). `settle` is called when only zombies are seen, to have them reaped.
pub(crate) fn wait(
    proc: &Proc,
    root: Root<'_>,
    deadline: Option<Instant>,
    settle: &dyn Fn(),
) -> io::Result<bool> {
    let mut zombies = Vec::new();
    loop {
        match children(proc, root)? {
            Children::None => return Ok(true),
            // Twice the same: nobody reaps them, a tracer holds them.
            Children::Dead(pids) if pids == zombies => return Ok(true),
            Children::Dead(pids) => {
                settle();
                zombies = pids;
            }
            Children::Alive(member) => {
                zombies.clear();
                if has_passed(deadline) {
                    return Ok(false);
                }
                let mut fds = [PollFd::new(&member, POLLIN), PollFd::new(&root.pidfd, POLLIN)];
                wait_for(&mut fds, deadline);
                if fds[1].fired() {
                    return Ok(false);
                }
            }
        }
    }
}
