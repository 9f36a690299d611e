//! The requests that the inner guard serves.

use super::{
    super::{
        protocol::{self, Message, ReceivedFds},
        syscall::{
            AsFd, Errno, OwnedFd, Result, SIGKILL, children_cpu_time, getpid, pidfd_open,
            pidfd_send_signal,
        },
    },
    ending::RELEASED,
    hello::send_hello,
    session,
    state::Guard,
};

impl Guard<'_> {
    /// Serves one request of the owner.
    pub(super) fn serve_owner(&mut self) {
        let mut fds = ReceivedFds::new();
        let request = match self.memory.slots.receive(self.owner.socket, &mut fds) {
            // The owner has closed its end: it has dropped the job or executed another program.
            Ok(None) => self.finish(),
            Ok(Some(request)) => request,
            Err(_) => return,
        };
        match (request.kind, self.cgroups) {
            (protocol::RELEASE, _) => self.exit(RELEASED),
            // The outer guard was killed before it had sent this.
            (protocol::HELLO, _) => {
                let own = pidfd_open(getpid()).map(|pidfd| (getpid(), pidfd));
                let _ = own.and_then(|own| send_hello(self.owner.socket, &Ok(own)));
            }
            (protocol::END, _) => self.finish(),
            (protocol::END_CGROUP, Some(cgroups)) => {
                let cgroup = request.numbers.map(|number| number as i32);
                self.memory.unfinished.end(cgroups, cgroup);
            }
            (protocol::KILL, _) => {
                if let Some(Some(reply)) = fds.as_slice().first() {
                    match self.kill_once() {
                        Ok(counts) => reply_done(reply, counts),
                        Err(errno) => reply_failed(reply, errno),
                    }
                }
            }
            (protocol::SWEEP, Some(_)) => self.memory.unfinished.end_abandoned(),
            (protocol::LISTEN, _) => {
                if let Some(socket) = fds.as_mut_slice().first_mut().and_then(Option::take) {
                    self.listener = Some(socket);
                }
            }
            (protocol::CPU_TIME_LIMIT, _) => self.add_cpu_time_limit(&request, &mut fds),
            _ => self.serve(&request, &mut fds),
        }
    }

    /// Serves one request of another process of the user: only these can reach the socket.
    pub(super) fn serve_others(&mut self) {
        let Some(listener) = &self.listener else { return };
        let mut fds = ReceivedFds::new();
        if let Ok(Some(request)) = self.memory.slots.receive(listener, &mut fds) {
            self.serve(&request, &mut fds);
        }
    }

    fn serve(&mut self, request: &Message, fds: &mut ReceivedFds) {
        let Some((reply, rest)) = fds.as_mut_slice().split_first_mut() else { return };
        let Some(reply) = reply.take() else { return };
        match request.kind {
            protocol::SPAWN => self.spawn(request, reply, rest),
            protocol::SYNC => {
                self.reap();
                reply_done(&reply, [0; 2]);
            }
            protocol::USAGE => {
                self.reap();
                reply_done(&reply, children_cpu_time());
            }
            _ => {}
        }
    }

    /// Limits the CPU time of a cgroup. `fds`: the reply socket and the directory of the cgroup.
    fn add_cpu_time_limit(&mut self, request: &Message, fds: &mut ReceivedFds) {
        let [limit, cpus] = request.numbers;
        let [reply, cgroup] = fds.as_mut_slice() else { return };
        let (Some(owner), Some(cgroup)) = (reply.take(), cgroup.take()) else { return };
        let message = match self.memory.cpu_time_limits.reserve() {
            Ok(()) => Message::new(protocol::DONE),
            Err(errno) => Message::error(protocol::FAILED, errno),
        };
        let _ = protocol::reply(&owner, &message, &[]);
        if message.kind == protocol::DONE {
            self.memory.cpu_time_limits.add(cgroup, owner, limit, cpus);
        }
    }

    /// Starts a process. `fds`: the report pipe, then those of the request.
    fn spawn(&mut self, request: &Message, reply: OwnedFd, fds: &mut [Option<OwnedFd>]) {
        match self.start(request, fds) {
            Ok((pid, pidfd)) => {
                let mut started = Message::new(protocol::STARTED);
                started.numbers = [pid as u64, 0];
                match protocol::reply(&reply, &started, &[pidfd.as_fd()]) {
                    Ok(()) => self.memory.children.add(pid, reply),
                    // The sender waits for this message, or sees that the reply socket is closed.
                    Err(_) => _ = pidfd_send_signal(pidfd, SIGKILL),
                }
            }
            Err(errno) => reply_failed(&reply, errno),
        }
    }

    fn start(&mut self, request: &Message, fds: &mut [Option<OwnedFd>]) -> Result<(i32, OwnedFd)> {
        if self.memory.children.is_full() {
            return Err(Errno::AGAIN);
        }
        if let Some(outer_pid) = self.outer_pid.take() {
            session::join(self.task.group, outer_pid, self.other.as_ref(), self.owner);
        }
        self.set_default_dispositions();
        self.memory.slots.start(request, fds)
    }
}

fn reply_done(socket: &OwnedFd, numbers: [u64; 2]) {
    let done = Message { numbers, ..Message::new(protocol::DONE) };
    let _ = protocol::reply(socket, &done, &[]);
}

fn reply_failed(socket: &OwnedFd, errno: Errno) {
    let _ = protocol::reply(socket, &Message::error(protocol::FAILED, errno), &[]);
}
