//! Starting a child of a guard.
//!
//! The child is a member because everything below the guard is, or because the guard creates it in the
//! cgroup of the job, which this process may not write to. It gets the attributes that a child of this
//! process would have.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use rustix::{
    fs::{MemfdFlags, Mode, OFlags, memfd_create},
    pipe::{PipeFlags, pipe_with},
};

use super::{
    baseline::GuardBaseline,
    credentials::{Inherited, resource_limits},
    failure::failure,
    join::open_procs,
    method::{CloneMethod, SpawnAttempt, spawn_by},
    request::{ExecBuffer, SpawnContext, read_report},
    stdio::StdioPipes,
};
use crate::{
    Command, Error, Result,
    sys::linux::{
        guard::client::{self, Guards, Reply},
        nostd::{
            exec::{MAX_SIZE, Mapping, Stage},
            guard::{rlimit, spawn},
            procfs,
            protocol::{self, MAX_FDS, Message},
            syscall::{self, Errno},
        },
        process::{
            caller_limits::{allows_descriptor, check_file_size},
            child::ChildProcess,
        },
        registry::version::guard_failed,
    },
};

/// Starts members by the inner guard of a job.
pub(crate) struct GuardSpawner<'a> {
    pub(crate) guards: &'a Guards,
    pub(crate) baseline: &'a GuardBaseline,
    /// Whether the job is another process', whose guards can be in another session.
    pub(crate) is_view: bool,
}

/// What a request carries besides its record.
struct Carried {
    /// The descriptors that the record counts from 0.
    fds: Vec<RawFd>,
    /// Kept open until the request is sent.
    _open: Vec<OwnedFd>,
    /// One more than the index of the cgroup's directory in `fds`, or 0.
    cgroup: u64,
}

impl GuardSpawner<'_> {
    /// Starts a member; with a cgroup, in it.
    pub(crate) fn spawn(
        &self,
        command: &Command,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<crate::Child> {
        if !self.guards.may_be_serving() {
            let killed = Error::unsupported(
                "cannot start a process in the job: the guard that starts its members was killed",
            )
            .with_hint("create a new job");
            // Guards that could not start have the better reason.
            return Err(self.guards.start_error_or(killed));
        }
        if !command.unix.pre_exec.is_empty() {
            return Err(Error::unsupported("pre_exec steps cannot run in a child of the guard")
                .with_hint("use the cgroup mechanism"));
        }
        let inherited = self.baseline.check(self.guards, self.is_view)?;
        spawn_by(command, |method| self.attempt(command, &inherited, method, cgroup))
    }

    fn attempt(
        &self,
        command: &Command,
        inherited: &Inherited,
        method: CloneMethod,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> Result<SpawnAttempt<crate::Child>> {
        let failed = |e| request_failed(command, e);
        let pipes = StdioPipes::new(command)?;
        let mappings = inherited_descriptors(&pipes).map_err(failed)?;
        let cwd = rustix::fs::open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::os("open the current directory", e))?;
        let mut buffer = ExecBuffer::new(command, &self.context(inherited, &mappings));
        let carried = carry(&mut buffer, &mappings, cwd, method, cgroup).map_err(failed)?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let no_answer = |e| self.guards.start_error_or(failed(e));
        let reply = self.send(command, &buffer, &carried, &writer)?;
        drop(writer);
        // The report ends at the execve, and the guard has answered by then: this thread sleeps once.
        let report =
            read_report(reader.as_fd(), |reader| self.guards.wait_for(reader)).map_err(failed)?;
        let (answer, mut pidfds) = reply
            .receive()
            .and_then(|answer| answer.ok_or_else(|| io::Error::other("the guard was killed")))
            .map_err(no_answer)?;
        let pidfd = match (answer.kind, pidfds.pop()) {
            (protocol::STARTED, Some(pidfd)) => pidfd,
            _ => return Err(failed(io::Error::from_raw_os_error(answer.errno))),
        };
        let (stage, errno) = report;
        if errno != 0 || (stage == 0 && cgroup.is_some()) {
            // The guard's next message means that it has reaped the child.
            let _ = self.guards.receive(&reply.0);
        }
        match report {
            (0, _) if cgroup.is_some() => Ok(SpawnAttempt::Refused),
            (_, 0) => {
                let (pid, guards) = (answer.numbers[0] as u32, self.guards.pair());
                let child = ChildProcess::of_guard(pid, pidfd, reply.0, guards, cgroup.is_none());
                let StdioPipes { stdin, stdout, stderr, .. } = pipes;
                Ok(SpawnAttempt::Started(crate::Child::new(child, stdin, stdout, stderr)))
            }
            (stage, errno) => {
                let too_high = mappings.iter().map(|m| m.to).find(|to| !allows_descriptor(*to));
                match too_high.filter(|_| stage == Stage::Descriptors as u32) {
                    Some(number) => Err(descriptor_too_high(command, number)),
                    None => Ok(SpawnAttempt::Failed(stage, errno)),
                }
            }
        }
    }

    fn context(&self, inherited: &Inherited, mappings: &[Mapping]) -> SpawnContext {
        let numbered = mappings.iter().enumerate();
        let mut limits = resource_limits(0);
        // The guard has raised some of its own limits.
        limits.retain(|limit| rlimit::is_raised(limit) || !self.baseline.limits.contains(limit));
        SpawnContext {
            descriptors: numbered.map(|(i, m)| Mapping { from: i as i32, to: m.to }).collect(),
            limits,
            umask: inherited.umask,
            cwd_fd: mappings.len() as i32,
            process_group: inherited.group,
            ignored: Some(inherited.ignored & !(1 << (syscall::SIGPIPE - 1))),
            attributes: inherited.attributes.clone(),
        }
    }

    /// Sends the request: the record in the message, or in a memory file if it is large.
    fn send(
        &self,
        command: &Command,
        buffer: &ExecBuffer,
        carried: &Carried,
        report: &OwnedFd,
    ) -> Result<Reply> {
        let failed = |e| request_failed(command, e);
        let mut request = Message::new(protocol::SPAWN);
        request.numbers[1] = carried.cgroup;
        let mut fds = vec![report.as_fd()];
        let mut bytes = buffer.bytes();
        let file;
        if bytes.len() > MAX_SIZE {
            return Err(failure(command, Stage::Exec as u32, Errno::TOOBIG.0));
        }
        if bytes.len() > spawn::MAX_INLINE {
            file = memory_file(bytes).map_err(failed)?;
            fds.push(file.as_fd());
            request.numbers[0] = bytes.len() as u64;
            bytes = &[];
        }
        let parcel;
        // One more for the reply's socket.
        if 1 + fds.len() + carried.fds.len() > MAX_FDS {
            parcel = pack(&carried.borrow()).map_err(failed)?;
            fds.push(parcel.as_fd());
            request.more = carried.fds.len() as u32;
        } else {
            fds.extend(carried.borrow());
        }
        self.guards
            .request(&request, bytes, &fds)
            .map_err(|e| self.guards.start_error_or(failed(e)))
    }
}

