//! Starting the guards, and talking to them.

use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{
    floor::{
        call::{self, CLONE_PIDFD, CLONE_VFORK, CLONE_VM, Errno, POLLIN, PollFd, SIGCHLD, SIGCONT},
        guard::{self, Memory, Task},
        message::{self, MAX_FDS, Message},
        proc::Proc,
        raw::{self, nr},
    },
    identity, wait_for,
};
use crate::{Error, ProcessId, Result};

/// The guard program, as the build script made it; empty where it could not.
#[cfg(guard_program)]
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/onejob-guard"));
#[cfg(not(guard_program))]
static PROGRAM: &[u8] = &[];

/// What a pair of guards is to take down when this process is gone, besides whatever it starts.
#[derive(Clone, Copy)]
pub(super) struct Charge<'a> {
    /// The cgroups below this one whose names start so. The guards stay where we are now.
    pub(super) cgroups: Option<(BorrowedFd<'a>, &'a str)>,
    /// The records in this directory whose names start so.
    pub(super) records: Option<(&'a Path, &'a str)>,
    /// The socket of the bus of a service manager that is to put them into a scope.
    pub(super) bus: Option<&'a Path>,
}

/// A pair of guards: of this process, or as it is seen from another one.
pub(super) struct Guards {
    /// To the inner guard.
    socket: OwnedFd,
    inner: Process,
    outer: Process,
    /// What their last word was, once it has been read.
    finished: AtomicBool,
}

struct Process {
    pid: i32,
    /// `None` if it had ended before we could see it.
    pidfd: Option<OwnedFd>,
}

impl Process {
    fn raw(&self) -> i32 {
        self.pidfd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn is_dead(&self) -> bool {
        self.pidfd.is_none() || call::is_dead(self.raw())
    }
}

/// A request that has been sent: its answers come on a socket of their own.
pub(super) struct Reply(pub(super) OwnedFd);

impl Charge<'_> {
    /// As the guard program gets it. No name of ours has a NUL.
    fn words(&self) -> [CString; 4] {
        let word = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
        let (registry, records) =
            self.records.map_or((&[][..], ""), |(dir, start)| (dir.as_os_str().as_bytes(), start));
        let prefix = self.cgroups.map_or("", |(_, prefix)| prefix);
        let bus = self.bus.map_or(&[][..], |path| path.as_os_str().as_bytes());
        [word(prefix.as_bytes()), word(records.as_bytes()), word(registry), word(bus)]
    }
}

impl Guards {
    /// Starts a pair that watches this process.
    pub(super) fn start(charge: Charge<'_>) -> Result<Guards> {
        let failed = |e: io::Error| Error::os("start the guard of the job", e);
        Guards::greeted(Guards::launched(charge)?).map_err(failed)
    }

    /// Starts a pair that is put into a scope first: `scope` gets a connection to the bus, made by the
    /// process with that number, and answers what they are given when they are inside. It says before
    /// it asks for one.
    #[cfg(feature = "systemd")]
    pub(super) fn start_in_scope(
        charge: Charge<'_>,
        scope: impl FnOnce(OwnedFd, u32, &dyn Fn()) -> Result<[OwnedFd; 2]>,
    ) -> Result<Guards> {
        let failed = |e: io::Error| Error::os("start the guard of the job", e);
        let socket = Guards::launched(charge)?;
        let (said, mut fds) = receive(socket.as_fd())
            .and_then(|said| said.ok_or_else(|| io::Error::other("it was killed")))
            .map_err(failed)?;
        let connection = match (said.kind, fds.pop()) {
            (message::CONNECTED, Some(connection)) => connection,
            _ => {
                let refused = io::Error::from_raw_os_error(said.errno);
                return Err(Error::os("connect to the bus of the service manager", refused));
            }
        };
        // Without a scope the socket is closed, and the guard ends.
        let asks = || {
            let _ = message::send(socket.as_raw_fd(), &Message::new(message::ASKED), &[]);
        };
        let inside = scope(connection, said.numbers[0] as u32, &asks)?;
        let inside = inside.each_ref().map(|fd| fd.as_raw_fd());
        message::send(socket.as_raw_fd(), &Message::new(message::ENTER), &inside)
            .map_err(|e| failed(e.into()))?;
        Guards::greeted(socket).map_err(failed)
    }

    fn launched(charge: Charge<'_>) -> Result<OwnedFd> {
        let failed = |e: io::Error| Error::os("start the guard of the job", e);
        let (ours, theirs) = pair().map_err(failed)?;
        let owner = identity::pidfd_open(std::process::id()).map_err(|e| failed(e.into()))?;
        let mut fds = vec![theirs.as_raw_fd(), owner.as_raw_fd()];
        fds.extend(charge.cgroups.map(|(dir, _)| dir.as_raw_fd()));
        launch(&fds, &charge.words()).map_err(failed)?;
        Ok(ours)
    }

