//! The loop of the outer guard.

use super::{
    super::{
        priority::Priority,
        protocol::{self, ReceivedFds},
        syscall::{
            self, ExitedChild, POLLIN, PollFd, SIGCONT, exit, pidfd_send_signal, poll, reap_any,
        },
    },
    ending::{ABORTED, FINISHED, RELEASED},
    state::{Guard, drain_sigchld},
};

/// How long the inner guard may take after the owner has died, in microseconds: it can be stopped or stuck.
/// In this time the outer guard does not do the same work.
const INNER_TIMEOUT: u64 = 100_000;

impl Guard<'_> {
    /// Ends everything when the owner is dead and the inner guard has not done it, or when the inner guard was
    /// killed.
    pub(super) fn run_outer(&mut self, inner: Option<i32>) -> ! {
        // So the outer guard gets CPU time whatever the members do. It never starts a process.
        Priority::raise_without_real_time();
        let (mut inner, mut deadline) = (inner, None);
        loop {
            let owner = deadline.is_none().then_some(&self.owner.pidfd);
            // If there is an inner guard, it reads the messages of the owner.
            let socket = inner.is_none().then_some(&self.owner.socket);
            let mut fds = [
                PollFd::maybe(self.sigchld.as_ref(), POLLIN),
                PollFd::maybe(owner, POLLIN),
                PollFd::maybe(socket, POLLIN),
            ];
            let left = deadline.map(|at: u64| at.saturating_sub(syscall::now()).div_ceil(1000));
            poll(&mut fds, left.map_or(-1, |left| left as i32));
            let [_, owner, socket] = fds.map(|fd| fd.fired());
            if owner {
                deadline = Some(syscall::now() + INNER_TIMEOUT);
            }
            drain_sigchld(&self.sigchld);
            self.continue_inner();
            while let Ok(Some(child)) = reap_any() {
                if Some(child.pid) == inner {
                    self.inner_has_exited(&child);
                    inner = None;
                }
            }
            if socket {
                self.serve_alone();
            }
            if deadline.is_some_and(|at| inner.is_none() || at <= syscall::now()) {
                self.finish();
            }
        }
    }

    /// Continues the inner guard if a process has stopped it: most likely a member, whose parent it is.
    fn continue_inner(&self) {
        if let Some(inner) = &self.other
            && syscall::was_stopped(inner)
        {
            let _ = pidfd_send_signal(inner, SIGCONT);
        }
    }

    fn inner_has_exited(&mut self, child: &ExitedChild) {
        let status = child.wait_status();
        match (status & 0x7f, status >> 8) {
            (0, FINISHED | RELEASED | ABORTED) => exit(0),
            // It was killed. Members in cgroups live on, and this guard can end them alone.
            (1.., _) if self.cgroups.is_some() => self.other = None,
            _ => self.finish(),
        }
    }

    /// Reads a message of the owner after the inner guard has died. It cannot serve requests: their senders see
    /// that, because it closes their descriptors.
    fn serve_alone(&mut self) {
        let mut fds = ReceivedFds::new();
        match self.memory.slots.receive(self.owner.socket, &mut fds) {
            // The owner has closed its end: it has dropped the job or executed another program.
            Ok(None) => self.finish(),
            Ok(Some(request)) if request.kind == protocol::RELEASE => self.exit(RELEASED),
            Ok(Some(request)) if request.kind == protocol::END => self.finish(),
            Ok(Some(_)) | Err(_) => {}
        }
    }
}
