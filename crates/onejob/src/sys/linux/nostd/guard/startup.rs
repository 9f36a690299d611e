//! The start of both guards.

use super::{
    super::{
        protocol::{self, Message},
        syscall::{
            self, BorrowedFd, Errno, PR_SET_CHILD_SUBREAPER, PR_SET_NAME, Result, SIGCHLD,
            close_from, exit, getpid, pidfd_open, set_cloexec,
        },
    },
    ending::ABORTED,
    hello::{send_error_later, send_hello},
    memory::Memory,
    scope, session,
    state::Guard,
    task::{BASE, Cgroups, GuardTask, NAME, OwnerFds},
};

/// Runs as the outer guard, and in a child as the inner one.
///
/// # Safety
/// The process must have one thread. Its descriptors 0 and 1 must be the socket to the owner and a pidfd of the
/// owner; with a prefix, 2 must be the directory of the owner's cgroups. Nothing else may own or use a
/// descriptor.
pub(crate) unsafe fn run(task: GuardTask<'_>, memory: &mut Memory) -> ! {
    let first_unused = if task.has_cgroups() { BASE + 1 } else { BASE };
    // SAFETY: the caller guarantees that nothing uses the other descriptors.
    unsafe { close_from(first_unused) };
    // SAFETY: the caller guarantees that these are the descriptors 0 and 1, and no code of a guard closes them.
    let owner = unsafe { OwnerFds::new() };
    prepare(owner);
    let cgroups = match cgroups(&task, owner) {
        Ok(cgroups) => cgroups,
        Err(errno) => abort(owner.socket, errno),
    };
    if let Err(errno) = syscall::prctl(PR_SET_CHILD_SUBREAPER, 1)
        && cgroups.is_none()
    {
        // A member that loses its parent would leave the job.
        abort(owner.socket, errno);
    }
    let sigchld = syscall::signalfd(1 << (SIGCHLD - 1));
    // The inner guard inherits this. Without it the inner guard cannot continue a stopped outer guard.
    let outer_pid = getpid();
    let outer = pidfd_open(outer_pid).ok();
    // SAFETY: this process has one thread.
    let forked = sigchld.as_ref().map_err(|e| *e).and_then(|_| unsafe { syscall::fork(SIGCHLD) });
    let sigchld = sigchld.ok();
    let inner = match forked {
        Ok(None) => {
            start_inner(Guard::new(memory, task, owner, cgroups, sigchld, outer), outer_pid)
        }
        Ok(Some(inner)) => Ok(inner),
        Err(errno) => Err(errno),
    };
    // The outer guard can end cgroups alone, and members may already be there if the owner made the cgroups.
    // For any other job there must be an inner guard.
    let may_serve_alone = cgroups.is_some() && task.bus.is_empty();
    if let Err(errno) = inner
        && !may_serve_alone
    {
        abort(owner.socket, errno);
    }
    session::leave(inner.as_ref().ok().map(|(_, pidfd)| pidfd));
    drop(outer);
    let sent = send_hello(owner.socket, &inner);
    let (inner_pid, other) = inner.map_or((None, None), |(pid, pidfd)| (Some(pid), Some(pidfd)));
    let mut guard = Guard::new(memory, task, owner, cgroups, sigchld, other);
    match sent {
        Ok(()) => {}
        Err(errno) if may_serve_alone => send_error_later(owner, errno),
        // The owner is dead, or sees that this guard exits.
        Err(_) => guard.finish(),
    }
    guard.run_outer(inner_pid)
}

/// Makes the process insensitive to signals and independent of a directory.
fn prepare(owner: OwnerFds) {
    syscall::set_mask(u64::MAX);
    // If SIGCHLD is ignored, the kernel reaps children itself. A process can inherit that.
    syscall::set_disposition(SIGCHLD, false);
    let _ = syscall::prctl(PR_SET_NAME, NAME.as_ptr() as usize);
    let _ = set_cloexec(owner.socket, true);
    let _ = set_cloexec(owner.pidfd, true);
    let _ = syscall::chdir(c"/");
}

/// The cgroups of the owner. If there is a bus, this first has the process moved into a scope.
fn cgroups<'a>(task: &GuardTask<'a>, owner: OwnerFds) -> Result<Option<Cgroups<'a>>> {
    if !task.has_cgroups() {
        return Ok(None);
    }
    let prefix = task.prefix.to_bytes();
    if !task.bus.is_empty() {
        let base = scope::enter(owner, task.bus, prefix)?;
        // SAFETY: nothing has borrowed the old base, and nothing owns this number.
        unsafe { syscall::dup_to(base, BASE) }?;
    }
    // SAFETY: `run` requires that this is an open descriptor, and no code of a guard closes it from here on.
    let base = unsafe { BorrowedFd::borrow_raw(BASE) };
    let _ = set_cloexec(base, true);
    Ok(Some(Cgroups { base, prefix }))
}

/// The inner guard stays in the session, and joins the group of its owner before its first child.
fn start_inner(mut guard: Guard<'_>, outer_pid: i32) -> ! {
    guard.outer_pid = Some(outer_pid);
    // A child does not inherit this. The outer guard has checked that it is permitted.
    let _ = syscall::prctl(PR_SET_CHILD_SUBREAPER, 1);
    guard.memory.slots.set_copy_memory(!syscall::is_release(5, 16));
    if guard.cgroups.is_none() {
        // The first request will be a `SPAWN`, and until it comes there is time.
        guard.set_default_dispositions();
    }
    guard.run_inner()
}

/// Reports to the owner that the guards cannot start, and exits.
pub(super) fn abort(socket: BorrowedFd<'_>, errno: Errno) -> ! {
    let _ = protocol::send(socket, &Message::error(protocol::HELLO, errno), &[]);
    exit(ABORTED)
}

/// [`abort`] before [`run`].
///
/// # Safety
/// The descriptor 0 must be the socket to the owner.
pub(crate) unsafe fn abort_before_run(errno: Errno) -> ! {
    // SAFETY: the caller guarantees that the descriptor is open.
    abort(unsafe { BorrowedFd::borrow_raw(0) }, errno)
}