    /// The pair of another process, which can be asked through this socket.
    pub(super) fn of_another(ids: [ProcessId; 2], socket: OwnedFd) -> Guards {
        let [inner, outer] =
            ids.map(|id| Process { pid: id.pid as i32, pidfd: identity::reopen(&id).ok() });
        Guards { socket, inner, outer, finished: AtomicBool::new(false) }
    }

    /// Who they are: the inner one first.
    pub(super) fn ids(&self) -> [ProcessId; 2] {
        let proc = Proc::open().ok();
        [&self.inner, &self.outer].map(|guard| match &guard.pidfd {
            Some(pidfd) => identity::of_pidfd(guard.pid as u32, pidfd.as_fd(), proc.as_ref()),
            None => ProcessId { pid: guard.pid as u32, start: 0, boot: 0, inode: 0 },
        })
    }

    /// The number of the one that starts what is asked for.
    pub(super) fn inner(&self) -> u32 {
        self.inner.pid as u32
    }

    /// Lets other processes ask through this datagram socket.
    pub(super) fn listen(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.wake();
        let request = Message::new(message::LISTEN);
        Ok(message::send(self.socket.as_raw_fd(), &request, &[socket.as_raw_fd()])?)
    }

    fn greeted(socket: OwnedFd) -> io::Result<Guards> {
        let (hello, mut fds) = receive(socket.as_fd())?
            .ok_or_else(|| io::Error::other("it was killed before it could greet"))?;
        if hello.kind != message::HELLO || hello.errno != 0 {
            return Err(io::Error::from_raw_os_error(hello.errno));
        }
        let [inner, outer] = hello.numbers.map(|pid| pid as i32);
        match (fds.pop(), fds.pop()) {
            (Some(outer_fd), Some(inner_fd)) => Ok(Guards {
                socket,
                inner: Process { pid: inner, pidfd: Some(inner_fd) },
                outer: Process { pid: outer, pidfd: Some(outer_fd) },
                finished: AtomicBool::new(false),
            }),
            _ => Err(io::Error::other("its greeting carried no pidfds")),
        }
    }

    /// Those that live.
    pub(super) fn living(&self) -> Vec<ProcessId> {
        let both = self.ids().into_iter().zip([&self.inner, &self.outer]);
        both.filter(|(_, guard)| !guard.is_dead()).map(|(id, _)| id).collect()
    }

    /// Whether at least one of them is there to finish when we are gone.
    pub(super) fn stand(&self) -> bool {
        !(self.inner.is_dead() && self.outer.is_dead())
    }

    /// The guard that everybody it started comes back to: the inner one, or the outer one once that
    /// is dead.
    pub(super) fn root(&self) -> Option<(i32, BorrowedFd<'_>)> {
        let guards = [&self.inner, &self.outer];
        let root = guards.into_iter().find(|guard| !guard.is_dead())?;
        Some((root.pid, root.pidfd.as_ref()?.as_fd()))
    }

    /// Whether the inner guard can still be asked for anything.
    pub(super) fn answer(&self) -> bool {
        !self.inner.is_dead()
    }

    /// Sends a request; the first of its descriptors is added here.
    pub(super) fn request(&self, request: &Message, fds: &[i32]) -> io::Result<Reply> {
        let (ours, theirs) = pair()?;
        let mut all = vec![theirs.as_raw_fd()];
        all.extend(fds);
        if all.len() > MAX_FDS {
            return Err(io::Error::new(
                io::ErrorKind::ArgumentListTooLong,
                format!("more than {} descriptors to inherit", MAX_FDS - 6),
            ));
        }
        self.wake();
        message::send(self.socket.as_raw_fd(), request, &all)?;
        Ok(Reply(ours))
    }

    /// A request that is answered by one `DONE`.
    pub(super) fn ask(&self, kind: u32) -> io::Result<[u64; 2]> {
        let reply = self.request(&Message::new(kind), &[])?;
        match self.receive(&reply)? {
            Some((done, _)) => Ok(done.numbers),
            None => Err(io::Error::other("the guard was killed")),
        }
    }

