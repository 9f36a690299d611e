//! The guards of an owner, and talking to them.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{
    launch::{GuardConfig, Launch},
    pair::{Backoff, GuardPair, GuardProcess, NO_PROCESS, met, wait_dead, was_killed},
};
use crate::{
    Error, ProcessId, Result,
    sys::linux::{
        deadline::{has_passed, wait_for},
        nostd::{
            protocol::{self, Message, ReceivedFds},
            syscall::{self, Errno, POLLIN, PollFd},
        },
        process::{fork_detect::ProcessToken, identity},
        registry::version::guard_failed,
    },
    trace::event,
};

/// A pair of guards: of this process, or as it is seen from another one.
pub(crate) struct Guards {
    /// To the inner guard.
    socket: OwnedFd,
    /// Until the outer one has executed its program, …
    launch: Mutex<Option<Launch>>,
    /// … then that one, which we know without its greeting; or why it could not.
    outer: OnceLock<std::result::Result<Arc<GuardProcess>, Errno>>,
    /// Both of them, or why they could not begin.
    pair: OnceLock<io::Result<Arc<GuardPair>>>,
    /// What their last word was, once it has been read.
    finished: AtomicBool,
    /// Room for the descriptor that comes with the greeting, …
    room: Mutex<Option<OwnedFd>>,
    /// … which is for us alone, not for a forked copy of us.
    reader: Option<ProcessToken>,
}

/// A request that has been sent: its answers come on a socket of their own.
pub(crate) struct Reply(pub(crate) OwnedFd);

impl Reply {
    /// What is there already; `None` if there will be nothing.
    pub(crate) fn receive(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        receive(self.0.as_fd())
    }
}

impl Guards {
    /// Has a pair started that watches this process, and does not wait for it: see
    /// [`arrive`](Guards::arrive) and [`confirm`](Guards::confirm).
    pub(crate) fn launch(charge: GuardConfig<'_>) -> Result<Guards> {
        let (socket, launch) = Guards::launched(charge)?;
        event!(debug, "guards: started");
        let room = Mutex::new(Some(socket.try_clone().map_err(failed)?));
        Ok(Guards { room, ..Guards::new(socket, Some(launch), OnceLock::new()) })
    }

    /// The same, and waits.
    pub(crate) fn start(charge: GuardConfig<'_>) -> Result<Guards> {
        let guards = Guards::launch(charge)?;
        guards.wait_ready()?;
        Ok(guards)
    }

    /// Starts a pair that is put into a scope first: `scope` gets a connection to the bus, made by the
    /// process with that number, and answers what they are given when they are inside. It says before
    /// it asks for one.
    #[cfg(feature = "systemd")]
    pub(crate) fn start_in_scope(
        charge: GuardConfig<'_>,
        scope: impl FnOnce(OwnedFd, u32, &dyn Fn()) -> Result<[OwnedFd; 2]>,
    ) -> Result<Guards> {
        let (socket, launch) = Guards::launched(charge)?;
        let outer = launch.wait_exec().map(Arc::<GuardProcess>::from);
        let guards = Guards::new(socket, None, OnceLock::from(outer));
        guards.wait_exec()?;
        let (said, mut fds) = guards
            .receive(&guards.socket)
            .and_then(|said| said.ok_or_else(was_killed))
            .map_err(failed)?;
        let connection = match (said.kind, fds.pop()) {
            (protocol::CONNECTED, Some(connection)) => connection,
            _ => {
                let refused = io::Error::from_raw_os_error(said.errno);
                return Err(Error::os("connect to the bus of the service manager", refused));
            }
        };
        // Without a scope the socket is closed, and the guard ends.
        let asks = || {
            let _ = protocol::send(&guards.socket, &Message::new(protocol::ASKED), &[]);
        };
        let inside = scope(connection, said.numbers[0] as u32, &asks)?;
        let inside = inside.each_ref().map(|fd| fd.as_fd().into());
        protocol::send(&guards.socket, &Message::new(protocol::ENTER), &inside)
            .map_err(|e| failed(e.into()))?;
        guards.wait_ready()?;
        Ok(guards)
    }

    fn new(
        socket: OwnedFd,
        launch: Option<Launch>,
        outer: OnceLock<std::result::Result<Arc<GuardProcess>, Errno>>,
    ) -> Guards {
        Guards {
            socket,
            launch: Mutex::new(launch),
            outer,
            pair: OnceLock::new(),
            finished: AtomicBool::new(false),
            room: Mutex::default(),
            reader: ProcessToken::current().ok(),
        }
    }

