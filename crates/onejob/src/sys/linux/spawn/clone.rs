//! The system calls that create a local child.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    sync::atomic::Ordering,
};

use rustix::pipe::{PipeFlags, pipe_with};

use super::{
    method::{CloneMethod, SpawnAttempt},
    request::{ExecBuffer, read_report},
};
use crate::{
    command::PreExec,
    sys::linux::{
        guard::launch::{Blocked, Stack},
        nostd::{
            exec::{self, ExecRequest},
            syscall::{
                self, CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CLONE_PIDFD, CLONE_VFORK, CLONE_VM,
                CloneArgs, Errno, SIGCHLD, SIGKILL,
                raw::{self, nr},
            },
        },
    },
};

/// A pid and its pidfd.
pub(super) type Started = (u32, OwnedFd);

/// The `pre_exec` steps of a command.
pub(super) struct Hooks(Vec<PreExec>);

impl Hooks {
    pub(super) fn new(steps: Vec<PreExec>) -> Hooks {
        Hooks(steps)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_steps(self) -> Vec<PreExec> {
        self.0
    }
}

unsafe extern "C" fn run_hooks(data: *mut u8) -> i32 {
    // SAFETY: `spawn_fork` passes its hooks, of which this child has a copy.
    let hooks = unsafe { &mut *data.cast::<Hooks>() };
    for step in &mut hooks.0 {
        if let Err(error) = step() {
            return error.raw_os_error().unwrap_or(Errno::INVAL.0);
        }
    }
    0
}

/// A child that shares the memory of this process, which is suspended meanwhile: the time does not grow
/// with the memory.
pub(super) fn spawn_vfork(
    mut buffer: ExecBuffer,
    method: CloneMethod,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<SpawnAttempt<Started>> {
    const STACK: usize = 64 * 1024;
    let mut stack = Stack::new(STACK)?;
    let data = buffer.as_mut_ptr();
    // SAFETY: a whole record that stays in place until the end of this function.
    unsafe { ExecRequest::relocate(data) };
    let mut pidfd = -1;
    let flags = CLONE_PIDFD | CLONE_VM | CLONE_VFORK;
    let all_blocked = Blocked::new();
    let cloned = match method {
        CloneMethod::IntoCgroup => {
            let args = CloneArgs {
                stack: stack.top(0) as u64,
                stack_size: STACK as u64,
                ..clone_into(flags, cgroup, &mut pidfd)
            };
            let (at, size) = (&raw const args as usize, size_of::<CloneArgs>());
            // SAFETY: a fresh stack; the record outlives the child's use of it, since CLONE_VFORK
            // suspends this thread until the child has executed its program or ended.
            unsafe { raw::clone_to(raw::CLONE3, [at, size, 0, 0, 0], exec::start, data) }
        }
        CloneMethod::ThenJoin => {
            // SAFETY: a fresh stack and, with CLONE_VFORK, a record that outlives the child's use of it.
            // Signal handlers stay set in the child, which resets them before it unblocks signals.
            unsafe {
                let args = syscall::clone_args(flags, SIGCHLD, stack.top(STACK), &mut pidfd);
                raw::clone_to(nr::CLONE, args, exec::start, data)
            }
        }
    };
    drop(all_blocked);
    let pid = match cloned {
        Ok(pid) => pid as u32,
        Err(errno) if method.is_refused_by(errno) => return Ok(SpawnAttempt::Refused),
        Err(errno) => return Err(errno.into()),
    };
    // SAFETY: clone has just made this descriptor, and nothing else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let (stage, errno) = buffer.outcome();
    Ok(classify(pid, pidfd, stage, errno))
}

/// A child with a copy of this process' memory: for `pre_exec` steps, which must not change the memory of
/// the parent, and for a cgroup that is killed as a unit.
pub(super) fn spawn_fork(
    mut buffer: ExecBuffer,
    method: CloneMethod,
    cgroup: Option<BorrowedFd<'_>>,
    hooks: &mut Hooks,
) -> io::Result<SpawnAttempt<Started>> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let request = buffer.request();
    request.report.store(writer.as_raw_fd(), Ordering::Relaxed);
    request.hook = run_hooks as *const () as u64;
    request.hook_data = &raw mut *hooks as u64;
    let data = buffer.as_mut_ptr();
    // SAFETY: a whole record, relocated once.
    let request = unsafe { ExecRequest::relocate(data) };
    let mut pidfd = -1;
    let all_blocked = Blocked::new();
    let cloned = match method {
        CloneMethod::IntoCgroup => {
            let args = clone_into(CLONE_PIDFD, cgroup, &mut pidfd);
            // SAFETY: no memory is shared, and the child runs `nostd` code only, except for the
            // `pre_exec` steps, which their author has declared async-signal-safe.
            unsafe { syscall::clone3(&args) }.map(|pid| {
                pid.map(|pid| {
                    // SAFETY: in the parent the kernel has written a new descriptor.
                    (pid, unsafe { syscall::OwnedFd::from_raw(pidfd) })
                })
            })
        }
        // SAFETY: no memory is shared; the child runs `nostd` code and the `pre_exec` steps only.
        CloneMethod::ThenJoin => unsafe { syscall::fork(SIGCHLD) },
    };
    match cloned {
        Ok(Some((pid, pidfd))) => {
            drop(all_blocked);
            drop(writer);
            // SAFETY: clone has just made this descriptor, and nothing else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd.into_raw()) };
            let (stage, errno) = read_report(reader.as_fd(), |_| ())?;
            Ok(classify(pid as u32, pidfd, stage, errno))
        }
        // SAFETY: this is the child, with a copy of the relocated record.
        Ok(None) => unsafe { request.run() },
        Err(errno) if method.is_refused_by(errno) => Ok(SpawnAttempt::Refused),
        Err(errno) => Err(errno.into()),
    }
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

impl CloneMethod {
    /// Whether a seccomp filter, or a kernel without the call, returns this error.
    fn is_refused_by(self, errno: Errno) -> bool {
        let refusals = [Errno::NOSYS, Errno::PERM, Errno::INVAL, Errno::OPNOTSUPP];
        self == CloneMethod::IntoCgroup && refusals.contains(&errno)
    }
}

/// The outcome of a child whose last report was this; stage 0 is no report at all.
fn classify(pid: u32, pidfd: OwnedFd, stage: u32, errno: i32) -> SpawnAttempt<Started> {
    match (stage, errno) {
        (0, _) => match syscall::reap(pidfd.as_raw_fd(), true) {
            Ok(Some(ended)) if ended.wait_status() == SIGKILL => SpawnAttempt::Refused,
            _ => SpawnAttempt::Failed(0, Errno::CHILD.0),
        },
        (_, 0) => SpawnAttempt::Started((pid, pidfd)),
        (stage, errno) => {
            let _ = syscall::reap(pidfd.as_raw_fd(), true);
            SpawnAttempt::Failed(stage, errno)
        }
    }
}
