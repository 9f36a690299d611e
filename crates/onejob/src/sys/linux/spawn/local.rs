//! Making the child: here, or by asking a guard.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use rustix::{
    fs::{MemfdFlags, Mode, OFlags, memfd_create},
    pipe::{PipeFlags, pipe_with},
};

use super::{
    attributes::Changed,
    request::{ExecBuffer, SpawnContext, StdioPipes, failure},
};
use crate::{
    Command, Error, Result,
    command::PreExec,
    sys::linux::{
        guard::{
            client::{self, Guards},
            launch::{Blocked, Stack},
        },
        nostd::{
            exec::{self, ExecRequest, Limit, Mapping, Stage, request},
            guard::{rlimit, spawn},
            procfs,
            protocol::{self, MAX_FDS, Message},
            syscall::{
                self, CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CLONE_PIDFD, CLONE_VFORK, CLONE_VM,
                CloneArgs, Errno, SIGCHLD, SIGKILL,
                raw::{self, nr},
            },
        },
        process::{
            caller_limits::{allows_descriptor, check_file_size},
            child::Child,
            dropped_children,
        },
        registry::version::guard_failed,
    },
};

/// How a child is made.
#[derive(Clone, Copy)]
enum CloneMethod<'a> {
    /// `clone3`, in this cgroup from birth if there is one.
    IntoCgroup(Option<BorrowedFd<'a>>),
    /// The old `clone`, and the child joins the cgroup of this `cgroup.procs` before anything else.
    ThenJoin(Option<BorrowedFd<'a>>),
}

/// Whose memory a child has until it executes its program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Ours, while we are suspended.
    Shared,
    /// A copy of its own. Where a cgroup is ended as one when it runs out of memory, the kernel also
    /// kills whoever shares the memory of one of its members: us.
    Copied,
}

/// What came of an attempt to make a child.
enum SpawnAttempt {
    Started(u32, OwnedFd),
    /// It failed at this stage, with this error, and is gone.
    Failed(u32, i32),
    /// The kernel killed it at birth, or refuses this way of making it: try the other.
    Refused,
}

/// Starts a child of this process, inside `cgroup` from birth, or else where this process is. Until
/// it executes its program it has our memory if it may, or a copy.
pub(crate) fn local(
    command: &mut Command,
    cgroup: Option<BorrowedFd<'_>>,
    memory: Memory,
) -> Result<crate::Child> {
    dropped_children::reap();
    let wiring = StdioPipes::new(command)?;
    let hooks = &mut Hooks { steps: std::mem::take(&mut command.unix.pre_exec), memory };
    let attempt =
        make(command, &wiring, hooks, CloneMethod::IntoCgroup(cgroup)).and_then(|attempt| {
            match (attempt, cgroup) {
                (SpawnAttempt::Refused, None) => {
                    make(command, &wiring, hooks, CloneMethod::ThenJoin(None))
                }
                (SpawnAttempt::Refused, Some(cgroup)) => {
                    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                    let procs = rustix::fs::openat(cgroup, "cgroup.procs", flags, Mode::empty())?;
                    make(command, &wiring, hooks, CloneMethod::ThenJoin(Some(procs.as_fd())))
                }
                (attempt, _) => Ok(attempt),
            }
        });
    command.unix.pre_exec = std::mem::take(&mut hooks.steps);
    let failed = |e: io::Error| Error::os(format!("start a process for {:?}", command.program), e);
    match attempt.map_err(failed)? {
        SpawnAttempt::Started(pid, pidfd) => {
            let StdioPipes { stdin, stdout, stderr, .. } = wiring;
            Ok(crate::Child::new(Child::ours(pid, pidfd), stdin, stdout, stderr))
        }
        SpawnAttempt::Failed(stage, errno) => Err(failure(command, stage, errno)),
        SpawnAttempt::Refused => {
            Err(failed(io::Error::other("the kernel killed it at birth, twice")))
        }
    }
}

