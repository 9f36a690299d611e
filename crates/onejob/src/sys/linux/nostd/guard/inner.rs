//! The loop of the inner guard.

use super::{
    super::syscall::{POLLIN, PollFd, poll},
    state::Guard,
};

impl Guard<'_> {
    /// Serves requests, reaps children, and ends everything when the owner is dead.
    pub(super) fn run_inner(&mut self) -> ! {
        loop {
            let next =
                [self.memory.cpu_time_limits.check(), self.memory.unfinished.check(self.cgroups)];
            let timeout = next.into_iter().filter(|next| *next >= 0).min().unwrap_or(-1);
            let mut fds = [
                PollFd::maybe(self.sigchld.as_ref(), POLLIN),
                PollFd::new(&self.owner.pidfd, POLLIN),
                PollFd::new(&self.owner.socket, POLLIN),
                PollFd::maybe(self.listener.as_ref(), POLLIN),
                self.memory.unfinished.poll_fd(),
            ];
            poll(&mut fds, timeout);
            let [sigchld, owner, socket, listener, unfinished] = fds.map(|fd| fd.fired());
            if sigchld {
                self.reap();
            }
            if owner {
                self.finish();
            }
            if socket {
                self.serve_owner();
            }
            if listener {
                self.serve_others();
            }
            if unfinished {
                self.memory.unfinished.wake();
            }
        }
    }
}
