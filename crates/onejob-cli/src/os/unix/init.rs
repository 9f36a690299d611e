//! The duties of an init.

use std::{io, mem};

use onejob::Signal;

/// Whether onejob can replace tini, dumb-init and timeout.
pub(crate) const HAS_DROPINS: bool = true;

/// Why `onejob init` is not available on this system.
pub(crate) fn why_no_init() -> Option<&'static str> {
    None
}

/// Whether this process is PID 1 of its PID namespace.
pub(crate) fn is_pid_1() -> bool {
    std::process::id() == 1
}

/// Makes this process a child subreaper: orphaned descendants are re-parented to it.
pub(crate) fn become_subreaper() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Reaps every child that has exited, except CMD: [`Child::wait`] reads its status.
///
/// [`Child::wait`]: onejob::Child::wait
pub(crate) fn reap_orphans(cmd: u32, mut reaped: impl FnMut(u32)) {
    let look = libc::WEXITED | libc::WNOHANG;
    while let Some(pid) = exited_child(libc::P_ALL, 0, look | libc::WNOWAIT) {
        // Further zombies are reaped after CMD has been.
        if pid == cmd || exited_child(libc::P_PID, pid, look).is_none() {
            return;
        }
        reaped(pid);
    }
}

/// The pid of a child that has exited, by waitid(2).
fn exited_child(which: libc::idtype_t, id: u32, options: i32) -> Option<u32> {
    // SAFETY: an all-zero siginfo_t is valid, and it lives through the call. If no child was found, its
    // pid stays 0.
    let (result, pid) = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let result = libc::waitid(which, id, &mut info, options);
        (result, info.si_pid())
    };
    (result == 0 && pid > 0).then_some(pid.cast_unsigned())
}

/// Makes the kernel send this signal to this process when its parent exits.
pub(crate) fn set_parent_death_signal(signal: Signal) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: PR_SET_PDEATHSIG takes a number and touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.as_raw()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let _ = signal;
    Ok(())
}