fn make(
    command: &Command,
    wiring: &StdioPipes,
    hooks: &mut Hooks,
    way: CloneMethod<'_>,
) -> io::Result<SpawnAttempt> {
    let setting = SpawnContext {
        descriptors: wiring.mappings(),
        limits: Vec::new(),
        umask: -1,
        cwd_fd: -1,
        process_group: None,
        // The old call cannot reset our handlers, so the child does, and must know what to ignore.
        ignored: matches!(way, CloneMethod::ThenJoin(_)).then(ignored_signals),
        attributes: Changed::default(),
    };
    let mut record = ExecBuffer::new(command, &setting);
    if let CloneMethod::ThenJoin(Some(procs)) = way {
        record.request().join = procs.as_raw_fd();
    }
    match hooks.memory {
        Memory::Shared if hooks.steps.is_empty() => spawn_vfork(record, way),
        _ => spawn_fork(record, way, hooks),
    }
}

/// Has a std command join a cgroup between `fork` and `exec`.
pub(crate) fn join_on_exec(
    command: &mut std::process::Command,
    cgroup: BorrowedFd<'_>,
) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let procs = rustix::fs::openat(cgroup, "cgroup.procs", flags, Mode::empty())
        .map_err(|e| Error::os("open the cgroup of the job", e))?;
    let join = move || Ok(syscall::write(procs.as_raw_fd(), b"0").map(drop)?);
    // SAFETY: one write, which is async-signal-safe.
    unsafe { command.pre_exec(join) };
    Ok(())
}

/// A child that shares our memory while we are suspended: as fast with 4 GB as with 4 MB.
fn spawn_vfork(mut record: ExecBuffer, way: CloneMethod<'_>) -> io::Result<SpawnAttempt> {
    const STACK: usize = 64 * 1024;
    let mut stack = Stack::new(STACK)?;
    let data = record.as_mut_ptr();
    // SAFETY: a whole record that stays in place until the end of this function.
    unsafe { ExecRequest::relocate(data) };
    let mut pidfd = -1;
    let flags = CLONE_PIDFD | CLONE_VM | CLONE_VFORK;
    let all_blocked = Blocked::new();
    let cloned = match way {
        CloneMethod::IntoCgroup(cgroup) => {
            let args = CloneArgs {
                stack: stack.top(0) as u64,
                stack_size: STACK as u64,
                ..clone_into(flags, cgroup, &mut pidfd)
            };
            let (at, size) = (&raw const args as usize, size_of::<CloneArgs>());
            // SAFETY: a fresh stack; the record outlives the child's use of it, since CLONE_VFORK
            // suspends us until it has executed its program or ended.
            unsafe { raw::clone_to(raw::CLONE3, [at, size, 0, 0, 0], exec::start, data) }
        }
        CloneMethod::ThenJoin(_) => {
            // SAFETY: as above. Handlers of ours stay set in the child, which resets them before it
            // unblocks signals.
            unsafe {
                let args = syscall::clone_args(flags, SIGCHLD, stack.top(STACK), &mut pidfd);
                raw::clone_to(nr::CLONE, args, exec::start, data)
            }
        }
    };
    drop(all_blocked);
    let pid = match cloned {
        Ok(pid) => pid as u32,
        Err(errno) if way.is_refused_by(errno) => return Ok(SpawnAttempt::Refused),
        Err(errno) => return Err(errno.into()),
    };
    // SAFETY: a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let (stage, errno) = record.outcome();
    Ok(classify(pid, pidfd, stage, errno))
}

fn clone_into(flags: u64, cgroup: Option<BorrowedFd<'_>>, pidfd: &mut i32) -> CloneArgs {
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    CloneArgs {
        flags: flags | into | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut *pidfd as u64,
        exit_signal: SIGCHLD as u64,
        cgroup: cgroup.map_or(0, |cgroup| cgroup.as_raw_fd() as u64),
        ..CloneArgs::default()
    }
}

impl CloneMethod<'_> {
    /// Whether the error is that of a seccomp filter, or of a kernel without the call.
    fn is_refused_by(self, errno: Errno) -> bool {
        let refusals = [Errno::NOSYS, Errno::PERM, Errno::INVAL, Errno::OPNOTSUPP];
        matches!(self, CloneMethod::IntoCgroup(_)) && refusals.contains(&errno)
    }
}

