//! Being the process that orphans come back to.

use std::{io, mem, path::Path};

use onejob::Signal;

/// The programs that a copy of ours, or a link to it, can be called as.
const STANDS_IN_FOR: [&str; 4] = ["tini", "tini-static", "dumb-init", "timeout"];

/// The name of another program by which we were called.
pub(crate) fn called_as() -> Option<&'static str> {
    let name = super::args().next()?;
    let name = Path::new(&name).file_name()?;
    STANDS_IN_FOR.into_iter().find(|known| *known == name)
}

/// Why there is no init here.
pub(crate) fn why_no_init() -> Option<&'static str> {
    None
}

/// Whether we are the first process of our PID namespace.
pub(crate) fn is_first() -> bool {
    std::process::id() == 1
}

/// From now on orphans below us come back to us, and not to an init above.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Reaps every child that has ended but CMD, whose status is learnt otherwise.
pub(crate) fn reap_orphans(cmd: u32, mut reaped: impl FnMut(u32)) {
    let look = libc::WEXITED | libc::WNOHANG;
    while let Some(pid) = ended(libc::P_ALL, 0, look | libc::WNOWAIT) {
        // Whoever stands behind it is met after its status was taken.
        if pid == cmd || ended(libc::P_PID, pid, look).is_none() {
            return;
        }
        reaped(pid);
    }
}

/// A child that has ended.
fn ended(which: libc::idtype_t, id: u32, options: i32) -> Option<u32> {
    // SAFETY: a zeroed siginfo is valid, and it is live; the pid of one that was not filled in is 0.
    let (result, pid) = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let result = libc::waitid(which, id, &mut info, options);
        (result, info.si_pid())
    };
    (result == 0 && pid > 0).then_some(pid.cast_unsigned())
}

/// Has the kernel send us this signal when our parent ends.
pub(crate) fn die_with_parent(signal: Signal) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: a request that takes a number.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.as_raw()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let _ = signal;
    Ok(())
}
