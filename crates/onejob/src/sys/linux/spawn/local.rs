//! Starting a child of this process.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::{
    attributes::Changed,
    clone::{self, Hooks},
    join::open_procs,
    method::{CloneMethod, SpawnAttempt, spawn_by},
    request::{ExecBuffer, SpawnContext},
    stdio::StdioPipes,
};
use crate::{
    Command, Error, Result,
    sys::linux::{
        nostd::syscall,
        process::{child::ChildProcess, dropped_children},
    },
};

/// The memory that a child uses until it executes its program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildMemory {
    /// That of its parent, which is suspended.
    Shared,
    /// A copy of its own. Where a cgroup is killed as a unit when it runs out of memory, the kernel also
    /// kills every process that shares the memory of a member, and that is this one.
    Copied,
}

/// Starts a child of this process: in `cgroup` from its creation, or in the cgroup of this process.
pub(crate) fn spawn_local(
    command: &mut Command,
    cgroup: Option<BorrowedFd<'_>>,
    memory: ChildMemory,
) -> Result<crate::Child> {
    dropped_children::reap();
    let pipes = StdioPipes::new(command)?;
    let mut hooks = Hooks::new(std::mem::take(&mut command.unix.pre_exec));
    let started = spawn_by(command, |method| {
        attempt(command, &pipes, &mut hooks, memory, method, cgroup)
            .map_err(|e| Error::os(format!("start a process for {:?}", command.program), e))
    });
    command.unix.pre_exec = hooks.into_steps();
    let (pid, pidfd) = started?;
    let StdioPipes { stdin, stdout, stderr, .. } = pipes;
    Ok(crate::Child::new(ChildProcess::of_caller(pid, pidfd), stdin, stdout, stderr))
}

fn attempt(
    command: &Command,
    pipes: &StdioPipes,
    hooks: &mut Hooks,
    memory: ChildMemory,
    method: CloneMethod,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<SpawnAttempt<clone::Started>> {
    let context = SpawnContext {
        descriptors: pipes.mappings(),
        limits: Vec::new(),
        umask: -1,
        cwd_fd: -1,
        process_group: None,
        // The old call cannot reset signal handlers, so the child does, and needs the set to ignore.
        ignored: (method == CloneMethod::ThenJoin).then(ignored_signals),
        attributes: Changed::default(),
    };
    let mut buffer = ExecBuffer::new(command, &context);
    let procs;
    if let (CloneMethod::ThenJoin, Some(cgroup)) = (method, cgroup) {
        procs = open_procs(cgroup)?;
        buffer.request().join = procs.as_raw_fd();
    }
    match memory {
        ChildMemory::Shared if hooks.is_empty() => clone::spawn_vfork(buffer, method, cgroup),
        _ => clone::spawn_fork(buffer, method, cgroup, hooks),
    }
}

/// The signals that a child would start with as ignored: all that this process ignores, except
/// `SIGPIPE`.
fn ignored_signals() -> u64 {
    let ignored =
        (1..=64).filter(|signal| *signal != syscall::SIGPIPE && syscall::is_ignored(*signal));
    ignored.fold(0, |set, signal| set | 1 << (signal - 1))
}