/// What became of a child that reported this last.
fn classify(pid: u32, pidfd: OwnedFd, stage: u32, errno: i32) -> SpawnAttempt {
    match (stage, errno) {
        (0, _) => match syscall::reap(pidfd.as_raw_fd(), true) {
            // Killed before its first instruction: kernels up to 6.18 do so when the caller's
            // cgroup and the target have seen different numbers of kills.
            Ok(Some(ended)) if ended.wait_status() == SIGKILL => SpawnAttempt::Refused,
            _ => SpawnAttempt::Failed(0, Errno::CHILD.0),
        },
        (_, 0) => SpawnAttempt::Started(pid, pidfd),
        (stage, errno) => {
            let _ = syscall::reap(pidfd.as_raw_fd(), true);
            SpawnAttempt::Failed(stage, errno)
        }
    }
}

/// The caller's own steps, and the memory for them.
struct Hooks {
    steps: Vec<PreExec>,
    memory: Memory,
}

unsafe extern "C" fn run_hooks(data: *mut u8) -> i32 {
    // SAFETY: `copy` passes its hooks, of which this child has a copy.
    let hooks = unsafe { &mut *data.cast::<Hooks>() };
    for step in &mut hooks.steps {
        if let Err(error) = step() {
            return error.raw_os_error().unwrap_or(Errno::INVAL.0);
        }
    }
    0
}

/// A child with a copy of our memory, for steps that must not change ours, or to share no end with it.
fn spawn_fork(
    mut record: ExecBuffer,
    way: CloneMethod<'_>,
    hooks: &mut Hooks,
) -> io::Result<SpawnAttempt> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let plan = record.request();
    plan.report.store(writer.as_raw_fd(), std::sync::atomic::Ordering::Relaxed);
    plan.hook = run_hooks as *const () as u64;
    plan.hook_data = &raw mut *hooks as u64;
    let data = record.as_mut_ptr();
    // SAFETY: a whole record, relocated once.
    let plan = unsafe { ExecRequest::relocate(data) };
    let mut pidfd = -1;
    let all_blocked = Blocked::new();
    let cloned = match way {
        CloneMethod::IntoCgroup(cgroup) => {
            let args = clone_into(CLONE_PIDFD, cgroup, &mut pidfd);
            // SAFETY: no memory is shared, and the child runs `nostd` code only, except for the
            // `pre_exec` steps, whose author has promised that they are async-signal-safe.
            unsafe { syscall::clone3(&args) }.map(|pid| pid.map(|pid| (pid, syscall::Fd(pidfd))))
        }
        // SAFETY: as above.
        CloneMethod::ThenJoin(_) => unsafe { syscall::fork(SIGCHLD) },
    };
    match cloned {
        Ok(Some((pid, pidfd))) => {
            drop(all_blocked);
            drop(writer);
            // SAFETY: a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd.into_raw()) };
            let (stage, errno) = read_report(reader.as_fd(), |_| ())?;
            Ok(classify(pid as u32, pidfd, stage, errno))
        }
        // SAFETY: the child, on its relocated record.
        Ok(None) => unsafe { plan.run() },
        Err(errno) if way.is_refused_by(errno) => Ok(SpawnAttempt::Refused),
        Err(errno) => Err(errno.into()),
    }
}