    /// The next answer to a request; `None` if there will be none.
    pub(super) fn receive(&self, reply: &Reply) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        receive(reply.0.as_fd())
    }

    /// A member can stop the whole process group; that must not hang us.
    fn wake(&self) {
        let _ = call::pidfd_send_signal(self.inner.raw(), SIGCONT);
    }

    /// Has this cgroup of this job ended without any descriptor of ours.
    pub(super) fn end_cgroup(&self, job: u32, number: u32) {
        self.wake();
        let mut request = Message::new(message::END_CGROUP);
        request.numbers = [u64::from(job), u64::from(number)];
        let _ = message::send(self.socket.as_raw_fd(), &request, &[]);
    }

    /// Tells them to end everything, or to leave, and waits until both have.
    pub(super) fn dismiss(&self, kind: u32, patience: Duration) -> bool {
        self.wake();
        let _ = message::send(self.socket.as_raw_fd(), &Message::new(kind), &[]);
        self.wait_gone(Some(Instant::now() + patience))
    }

    /// Waits until both have ended.
    pub(super) fn wait_gone(&self, deadline: Option<Instant>) -> bool {
        for guard in [&self.inner, &self.outer] {
            while !guard.is_dead() {
                if super::is_past(deadline) {
                    return false;
                }
                wait_for(&mut [PollFd::new(guard.raw(), POLLIN)], deadline);
            }
        }
        true
    }

    /// Whether they ended because nobody was left, rather than by being killed. Both are gone.
    pub(super) fn had_finished(&self) -> bool {
        // Whatever is queued there now was sent before they died; the last word counts.
        while call::poll(&mut [PollFd::new(self.socket.as_raw_fd(), POLLIN)], 0) == 1 {
            match receive(self.socket.as_fd()) {
                Ok(Some((last, _))) => {
                    self.finished.store(last.kind == message::DONE, Ordering::Relaxed);
                }
                _ => break,
            }
        }
        self.finished.load(Ordering::Relaxed)
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut fds = [-1; MAX_FDS];
    let received = loop {
        match message::receive(socket.as_raw_fd(), &mut fds) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    Ok(received.map(|(message, count)| {
        // SAFETY: descriptors that just arrived are ours alone.
        let own = |raw: &i32| unsafe { OwnedFd::from_raw_fd(*raw) };
        (message, fds.iter().take(count).map(own).collect())
    }))
}

/// Starts the outer guard with these descriptors as its first ones.
///
/// It becomes nobody's child: an intermediate process starts it and ends. So a `waitpid(-1)` of the
/// owner never meets it, and since the intermediate one has no exit signal, no `SIGCHLD` tells of
/// it either.
fn launch(fds: &[i32], words: &[CString; 4]) -> io::Result<()> {
    match launch_program(fds, words) {
        // No memory files, or none that may be executed (vm.memfd_noexec, a security module).
        Err(Errno::NOSYS | Errno::ACCES | Errno::PERM | Errno::NOEXEC) => {
            Ok(launch_fork(fds, words)?)
        }
        answer => Ok(answer?),
    }
}

/// What the two processes on the way to the guard program need. They share our memory.
struct Launch<'a> {
    program: i32,
    fds: &'a [i32],
    argv: [*const u8; 6],
    inner_stack: *mut u8,
    errno: AtomicI32,
}

const STACK: usize = 32 * 1024;

fn launch_program(fds: &[i32], words: &[CString; 4]) -> std::result::Result<(), Errno> {
    let mut stack = Stack::new(2 * STACK)?;
    let launch = Launch {
        program: program()?,
        fds,
        argv: [
            guard::NAME.as_ptr().cast(),
            words[0].as_ptr().cast(),
            words[1].as_ptr().cast(),
            words[2].as_ptr().cast(),
            words[3].as_ptr().cast(),
            ptr::null(),
        ],
        inner_stack: stack.top(STACK),
        errno: AtomicI32::new(0),
    };
    let mut pidfd = -1;
    let flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD;
    let all_blocked = Blocked::new();
    // SAFETY: a fresh stack, and `launch` outlives the child, since CLONE_VFORK suspends us until
    // it has ended.
    unsafe {
        let args = clone_args(flags, 0, stack.top(2 * STACK), &mut pidfd);
        raw::clone_to(nr::CLONE, args, intermediate, (&raw const launch).cast_mut().cast())?;
    }
    drop(all_blocked);
    reap_intermediate(pidfd);
    match launch.errno.load(Ordering::Acquire) {
        0 => Ok(()),
        errno => Err(Errno(errno)),
    }
}

fn reap_intermediate(pidfd: i32) {
    let pidfd = call::Fd(pidfd);
    let _ = call::reap(pidfd.raw(), true);
}

/// The arguments of the old `clone` call, which no seccomp filter refuses.
pub(super) fn clone_args(
    flags: u64,
    exit_signal: i32,
    stack: *mut u8,
    pidfd: &mut i32,
) -> [usize; 5] {
    [(flags | exit_signal as u64) as usize, stack as usize, &raw mut *pidfd as usize, 0, 0]
}

