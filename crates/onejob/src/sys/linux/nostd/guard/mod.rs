//! The guards: two small processes that outlive the owner just long enough to take its jobs down.
//!
//! The *outer* guard starts the *inner* one and leaves the session. The inner one stays in the
//! owner's session, and in its process group as soon as it has children, because it is the parent of what it starts for the owner: in
//! another group it would keep the owner's group from being orphaned, and a stop from the terminal
//! would then stop, for good, a job that no shell could continue. Both are subreapers, both watch
//! the owner through a pidfd, and either alone can finish. What finishing means is the same for
//! both: end the owner's cgroups, if it has any, then kill everything below oneself.

pub(crate) mod children;
pub(crate) mod cpu_time;
mod kill;
pub(crate) mod registry;
pub(crate) mod rlimit;
pub(crate) mod scope;
mod session;
pub(crate) mod spawn;
pub(crate) mod unfinished;

use self::{
    children::Children, cpu_time::CpuTimeLimits, spawn::SpawnSlots, unfinished::Unfinished,
};
use super::{
    boost::Boost,
    cgroup,
    kill_tree::PidSet,
    procfs::number,
    protocol::{self, Message},
    syscall::{
        self, CStr, Errno, Fd, POLLIN, PR_SET_CHILD_SUBREAPER, PR_SET_NAME, PollFd, Result,
        SIGCHLD, SIGCONT, SIGKILL, close, close_all, exit, getpid, pidfd_open, pidfd_send_signal,
        poll,
        raw::{nr, syscall},
        reap_any,
    },
    tree_walk::Frame,
};

/// The name both guards go by.
pub(crate) const NAME: &core::ffi::CStr = c"onejob-guard";

/// The guards' own descriptors.
pub(crate) const SOCKET: i32 = 0;
pub(crate) const OWNER: i32 = 1;
/// The cgroup below which the owner's jobs are, if it has a prefix for them.
pub(crate) const BASE: i32 = 2;

/// How a guard ends that has ended everything, …
const FINISHED: i32 = 0;

/// … or could not look everywhere.
const FAILED: i32 = 2;

/// How the inner guard ends when the members are to be left alone.
const RELEASED: i32 = 3;

/// How a guard ends that could not begin: the owner knows, and has no job.
const ABORTED: i32 = 1;

/// The number of an inner guard that there is not.
const NO_INNER: i32 = 0;

/// What a pair of guards is for.
#[derive(Clone, Copy)]
pub(crate) struct GuardTask<'a> {
    /// How the names of the owner's cgroups below `BASE` begin; empty if it has none there.
    pub(crate) prefix: &'a [u8],
    /// How the names of its jobs' records begin, …
    pub(crate) records: &'a [u8],
    /// … and the directory where they are; empty if there will be none.
    pub(crate) registry: &'a CStr,
    /// The socket of the service manager's bus, if that is to put us into a scope; or empty.
    pub(crate) bus: &'a CStr,
    /// The owner's process group; 0 if that has no number here.
    pub(crate) group: i32,
}