impl Carried {
    fn borrow(&self) -> Vec<BorrowedFd<'_>> {
        // SAFETY: `_open` holds them open, or the caller of `carry` does until the request is sent.
        self.fds.iter().map(|raw| unsafe { BorrowedFd::borrow_raw(*raw) }).collect()
    }
}

/// Collects the descriptors of a request: those to inherit, the directory, then the files of the cgroup.
fn carry(
    buffer: &mut ExecBuffer,
    mappings: &[Mapping],
    cwd: OwnedFd,
    method: CloneMethod,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Carried> {
    let mut fds: Vec<RawFd> = mappings.iter().map(|mapping| mapping.from).collect();
    fds.push(cwd.as_raw_fd());
    let mut carried = Carried { fds, _open: vec![cwd], cgroup: 0 };
    if let Some(dir) = cgroup {
        let procs = open_procs(dir)?;
        buffer.request().join = carried.fds.len() as i32;
        carried.fds.extend([procs.as_raw_fd(), dir.as_raw_fd()]);
        carried._open.push(procs);
        if method == CloneMethod::IntoCgroup {
            carried.cgroup = carried.fds.len() as u64;
        }
    }
    // The kernel kills a child before its first instruction only in a cgroup.
    buffer.request().report_start = u32::from(cgroup.is_some());
    Ok(carried)
}

fn request_failed(command: &Command, error: io::Error) -> Error {
    guard_failed(format!("have the guard start a process for {:?}", command.program), error)
}

fn descriptor_too_high(command: &Command, number: RawFd) -> Error {
    Error::os(
        format!("pass descriptor {number} on to {:?}", command.program),
        io::Error::from(Errno::MFILE),
    )
}

/// A socket that holds these descriptors, in as many messages as necessary.
fn pack(fds: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let too_many = || {
        let most = format!("more than {} descriptors to inherit", spawn::MAX_MORE_FDS);
        io::Error::new(io::ErrorKind::ArgumentListTooLong, most)
    };
    if fds.len() > spawn::MAX_MORE_FDS {
        return Err(too_many());
    }
    let (sender, receiver) = client::socket_pair()?;
    for some in fds.chunks(MAX_FDS) {
        let some: Vec<_> = some.iter().map(|fd| (*fd).into()).collect();
        protocol::reply(&sender, &Message::new(protocol::MORE), &some)
            .map_err(|errno| if errno == Errno::AGAIN { too_many() } else { errno.into() })?;
    }
    Ok(receiver)
}

/// The descriptors that a child of this process would inherit: the standard streams of the command, and
/// every descriptor without the close-on-exec flag.
fn inherited_descriptors(pipes: &StdioPipes) -> io::Result<Vec<Mapping>> {
    let mut all = pipes.mappings();
    let streams = all.len();
    let dir = syscall::openat(-1, c"/proc/self/fd", syscall::O_DIRECTORY)?;
    procfs::entries(&dir, &mut |name, _| {
        let fd = procfs::number(name.to_bytes()).map_or(-1, |fd| fd as RawFd);
        if fd < 0 || all.iter().take(streams).any(|mapping| mapping.to == fd) {
            return;
        }
        // SAFETY: only the flags are read; if another thread has closed the descriptor, that fails.
        let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) });
        if flags.is_ok_and(|flags| !flags.contains(rustix::io::FdFlags::CLOEXEC)) {
            all.push(Mapping { from: fd, to: fd });
        }
    })?;
    Ok(all)
}

fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    const NAME: &std::ffi::CStr = c"onejob-request";
    let file = memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create(NAME, MemfdFlags::CLOEXEC))?;
    check_file_size(bytes.len() as u64)?;
    syscall::write_all(file.as_raw_fd(), bytes)?;
    Ok(file)
}