unsafe extern "C" fn intermediate(data: *mut u8) -> ! {
    // SAFETY: `launch_program` passes a `Launch`, and waits.
    let launch = unsafe { &*data.cast::<Launch<'_>>() };
    let mut unused = -1;
    let args = clone_args(CLONE_VM | CLONE_VFORK, SIGCHLD, launch.inner_stack, &mut unused);
    // SAFETY: the other half of the stack is fresh, and we wait like our parent does.
    if let Err(errno) = unsafe { raw::clone_to(nr::CLONE, args, become_program, data) } {
        launch.errno.store(errno.0, Ordering::Release);
    }
    call::exit(0)
}

unsafe extern "C" fn become_program(data: *mut u8) -> ! {
    // SAFETY: as in `intermediate`.
    let launch = unsafe { &*data.cast::<Launch<'_>>() };
    let executed = place(launch.fds, launch.program).and_then(|program| {
        let envp = [ptr::null::<u8>()];
        let (argv, envp) = (launch.argv.as_ptr() as usize, envp.as_ptr() as usize);
        let empty = c"".as_ptr() as usize;
        // SAFETY: an open program, and lists of strings that end with a null.
        unsafe {
            raw::syscall(
                nr::EXECVEAT,
                [program as usize, empty, argv, envp, call::AT_EMPTY_PATH, 0],
            )
        }
    });
    if let Err(errno) = executed {
        launch.errno.store(errno.0, Ordering::Release);
    }
    call::exit(127)
}

/// Puts the descriptors at 0, 1, …; answers where `keep` went, out of their way.
fn place(fds: &[i32], keep: i32) -> std::result::Result<i32, Errno> {
    const CLEAR: i32 = 10;
    let mut moved = [-1; 3];
    for (slot, fd) in moved.iter_mut().zip(fds) {
        *slot = call::dup_above(*fd, CLEAR)?;
    }
    let keep = if keep < 0 { keep } else { call::dup_above(keep, CLEAR)? };
    for (number, from) in moved.iter().take(fds.len()).enumerate() {
        call::dup_to(*from, number as i32, 0)?;
    }
    Ok(keep)
}

/// Without an executable memory file: the guards are forked copies of this process that run the
/// same code. They pin the memory this process has now.
fn launch_fork(fds: &[i32], words: &[CString; 4]) -> std::result::Result<(), Errno> {
    static mut MEMORY: Memory = Memory::NEW;
    let memory = &raw mut MEMORY;
    let mut pidfd = -1;
    let args = clone_args(CLONE_PIDFD, 0, ptr::null_mut(), &mut pidfd);
    let all_blocked = Blocked::new();
    let [flags, stack, pidfd_at, ..] = args;
    // SAFETY: no memory is shared, and the children go on in the floor only; each has a copy of
    // MEMORY of its own, which this process itself never uses.
    unsafe {
        if raw::syscall(nr::CLONE, [flags, stack, pidfd_at, 0, 0, 0])? == 0 {
            if let Ok(None) = call::fork(SIGCHLD) {
                let _ = place(fds, -1);
                guard::run(Task::new(words.each_ref().map(AsRef::<CStr>::as_ref)), &mut *memory);
            }
            call::exit(0);
        }
    }
    drop(all_blocked);
    reap_intermediate(pidfd);
    Ok(())
}

/// The program in a memory file, made once.
fn program() -> std::result::Result<i32, Errno> {
    use rustix::fs::{MemfdFlags, memfd_create};
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    if PROGRAM.is_empty() {
        return Err(Errno::NOSYS);
    }
    if let Some(file) = FILE.get() {
        return Ok(file.as_raw_fd());
    }
    let errno = |e: rustix::io::Errno| Errno(e.raw_os_error());
    // MFD_EXEC is unknown before Linux 6.3.
    let file = memfd_create(guard::NAME, MemfdFlags::CLOEXEC | MemfdFlags::EXEC)
        .or_else(|_| memfd_create(guard::NAME, MemfdFlags::CLOEXEC))
        .map_err(errno)?;
    let mut rest = PROGRAM;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest).map_err(errno)?;
        rest = rest.get(written..).unwrap_or(&[]);
    }
    Ok(FILE.get_or_init(|| file).as_raw_fd())
}

/// All signals blocked for this thread: a handler must not run in a child that shares our memory.
pub(super) struct Blocked(u64);

impl Blocked {
    pub(super) fn new() -> Blocked {
        Blocked(call::set_mask(u64::MAX))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        call::set_mask(self.0);
    }
}

/// Memory for the stacks of children that share ours.
pub(super) struct Stack(Vec<MaybeUninit<u128>>);

impl Stack {
    pub(super) fn new(size: usize) -> std::result::Result<Stack, Errno> {
        let mut words = Vec::new();
        words.try_reserve_exact(size / 16).map_err(|_| Errno::NOMEM)?;
        // SAFETY: that much is reserved, and whatever is there will do.
        unsafe { words.set_len(size / 16) };
        Ok(Stack(words))
    }

    /// The end of its first `size` bytes, where a stack of that size begins.
    pub(super) fn top(&mut self, size: usize) -> *mut u8 {
        self.0.as_mut_ptr().cast::<u8>().wrapping_add(size)
    }
}