impl<'a> GuardTask<'a> {
    /// From the words that a guard is started with.
    pub(crate) fn new([prefix, records, registry, bus, group]: [&'a CStr; 5]) -> GuardTask<'a> {
        let (prefix, records) = (prefix.to_bytes(), records.to_bytes());
        let group = number(group.to_bytes()).map_or(0, |group| group as i32);
        GuardTask { prefix, records, registry, bus, group }
    }
}

/// The memory of a guard, which is only touched as far as it is used.
pub(crate) struct Memory {
    arena: [i32; 32768],
    path: [Frame; 512],
    met: PidSet,
    children: Children,
    births: SpawnSlots,
    budgets: CpuTimeLimits,
    unfinished: Unfinished,
}

impl Memory {
    #[allow(clippy::declare_interior_mutable_const, reason = "what a memory begins with")]
    pub(crate) const NEW: Memory = Memory {
        arena: [0; 32768],
        path: [Frame::EMPTY; 512],
        met: [0; 1 << 16],
        children: Children::NONE,
        births: SpawnSlots::NONE,
        budgets: CpuTimeLimits::NONE,
        unfinished: Unfinished::NONE,
    };

    /// A new one, for a guard that is a copy of its owner. As static memory it would count as the
    /// owner's data, even where no guard is ever forked.
    pub(crate) fn map() -> Result<*mut Memory> {
        const READ_WRITE: usize = 3;
        const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
        let size = size_of::<Memory>();
        let nowhere = usize::MAX;
        // SAFETY: a fresh mapping, at an address the kernel chooses.
        unsafe { syscall(nr::MMAP, [0, size, READ_WRITE, MAP_PRIVATE_ANONYMOUS, nowhere, 0]) }
            .map(|at| at as *mut Memory)
    }
}

/// One guard.
struct Guard<'a> {
    memory: &'a mut Memory,
    task: GuardTask<'a>,
    signals: Fd,
    /// The other guard.
    other: Fd,
    /// Where other processes of the user may ask.
    listener: Option<Fd>,
    /// Whether no signal is caught or ignored any more, so that a child need not see to that.
    has_defaults: bool,
    /// The pid of the outer guard, until the inner guard has joined the owner's process group.
    outer_pid: Option<i32>,
}

/// Runs as the outer guard, and in a child as the inner one. The descriptors `SOCKET`, `OWNER` and,
/// with a prefix, `BASE` are in place.
pub(crate) fn run(task: GuardTask<'_>, memory: &mut Memory) -> ! {
    init(!task.prefix.is_empty());
    if !task.bus.is_empty()
        && let Err(errno) = scope::enter(task.bus, task.prefix)
    {
        abort_startup(errno);
    }
    if let Err(errno) = syscall::prctl(PR_SET_CHILD_SUBREAPER, 1)
        && task.prefix.is_empty()
    {
        // Members that lose their parent would leave the job.
        abort_startup(errno);
    }
    let signals = syscall::signalfd(1 << (SIGCHLD - 1));
    // For the inner one, which inherits it. Without it that can do all but continue us.
    let outer_pid = getpid();
    let outer = pidfd_open(outer_pid).unwrap_or(Fd(-1));
    // SAFETY: the child goes on in the floor only.
    let forked = signals.as_ref().map_err(|e| *e).and_then(|_| unsafe { syscall::fork(SIGCHLD) });
    let signals = signals.unwrap_or(Fd(-1));
    let inner = match forked {
        Ok(None) => run_inner(task, memory, signals, outer, outer_pid),
        Ok(Some(inner)) => Ok(inner),
        Err(errno) => Err(errno),
    };
    // Cgroups that are our owner's are ended by the outer guard as well, and somebody may be there
    // already. Anything else takes an inner one.
    let may_stand_alone = !task.prefix.is_empty() && task.bus.is_empty();
    if let Err(errno) = inner
        && !may_stand_alone
    {
        abort_startup(errno);
    }
    session::leave(inner.as_ref().ok().map(|(_, pidfd)| pidfd));
    drop(outer);
    let greeted = send_greeting(&inner);
    let (inner, other) = match inner {
        Ok((inner, pidfd)) => (inner, pidfd),
        Err(_) => (NO_INNER, Fd(-1)),
    };
    let mut guard = Guard::new(memory, task, signals, other);
    match greeted {
        Ok(()) => {}
        Err(errno) if may_stand_alone => greet_later(errno),
        // The owner is gone, or learns it by our end.
        Err(_) => guard.finish(),
    }
    guard.run_outer(inner)
}

/// The inner guard stays in the session, and joins the group of its owner with its first child.
fn run_inner(
    task: GuardTask<'_>,
    memory: &mut Memory,
    signals: Fd,
    outer: Fd,
    outer_pid: i32,
) -> ! {
    // Not inherited. The outer one has seen whether that is allowed.
    let _ = syscall::prctl(PR_SET_CHILD_SUBREAPER, 1);
    memory.births.copies = !syscall::is_release(5, 16);
    let mut guard = Guard::new(memory, task, signals, outer);
    guard.outer_pid = Some(outer_pid);
    if task.prefix.is_empty() {
        // It will be asked to start somebody, and now there is time.
        guard.take_defaults();
    }
    guard.run_inner_loop()
}

/// Becomes deaf, small and out of everybody's way.
fn init(has_base: bool) {
    syscall::set_mask(u64::MAX);
    // An inherited "ignore" would make the kernel reap our children unseen.
    syscall::set_disposition(SIGCHLD, false);
    let _ = syscall::prctl(PR_SET_NAME, NAME.as_ptr() as usize);
    syscall::close_range(if has_base { 3 } else { 2 });
    for own in [SOCKET, OWNER] {
        let _ = syscall::set_cloexec(own, true);
    }
    if has_base {
        let _ = syscall::set_cloexec(BASE, true);
    }
    // SAFETY: changes the directory of this process; the path is static.
    let _ = unsafe { syscall(nr::CHDIR, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0]) };
}

