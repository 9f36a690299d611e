//! The outer guard leaves the owner's session before the inner guard joins the owner's process group.
//!
//! The kernel discards a stop signal from the terminal in an *orphaned* process group: one in which no
//! member has a parent in another group of the same session. Without a shell above, the owner's group is
//! orphaned. With the inner guard in it, and the outer guard, its parent, in another group of the same
//! session, it is not: a stop signal would stop members that no process continues. Members are in that
//! group only below the inner guard's own group, so it joins before it starts the first one, and not
//! before the outer guard has left the session.

use super::{
    super::syscall::{self, OwnedFd, POLLIN, PollFd, pidfd_send_signal, poll},
    task::OwnerFds,
};

/// The signal by which the outer guard reports to the inner guard that it has left the session: SIGUSR1.
/// All signals are blocked in guards, so it stays pending and wakes a guard only if that waits for it.
const HAS_LEFT: i32 = 10;

/// The outer guard leaves the session of the owner. It leads no process group, so that is possible.
pub(super) fn leave(inner: Option<&OwnedFd>) {
    let _ = syscall::setsid();
    if let Some(inner) = inner {
        let _ = pidfd_send_signal(inner, HAS_LEFT);
    }
}

/// The inner guard joins the owner's process group, which has a number, as soon as the outer guard has left
/// the session or has ended.
pub(super) fn join(group: i32, outer_pid: i32, outer: Option<&OwnedFd>, owner: OwnerFds) {
    if group <= 0 {
        return;
    }
    // Without a pidfd of the outer guard its end would not end the wait.
    if let Some(outer) = outer
        && !leads_session(outer_pid)
    {
        wait_left(outer_pid, outer, owner);
    }
    syscall::join_group(group);
}

fn wait_left(outer_pid: i32, outer: &OwnedFd, owner: OwnerFds) {
    let Ok(left) = syscall::signalfd(1 << (HAS_LEFT - 1)) else { return };
    let mut fds =
        [PollFd::new(&left, POLLIN), PollFd::new(outer, POLLIN), PollFd::new(&owner.pidfd, POLLIN)];
    while !leads_session(outer_pid) && poll(&mut fds, -1) == 0 {}
}

fn leads_session(pid: i32) -> bool {
    syscall::session_of(pid) == pid
}