    fn launched(charge: GuardConfig<'_>) -> Result<(OwnedFd, Launch)> {
        let (ours, theirs) = socket_pair().map_err(failed)?;
        let owner = identity::caller()?;
        let base = charge.cgroups.map(|(dir, _)| dir.try_clone_to_owned());
        let base = base.transpose().map_err(failed)?;
        let fds = [theirs, owner].into_iter().chain(base).collect();
        Ok((ours, Launch::begin(fds, charge.arguments()).map_err(failed)?))
    }

    /// Waits until the outer one is a process of its own, which will end what is in the owner's
    /// cgroups when we are gone, whatever else becomes of it. Nobody may be started before.
    pub(crate) fn wait_exec(&self) -> Result<()> {
        self.outer().map(drop).map_err(|errno| failed(errno.into()))
    }

    /// Waits until both stand.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        match self.greeting() {
            Ok(_) => Ok(()),
            Err(e) => Err(failed(match e.raw_os_error() {
                Some(raw) => io::Error::from_raw_os_error(raw),
                None => io::Error::new(e.kind(), e.to_string()),
            })),
        }
    }

    fn outer(&self) -> std::result::Result<&Arc<GuardProcess>, Errno> {
        let outer = self.outer.get_or_init(|| {
            let launch = self.launch.lock().unwrap_or_else(PoisonError::into_inner).take();
            launch.map_or(Err(Errno::SRCH), Launch::wait_exec).map(Arc::<GuardProcess>::from)
        });
        outer.as_ref().map_err(|errno| *errno)
    }

    fn greeting(&self) -> &io::Result<Arc<GuardPair>> {
        self.pair.get_or_init(|| {
            let outer = self.outer()?;
            if self.reader.is_some_and(|reader| !reader.is_current()) {
                return Err(io::Error::other("a forked copy of the owner does not know them"));
            }
            drop(self.room.lock().unwrap_or_else(PoisonError::into_inner).take());
            let greeting = self.receive_greeting(outer);
            match &greeting {
                Ok(pair) => {
                    event!(debug, "guards: ready", inner = pair.inner.pid, outer = pair.outer.pid)
                }
                Err(error) => event!(debug, "guards: not ready", error = error),
            }
            greeting.map(Arc::new)
        })
    }

    /// Waits for the greeting of the outer guard. If that was killed before, the inner one holds the
    /// other end of the socket all the same, and is asked for it.
    fn receive_greeting(&self, outer: &Arc<GuardProcess>) -> io::Result<GuardPair> {
        const MOST: Duration = Duration::from_secs(10);
        let (mut patience, mut last) = (Backoff::NEW, None);
        loop {
            let is_asked = last.is_some();
            let pidfd = outer.pidfd.as_ref().filter(|_| !is_asked);
            let mut fds = [PollFd::new(&self.socket, POLLIN), PollFd::maybe(pidfd, POLLIN)];
            wait_for(&mut fds, patience.next(last));
            if fds[0].fired() {
                let (hello, fds) = receive(self.socket.as_fd())?.ok_or_else(was_killed)?;
                return met(&hello, fds, outer);
            } else if fds[1].fired() {
                // If there is none, that shows next.
                let _ = protocol::send(&self.socket, &Message::new(protocol::HELLO), &[]);
                last = Some(Instant::now() + MOST);
            } else if last.is_some_and(|last| last <= Instant::now()) {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            } else {
                outer.resume();
            }
        }
    }

    /// The inner one first; nobody where they could not begin.
    fn both(&self) -> [&GuardProcess; 2] {
        match self.greeting() {
            Ok(pair) => [&pair.inner, &pair.outer],
            // The outer one may not be dead yet, but it will do nothing any more.
            Err(_) => [&NO_PROCESS; 2],
        }
    }

    /// Those that are known, without a wait.
    pub(crate) fn pair(&self) -> Option<Arc<GuardPair>> {
        let is_known = self.pair.get().is_some()
            || syscall::poll(&mut [PollFd::new(&self.socket, POLLIN)], 0) == 1;
        match is_known {
            true => self.greeting().as_ref().ok().cloned(),
            false => {
                let outer = self.outer().ok()?.clone();
                Some(Arc::new(GuardPair { inner: GuardProcess::other(0, None), outer }))
            }
        }
    }

    /// The pair of another process, which can be asked through this socket.
    pub(crate) fn connect(ids: [ProcessId; 2], socket: OwnedFd) -> Result<Guards> {
        let find = |id: &ProcessId| Ok(GuardProcess::other(id.pid as i32, identity::find(id)?));
        let [inner, outer] = &ids;
        let (inner, outer) = (find(inner)?, Arc::new(find(outer)?));
        let pair = OnceLock::from(Ok(Arc::new(GuardPair { inner, outer: outer.clone() })));
        Ok(Guards { pair, ..Guards::new(socket, None, OnceLock::from(Ok(outer))) })
    }

    /// Who they are: the inner one first.
    pub(crate) fn ids(&self) -> [ProcessId; 2] {
        self.both().map(|guard| match &guard.pidfd {
            Some(pidfd) => identity::persistent_id(guard.pid as u32, pidfd.as_fd()),
            None => ProcessId { pid: guard.pid as u32, start: 0, boot: 0, inode: 0 },
        })
    }

    /// Who they are, if they have greeted.
    pub(crate) fn known_ids(&self) -> Option<[ProcessId; 2]> {
        self.pair.get().map(|_| self.ids())
    }

    /// The number of the one that starts what is asked for.
    pub(crate) fn inner_pid(&self) -> u32 {
        self.both()[0].pid as u32
    }

    /// Whether the calling thread may examine the guards, which are alike in that; guards that have ended
    /// start no process.
    pub(crate) fn may_be_examined(&self) -> bool {
        if self.pair.get().is_none()
            && let Ok(outer) = self.outer()
        {
            let may = outer.may_be_examined();
            if !outer.is_dead() {
                return may;
            }
        }
        let inner = self.both()[0];
        inner.may_be_examined() || inner.is_dead()
    }

    /// Lets other processes ask through this datagram socket.
    pub(crate) fn listen(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.send(&Message::new(protocol::LISTEN), &[socket])
    }

    /// Those that live.
    pub(crate) fn live_ids(&self) -> Vec<ProcessId> {
        let both = self.ids().into_iter().zip(self.both());
        both.filter(|(_, guard)| !guard.is_dead()).map(|(id, _)| id).collect()
    }

    /// Whether at least one of them is there to finish when we are gone.
    pub(crate) fn any_alive(&self) -> bool {
        !self.both().into_iter().all(GuardProcess::is_dead)
    }

    /// The guard that everybody it started comes back to: the inner one, or the outer one once that
    /// is dead.
    pub(crate) fn root(&self) -> Option<(i32, BorrowedFd<'_>)> {
        let root = self.both().into_iter().find(|guard| !guard.is_dead())?;
        Some((root.pid, root.pidfd.as_ref()?.as_fd()))
    }

    /// Whether the inner guard can still be asked for anything.
    pub(crate) fn is_serving(&self) -> bool {
        !self.both()[0].is_dead()
    }

    /// The same, as far as is known without waiting for the greeting.
    pub(crate) fn may_be_serving(&self) -> bool {
        self.pair.get().is_none() || self.is_serving()
    }

    /// Sends a request, with what comes after it; the first of its descriptors is added here. Guards
    /// that have not greeted yet find it when they begin.
    pub(crate) fn request(
        &self,
        request: &Message,
        more: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<Reply> {
        let (ours, theirs) = socket_pair()?;
        let all = [theirs.as_fd().into()].into_iter().chain(fds.iter().map(|fd| (*fd).into()));
        protocol::send_with(&self.socket, request, more, &all.collect::<Vec<_>>())?;
        Ok(Reply(ours))
    }

    /// A request that is answered by one `DONE`.
    pub(crate) fn ask(&self, kind: u32) -> io::Result<[u64; 2]> {
        let reply = self.request(&Message::new(kind), &[], &[])?;
        self.done(&reply)
    }

    fn done(&self, reply: &Reply) -> io::Result<[u64; 2]> {
        match self.receive(&reply.0)? {
            Some((done, _)) if done.kind == protocol::DONE => Ok(done.numbers),
            Some((failed, _)) => Err(io::Error::from_raw_os_error(failed.errno)),
            None => Err(io::Error::other("the guard was killed")),
        }
    }

    /// The same, unless the guard is silent for so long: one in a frozen cgroup is until that is thawed,
    /// and no event tells when.
    pub(crate) fn ask_within(&self, kind: u32, patience: Duration) -> io::Result<[u64; 2]> {
        let reply = self.request(&Message::new(kind), &[], &[])?;
        if !self.wait_until(reply.0.as_fd(), Instant::now().checked_add(patience)) {
            let silent = "the guard does not answer; is it in a frozen cgroup?";
            return Err(io::Error::new(io::ErrorKind::TimedOut, silent));
        }
        self.done(&reply)
    }

    /// Why there is no answer: they could not begin, or else this.
    pub(crate) fn start_error_or(&self, otherwise: Error) -> Error {
        self.wait_ready().err().unwrap_or(otherwise)
    }

    /// The next answer to a request; `None` if there will be none.
    pub(crate) fn receive(
        &self,
        socket: &impl AsFd,
    ) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        self.wait_for(socket.as_fd());
        receive(socket.as_fd())
    }

    /// Waits until there is something to be read from what a guard, or its child, writes to.
    pub(crate) fn wait_for(&self, answer: BorrowedFd<'_>) {
        self.wait_until(answer, None);
    }

    /// The same up to a deadline; whether there is something.
    fn wait_until(&self, answer: BorrowedFd<'_>, deadline: Option<Instant>) -> bool {
        let mut patience = Backoff::NEW;
        loop {
            let mut fds = [PollFd::new(&answer, POLLIN)];
            wait_for(&mut fds, patience.next(deadline));
            if fds[0].fired() || has_passed(deadline) {
                return fds[0].fired();
            }
            self.resume();
        }
    }

    /// Has those go on that were stopped, as far as they are known without a wait.
    pub(crate) fn resume(&self) {
        if let Some(pair) = self.pair() {
            pair.resume();
        }
    }

    /// Sends what is not answered.
    fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let fds: Vec<_> = fds.iter().map(|fd| (*fd).into()).collect();
        let sent = protocol::send(&self.socket, message, &fds);
        if message.kind != protocol::LISTEN {
            self.resume();
        }
        Ok(sent?)
    }

    /// Has this cgroup of this job ended without any descriptor of ours.
    pub(crate) fn end_cgroup(&self, job: u32, number: u32) {
        let mut request = Message::new(protocol::END_CGROUP);
        request.numbers = [u64::from(job), u64::from(number)];
        let _ = self.send(&request, &[]);
    }

    /// Has what dead owners have abandoned below the base ended.
    pub(crate) fn end_abandoned(&self) {
        let _ = self.send(&Message::new(protocol::SWEEP), &[]);
    }

    /// Lets them go, whoever they are, and does not wait.
    pub(crate) fn release(&self) {
        let _ = self.send(&Message::new(protocol::RELEASE), &[]);
    }

    /// Has them leave, and waits until both have.
    pub(crate) fn release_and_wait(&self, patience: Duration) -> bool {
        self.release();
        self.wait_gone(Some(Instant::now() + patience))
    }

    /// Has them end everything, and waits until one says that it has: they go by themselves then, and
    /// are waited for only where they are children of ours.
    pub(crate) fn end(&self, patience: Duration) {
        let _ = self.send(&Message::new(protocol::END), &[]);
        let deadline = Some(Instant::now() + patience);
        let mut socket = Some(&self.socket);
        for guard in self.both() {
            let mut patience = Backoff::NEW;
            while !guard.is_dead() && !self.had_finished() && !has_passed(deadline) {
                let mut fds = [guard.poll_fd(), PollFd::maybe(socket, POLLIN)];
                wait_for(&mut fds, patience.next(deadline));
                if fds[1].fired() && !self.had_finished() {
                    // Nobody is there to say anything any more.
                    socket = None;
                }
                if !fds.iter().any(PollFd::fired) {
                    self.resume();
                }
            }
        }
        let [inner, outer] = self.both();
        if outer.reap() {
            wait_dead(outer, deadline);
            wait_dead(inner, deadline);
        }
    }

    /// Waits until both have ended.
    pub(crate) fn wait_gone(&self, deadline: Option<Instant>) -> bool {
        self.both().into_iter().all(|guard| wait_dead(guard, deadline))
    }

    /// Whether they end because nobody is left, rather than by being killed. Not to be asked by two at
    /// once while they live: what one has read the other would wait for.
    pub(crate) fn had_finished(&self) -> bool {
        // Whatever is queued there now was sent before they died; the last word counts.
        while syscall::poll(&mut [PollFd::new(&self.socket, POLLIN)], 0) == 1 {
            match receive(self.socket.as_fd()) {
                Ok(Some((last, _))) => {
                    self.finished.store(last.kind == protocol::DONE, Ordering::Relaxed);
                }
                _ => break,
            }
        }
        self.finished.load(Ordering::Relaxed)
    }
}

fn failed(error: io::Error) -> Error {
    match error.raw_os_error().map(Errno) {
        Some(Errno::OPNOTSUPP) => identity::no_pidfds(),
        Some(Errno::SRCH) => Error::os("start the guard of the job", was_killed()),
        _ => guard_failed("start the guard of the job", error),
    }
}

pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut fds = ReceivedFds::new();
    let received = loop {
        match protocol::receive(socket, &mut fds) {
            // Told once when the other end is closed with something unread; what it has said comes next.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            received => break received?,
        }
    };
    let own = fds.as_mut_slice().iter_mut().filter_map(|fd| fd.take().map(OwnedFd::from));
    Ok(received.map(|message| (message, own.collect())))
}