pub(crate) fn abort_startup(errno: Errno) -> ! {
    let _ = protocol::send(SOCKET, &Message::error(protocol::HELLO, errno), &[]);
    exit(ABORTED)
}

/// Sends the owner an error as the greeting, as soon as the kernel has memory for it: the owner waits for
/// this message or for the end of this process. Returns as well when the owner has ended.
fn greet_later(errno: Errno) {
    let mut pause = 10;
    while matches!(send_greeting(&Err(errno)), Err(Errno::NOMEM | Errno::NOBUFS)) {
        if poll(&mut [PollFd::new(OWNER, POLLIN)], pause) > 0 {
            return;
        }
        pause = (pause * 2).min(1000);
    }
}

/// Who stands, or that the inner guard does not and why.
fn send_greeting(inner: &Result<(i32, Fd)>) -> Result<()> {
    let outer = getpid() as u64;
    match inner {
        Ok((inner, pidfd)) => {
            let mut hello = Message::new(protocol::HELLO);
            hello.numbers = [*inner as u64, outer];
            protocol::send(SOCKET, &hello, &[pidfd.raw()])
        }
        Err(errno) => {
            let mut hello = Message::error(protocol::HELLO, *errno);
            hello.numbers = [0, outer];
            protocol::send(SOCKET, &hello, &[])
        }
    }
}

