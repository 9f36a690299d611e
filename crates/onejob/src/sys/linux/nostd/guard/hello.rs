//! The message of guards that are ready.

use super::{
    super::{
        protocol::{self, Message},
        syscall::{AsFd, BorrowedFd, Errno, OwnedFd, POLLIN, PollFd, Result, getpid, poll},
    },
    task::OwnerFds,
};

/// Sends the pids of both guards, or why there is no inner guard.
pub(super) fn send_hello(socket: BorrowedFd<'_>, inner: &Result<(i32, OwnedFd)>) -> Result<()> {
    let outer = getpid() as u64;
    match inner {
        Ok((inner, pidfd)) => {
            let hello =
                Message { numbers: [*inner as u64, outer], ..Message::new(protocol::HELLO) };
            protocol::send(socket, &hello, &[pidfd.as_fd()])
        }
        Err(errno) => {
            let hello = Message { numbers: [0, outer], ..Message::error(protocol::HELLO, *errno) };
            protocol::send(socket, &hello, &[])
        }
    }
}

/// Sends an error instead of the pids, as soon as the kernel has memory for the message: the owner waits for it, or
/// until this process has exited. Also returns when the owner has died.
pub(super) fn send_error_later(owner: OwnerFds, errno: Errno) {
    let mut pause = 10;
    while matches!(send_hello(owner.socket, &Err(errno)), Err(Errno::NOMEM | Errno::NOBUFS)) {
        if poll(&mut [PollFd::new(&owner.pidfd, POLLIN)], pause) > 0 {
            return;
        }
        pause = (pause * 2).min(1000);
    }
}
