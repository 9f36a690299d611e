//! Waiting for children (`waitid(2)`).

use super::{
    errno::{Result, retry_eintr},
    fd::AsFd,
    raw::{nr, syscall},
};

/// `siginfo_t` of a child that has changed its state.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExitedChild {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    pub(crate) pid: i32,
    uid: u32,
    status: i32,
    rest: [i32; 25],
}

const _: () = assert!(size_of::<ExitedChild>() == 128);

impl ExitedChild {
    /// The status in the encoding of `wait(2)`.
    pub(crate) fn wait_status(&self) -> i32 {
        const CLD_EXITED: i32 = 1;
        const CLD_DUMPED: i32 = 3;
        match self.code {
            CLD_EXITED => (self.status & 0xff) << 8,
            CLD_DUMPED => self.status | 0x80,
            _ => self.status,
        }
    }
}

const P_ALL: usize = 0;
const P_PIDFD: usize = 3;
const WNOHANG: usize = 1;
const WSTOPPED: usize = 2;
const WEXITED: usize = 4;
/// Without it the kernel ignores children whose exit signal is not `SIGCHLD`.
const WALL: usize = 0x4000_0000;

fn waitid(kind: usize, id: usize, options: usize) -> Result<Option<ExitedChild>> {
    let mut child = ExitedChild::default();
    let at = &raw mut child as usize;
    // SAFETY: the kernel writes one siginfo, which has 128 bytes.
    retry_eintr(|| unsafe { syscall(nr::WAITID, [kind, id, at, options, 0, 0]) })?;
    Ok((child.pid != 0).then_some(child))
}

/// Reaps one dead child: `None` if all children live, `Errno::CHILD` if there are no children.
pub(crate) fn reap_any() -> Result<Option<ExitedChild>> {
    waitid(P_ALL, 0, WEXITED | WNOHANG)
}

/// Whether a child was stopped since the last call.
pub(crate) fn was_stopped(pidfd: impl AsFd) -> bool {
    let stopped = waitid(P_PIDFD, pidfd.as_fd().arg(), WSTOPPED | WNOHANG);
    stopped.is_ok_and(|child| child.is_some())
}

/// Reaps one child, also one without an exit signal: `None` if it lives and the call does not `block`.
pub(crate) fn reap(pidfd: impl AsFd, block: bool) -> Result<Option<ExitedChild>> {
    let options = WEXITED | WALL | if block { 0 } else { WNOHANG };
    waitid(P_PIDFD, pidfd.as_fd().arg(), options)
}

/// Microseconds of user and system time of all reaped children, and of the children that these have reaped.
pub(crate) fn children_cpu_time() -> [u64; 2] {
    const RUSAGE_CHILDREN: usize = usize::MAX;
    // `struct rusage`: two timevals and 14 numbers.
    let mut usage = [0_u64; 18];
    let at = usage.as_mut_ptr() as usize;
    // SAFETY: the kernel writes one rusage, which has 18 words.
    let _ = unsafe { syscall(nr::GETRUSAGE, [RUSAGE_CHILDREN, at, 0, 0, 0, 0]) };
    let micros = |seconds: u64, micros: u64| seconds.wrapping_mul(1_000_000).wrapping_add(micros);
    [micros(usage[0], usage[1]), micros(usage[2], usage[3])]
}