impl<'a> Guard<'a> {
    fn new(memory: &'a mut Memory, task: GuardTask<'a>, signals: Fd, other: Fd) -> Guard<'a> {
        Guard { memory, task, signals, other, listener: None, has_defaults: false, outer_pid: None }
    }

    /// The inner guard: starts what it is asked to, reaps, and finishes when the owner is gone.
    fn run_inner_loop(&mut self) -> ! {
        loop {
            let mut fds = [
                PollFd::new(self.signals.raw(), POLLIN),
                PollFd::new(OWNER, POLLIN),
                PollFd::new(SOCKET, POLLIN),
                PollFd::new(self.listener.as_ref().map_or(-1, Fd::raw), POLLIN),
                PollFd::new(-1, 0),
            ];
            let next =
                [self.memory.budgets.look(), self.memory.unfinished.look(BASE, self.task.prefix)];
            fds[4] = self.memory.unfinished.poll_fd();
            poll(&mut fds, next.into_iter().filter(|next| *next >= 0).min().unwrap_or(-1));
            if fds[0].fired() {
                self.reap();
            }
            if fds[1].fired() {
                self.finish();
            }
            if fds[2].fired() {
                self.serve_owner();
            }
            if fds[3].fired() {
                self.serve_others();
            }
            if fds[4].fired() {
                self.memory.unfinished.wake();
            }
        }
    }

    /// The outer guard: finishes when the owner is gone and the inner guard does not, or was killed.
    fn run_outer(&mut self, inner: i32) -> ! {
        // What the inner one does in this time need not be done twice. It can be stopped, or stuck.
        const PATIENCE: u64 = 100_000;
        // Whatever the members do, this one gets its turn. It never starts a process.
        Boost::keep_without_real_time();
        let (mut inner, mut deadline) = (inner, None);
        loop {
            let owner = if deadline.is_some() { -1 } else { OWNER };
            // As long as there is an inner guard it reads what the owner sends.
            let socket = if inner == NO_INNER { SOCKET } else { -1 };
            let mut fds = [
                PollFd::new(self.signals.raw(), POLLIN),
                PollFd::new(owner, POLLIN),
                PollFd::new(socket, POLLIN),
            ];
            let left = deadline.map(|at: u64| at.saturating_sub(syscall::now()).div_ceil(1000));
            poll(&mut fds, left.map_or(-1, |left| left as i32));
            if fds[1].fired() {
                deadline = Some(syscall::now() + PATIENCE);
            }
            drain(&self.signals);
            // By a member, most likely, whose parent it is.
            if syscall::was_stopped(self.other.raw()) {
                let _ = pidfd_send_signal(self.other.raw(), SIGCONT);
            }
            while let Ok(Some(ended)) = reap_any() {
                if ended.pid != inner {
                    continue;
                }
                let status = ended.wait_status();
                match (status & 0x7f, status >> 8) {
                    (0, FINISHED | RELEASED | ABORTED) => exit(0),
                    // Killed: with cgroups it was only the second pair of eyes.
                    (1.., _) if !self.task.prefix.is_empty() => {
                        self.other = Fd(-1);
                        inner = NO_INNER;
                    }
                    _ => self.finish(),
                }
            }
            if fds[2].fired() {
                self.decline();
            }
            if deadline.is_some_and(|at| inner == NO_INNER || at <= syscall::now()) {
                self.finish();
            }
        }
    }

    /// Without an inner guard: a request is not served, and its sender sees that as its descriptors are
    /// closed. The end of what the owner sends is the end of its jobs.
    fn decline(&mut self) {
        let mut fds = [-1; protocol::MAX_FDS];
        let (request, count) = match self.memory.births.receive(SOCKET, &mut fds) {
            // The owner has dropped the job, or replaced itself by another program.
            Ok(None) => self.finish(),
            Ok(Some(received)) => received,
            Err(_) => return,
        };
        close_all(fds.get_mut(..count).unwrap_or(&mut []));
        match request.kind {
            protocol::RELEASE => self.leave(RELEASED),
            protocol::END => self.finish(),
            _ => {}
        }
    }

    fn reap(&mut self) {
        drain(&self.signals);
        self.memory.children.reap();
    }

    fn serve_owner(&mut self) {
        let mut fds = [-1; protocol::MAX_FDS];
        let (request, count) = match self.memory.births.receive(SOCKET, &mut fds) {
            // The owner has dropped the job, or replaced itself by another program.
            Ok(None) => self.finish(),
            Ok(Some(received)) => received,
            Err(_) => return,
        };
        let fds = fds.get_mut(..count).unwrap_or(&mut []);
        match request.kind {
            protocol::RELEASE => self.leave(RELEASED),
            // The outer guard was killed before it could do that.
            protocol::HELLO => {
                let _ = pidfd_open(getpid()).and_then(|me| send_greeting(&Ok((getpid(), me))));
            }
            protocol::END => self.finish(),
            protocol::END_CGROUP if !self.task.prefix.is_empty() => {
                let cgroup = request.numbers.map(|number| number as i32);
                self.memory.unfinished.end(BASE, self.task.prefix, cgroup);
            }
            protocol::KILL => match self.kill_once() {
                Ok(met) => self.reply_done(fds, met),
                Err(errno) => reply_failed(fds, errno),
            },
            protocol::SWEEP if !self.task.prefix.is_empty() => {
                self.memory.unfinished.end_abandoned();
            }
            protocol::LISTEN => {
                if let Some(socket) = fds.first_mut() {
                    self.listener = Some(Fd(core::mem::replace(socket, -1)));
                }
            }
            protocol::CPU_TIME_LIMIT => return self.add_cpu_time_limit(&request, fds),
            _ => return self.serve_request(&request, fds),
        }
        close_all(fds);
    }

    /// A request from another process of the user's: the socket lies where only they come.
    fn serve_others(&mut self) {
        let mut fds = [-1; protocol::MAX_FDS];
        let socket = self.listener.as_ref().map_or(-1, Fd::raw);
        if let Ok(Some((request, count))) = self.memory.births.receive(socket, &mut fds) {
            self.serve_request(&request, fds.get_mut(..count).unwrap_or(&mut []));
        }
    }

    fn serve_request(&mut self, request: &Message, fds: &mut [i32]) {
        match request.kind {
            protocol::SPAWN => return self.spawn(request, fds),
            protocol::SYNC => {
                self.reap();
                self.reply_done(fds, [0; 2]);
            }
            protocol::USAGE => {
                self.reap();
                self.reply_done(fds, children_usage());
            }
            _ => {}
        }
        close_all(fds);
    }

    /// Takes a cgroup's budget of CPU time. `fds`: reply, directory.
    fn add_cpu_time_limit(&mut self, request: &Message, fds: &[i32]) {
        let [most, cpus] = request.numbers;
        let added = match *fds {
            [reply, cgroup] => self.memory.budgets.add(cgroup, reply, most, cpus),
            _ => Err(Errno::INVAL),
        };
        let answer = match added {
            Ok(()) => Message::new(protocol::DONE),
            Err(errno) => Message::error(protocol::FAILED, errno),
        };
        if let Some(reply) = fds.first() {
            let _ = protocol::answer(*reply, &answer, &[]);
        }
        if added.is_err() {
            close_all(fds);
        }
    }

    fn reply_done(&self, fds: &[i32], numbers: [u64; 2]) {
        if let Some(reply) = fds.first() {
            let done = Message { numbers, ..Message::new(protocol::DONE) };
            let _ = protocol::answer(*reply, &done, &[]);
        }
    }

    /// Starts a process for the owner. `fds`: reply, report, then what the record needs.
    fn spawn(&mut self, request: &Message, fds: &mut [i32]) {
        let Some((&reply, rest)) = fds.split_first() else { return };
        match self.start(request, rest) {
            Ok((pid, pidfd)) => {
                let mut started = Message::new(protocol::STARTED);
                started.numbers = [pid as u64, 0];
                match protocol::answer(reply, &started, &[pidfd.raw()]) {
                    Ok(()) => self.memory.children.remember(pid, reply),
                    // The sender would wait for a message, and sees the end of the socket instead.
                    Err(_) => {
                        let _ = pidfd_send_signal(pidfd.raw(), SIGKILL);
                        close(reply);
                    }
                }
            }
            Err(errno) => {
                let _ = protocol::answer(reply, &Message::error(protocol::FAILED, errno), &[]);
                close(reply);
            }
        }
        close_all(rest);
    }

    /// All signals are blocked here, so it makes no difference to us.
    fn take_defaults(&mut self) {
        if !self.has_defaults {
            syscall::set_dispositions(0);
            self.has_defaults = true;
        }
    }

    fn start(&mut self, request: &Message, fds: &[i32]) -> Result<(i32, Fd)> {
        if self.memory.children.is_full() {
            return Err(Errno::AGAIN);
        }
        if let Some(outer_pid) = self.outer_pid.take() {
            session::join(self.task.group, outer_pid, &self.other);
        }
        self.take_defaults();
        self.memory.births.start(request, fds)
    }

    /// Ends everything and then itself. Not before: what cannot die keeps us waiting.
    fn finish(&mut self) -> ! {
        let cgroups = match self.task.prefix {
            [] => Ok(false),
            prefix => cgroup::end_all(BASE, prefix),
        };
        // Whom we have started for a job that was released is below us all the same.
        let is_empty = cgroups == Ok(true) || self.kill_descendants();
        if cgroups.is_err() || !is_empty {
            self.leave(FAILED);
        }
        // An owner that lives and finds both guards gone knows by this that they had finished. It
        // removes its records itself, unless it dies before.
        let _ = protocol::send(SOCKET, &Message::new(protocol::DONE), &[]);
        if !self.task.registry.is_empty() {
            // Last: a job is over when its record is gone.
            let _ = registry::remove(self.task.registry, self.task.records);
        }
        self.leave(FINISHED)
    }

    /// Ends, and leaves no other guard behind that was stopped.
    fn leave(&mut self, status: i32) -> ! {
        let _ = pidfd_send_signal(self.other.raw(), SIGCONT);
        self.memory.unfinished.last_look(BASE, self.task.prefix);
        exit(status)
    }
}

fn reply_failed(fds: &[i32], errno: Errno) {
    if let Some(reply) = fds.first() {
        let _ = protocol::answer(*reply, &Message::error(protocol::FAILED, errno), &[]);
    }
}

/// Takes what is pending, so that the descriptor tells of what comes next.
fn drain(signals: &Fd) {
    const SIGINFO: usize = 128;
    let mut pending = [0_u8; 2 * SIGINFO];
    while syscall::read(signals.raw(), &mut pending).is_ok_and(|len| len == pending.len()) {}
}

/// Microseconds of user and system time of all who were reaped, and of whom they had reaped.
fn children_usage() -> [u64; 2] {
    const RUSAGE_CHILDREN: usize = usize::MAX;
    let mut usage = [0_u64; 18];
    let at = usage.as_mut_ptr() as usize;
    // SAFETY: the kernel writes one rusage: two timevals and 14 numbers.
    let _ = unsafe { syscall(nr::GETRUSAGE, [RUSAGE_CHILDREN, at, 0, 0, 0, 0]) };
    let micros = |seconds: u64, micros: u64| seconds.wrapping_mul(1_000_000).wrapping_add(micros);
    [micros(usage[0], usage[1]), micros(usage[2], usage[3])]
}