/// The last of the reports on a pipe that a child's `execve` closes.
fn read_report(
    reader: BorrowedFd<'_>,
    wait_for: impl Fn(BorrowedFd<'_>),
) -> io::Result<(u32, i32)> {
    let mut last = (0, 0);
    let mut report = [0; 8];
    loop {
        wait_for(reader);
        match syscall::read(reader.as_raw_fd(), &mut report) {
            Ok(8) => {
                let both = u64::from_ne_bytes(report);
                last = ((both >> 32) as u32, both as u32 as i32);
            }
            Ok(_) => return Ok(last),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What a child of ours would have from us, and the guard's would not.
pub(crate) struct Inherited {
    pub(crate) umask: i32,
    /// 0 for a group of its own.
    pub(crate) group: Option<i32>,
    /// The signals we ignore, 1 being the lowest bit.
    pub(crate) ignored: u64,
    /// Where it would be scheduled otherwise, or its memory treated otherwise.
    pub(crate) attributes: Changed,
}

/// Starts a child of the guard. It is inside because everything below the guard is, or in the cgroup
/// of the job, where we may not put it. It gets our umask, and our limits where they are not the
/// guard's.
pub(crate) fn remote(
    command: &Command,
    guards: &Guards,
    ours: &Inherited,
    guards_limits: &[Limit],
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<crate::Child> {
    let ask = |is_born_inside| {
        remote_once(command, guards, ours, guards_limits, cgroup.map(|dir| (dir, is_born_inside)))
    };
    match ask(true)? {
        Some(child) => Ok(child),
        // See `judge`.
        None if cgroup.is_some() => ask(false)?.ok_or_else(killed_on_entry),
        None => Err(killed_on_entry()),
    }
}

fn killed_on_entry() -> Error {
    Error::os("ask the guard to start a process", io::Error::other("it was killed at birth"))
}

/// `None` if it was killed before its first instruction. With a cgroup: in it from birth, or joining
/// by itself.
fn remote_once(
    command: &Command,
    guards: &Guards,
    ours: &Inherited,
    guards_limits: &[Limit],
    cgroup: Option<(BorrowedFd<'_>, bool)>,
) -> Result<Option<crate::Child>> {
    if !command.unix.pre_exec.is_empty() {
        return Err(Error::unsupported("pre_exec steps cannot run in a child of the guard")
            .with_hint("they need the cgroup mechanism"));
    }
    let failed = |e: io::Error| {
        guard_failed(format!("ask the guard to start a process for {:?}", command.program), e)
    };
    let wiring = StdioPipes::new(command)?;
    let inherited = inherited(&wiring).map_err(failed)?;
    let cwd = rustix::fs::open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::os("open the current directory", e))?;
    // Counted from the first descriptor after the three every request has.
    let mut own: Vec<RawFd> = inherited.iter().map(|mapping| mapping.from).collect();
    own.push(cwd.as_raw_fd());
    let numbered = inherited.iter().enumerate();
    let mut limits = limits();
    // The guard has raised its own, where it needs more.
    limits.retain(|limit| rlimit::is_raised(limit) || !guards_limits.contains(limit));
    let setting = SpawnContext {
        descriptors: numbered.map(|(i, m)| Mapping { from: i as i32, to: m.to }).collect(),
        limits,
        umask: ours.umask,
        cwd_fd: inherited.len() as i32,
        process_group: ours.group,
        ignored: Some(ours.ignored & !(1 << (syscall::SIGPIPE - 1))),
        attributes: ours.attributes.clone(),
    };
    let mut record = ExecBuffer::new(command, &setting);
    let mut request = Message::new(protocol::SPAWN);
    let procs;
    if let Some((dir, is_born_inside)) = cgroup {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        procs = rustix::fs::openat(dir, "cgroup.procs", flags, Mode::empty())
            .map_err(|e| failed(e.into()))?;
        record.request().join = own.len() as i32;
        own.extend([procs.as_raw_fd(), dir.as_raw_fd()]);
        request.numbers[1] = if is_born_inside { own.len() as u64 } else { 0 };
    }
    // Only a cgroup kills at birth.
    record.request().report_start = u32::from(cgroup.is_some());
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut fds = vec![writer.as_raw_fd()];
    let mut bytes = record.bytes();
    let file;
    if bytes.len() > request::MAX {
        return Err(failure(command, Stage::Exec as u32, Errno::TOOBIG.0));
    }
    if bytes.len() > spawn::MAX_INLINE {
        file = memory_file(bytes).map_err(failed)?;
        fds.push(file.as_raw_fd());
        request.numbers[0] = bytes.len() as u64;
        bytes = &[];
    }
    let parcel;
    // The first is the reply's.
    if 1 + fds.len() + own.len() > MAX_FDS {
        parcel = packed(&own).map_err(failed)?;
        fds.push(parcel.as_raw_fd());
        request.more = own.len() as u32;
    } else {
        fds.extend(own);
    }
    let silent = |e| guards.start_error_or(failed(e));
    let reply = guards.request(&request, bytes, &fds).map_err(silent)?;
    drop(writer);
    // The report ends when the program is executed, and the answer is there by then: we sleep once.
    let report = read_report(reader.as_fd(), |reader| guards.wait_for(reader)).map_err(failed)?;
    let (answer, mut pidfds) = reply
        .receive()
        .and_then(|answer| answer.ok_or_else(|| io::Error::other("the guard was killed")))
        .map_err(silent)?;
    let pidfd = match (answer.kind, pidfds.pop()) {
        (protocol::STARTED, Some(pidfd)) => pidfd,
        _ => return Err(failed(io::Error::from_raw_os_error(answer.errno))),
    };
    match report {
        (0, _) if cgroup.is_some() => {
            let _ = guards.receive(&reply.0);
            Ok(None)
        }
        (_, 0) => {
            let StdioPipes { stdin, stdout, stderr, .. } = wiring;
            let child = Child::from_guard(
                answer.numbers[0] as u32,
                pidfd,
                reply.0,
                guards.pair(),
                cgroup.is_none(),
            );
            Ok(Some(crate::Child::new(child, stdin, stdout, stderr)))
        }
        (stage, errno) => {
            // Gone when we return: a failed spawn leaves nobody behind.
            let _ = guards.receive(&reply.0);
            let too_high = inherited.iter().map(|m| m.to).find(|to| !allows_descriptor(*to));
            match too_high.filter(|_| stage == Stage::Descriptors as u32) {
                Some(number) => Err(failed_above_limit(command, number)),
                None => Err(failure(command, stage, errno)),
            }
        }
    }
}

/// A socket that holds these descriptors, in as many messages as it takes.
fn packed(fds: &[RawFd]) -> io::Result<OwnedFd> {
    let too_many = || {
        let most = format!("more than {} descriptors to inherit", spawn::MANY);
        io::Error::new(io::ErrorKind::ArgumentListTooLong, most)
    };
    if fds.len() > spawn::MANY {
        return Err(too_many());
    }
    let (ours, theirs) = client::pair()?;
    for some in fds.chunks(MAX_FDS) {
        protocol::answer(ours.as_raw_fd(), &Message::new(protocol::MORE), some)
            .map_err(|errno| if errno == Errno::AGAIN { too_many() } else { errno.into() })?;
    }
    Ok(theirs)
}

fn failed_above_limit(command: &Command, number: RawFd) -> Error {
    Error::os(
        format!("pass descriptor {number} on to {:?}", command.program),
        io::Error::from(Errno::MFILE),
    )
}

/// What a child of ours would inherit: the standard streams as wired, and every descriptor that is
/// not closed on exec.
fn inherited(wiring: &StdioPipes) -> io::Result<Vec<Mapping>> {
    let mut all = wiring.mappings();
    let wired = all.len();
    let dir = syscall::openat(-1, c"/proc/self/fd", syscall::O_DIRECTORY)?;
    procfs::entries(&dir, &mut |name, _| {
        let fd = procfs::number(name.to_bytes()).map_or(-1, |fd| fd as RawFd);
        if fd < 0 || all.iter().take(wired).any(|mapping| mapping.to == fd) {
            return;
        }
        // SAFETY: only asked for its flags; if it was closed meanwhile, that fails.
        let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) });
        if flags.is_ok_and(|flags| !flags.contains(rustix::io::FdFlags::CLOEXEC)) {
            all.push(Mapping { from: fd, to: fd });
        }
    })?;
    Ok(all)
}

/// This process' own limits.
pub(crate) fn limits() -> Vec<Limit> {
    limits_of(0)
}

/// The limits of a process, 0 being this one; those that can be read.
pub(crate) fn limits_of(pid: i32) -> Vec<Limit> {
    let read = |resource| {
        let values = rlimit::get(pid, resource).ok()?;
        Some(Limit { resource, values })
    };
    (0..16).filter_map(read).collect()
}

/// What a child would start with ignored: all that this process ignores, but `SIGPIPE`.
fn ignored_signals() -> u64 {
    let ignored =
        (1..=64).filter(|signal| *signal != syscall::SIGPIPE && syscall::is_ignored(*signal));
    ignored.fold(0, |set, signal| set | 1 << (signal - 1))
}

fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd_create(c"onejob-plan", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create(c"onejob-plan", MemfdFlags::CLOEXEC))?;
    check_file_size(bytes.len() as u64)?;
    syscall::write_all(file.as_raw_fd(), bytes)?;
    Ok(file)
}
