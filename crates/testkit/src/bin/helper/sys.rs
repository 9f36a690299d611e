//! System calls that the scenarios need and std does not provide.

use std::{
    fs::{self, File},
    io, mem,
    path::Path,
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
    thread,
    time::Duration,
};

use rustix::process;

use crate::lifetime_limit;

pub(crate) type Pid = i32;

/// Pid 0 is a parent outside this PID namespace.
pub(crate) fn parent() -> Pid {
    process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get())
}

pub(crate) fn open_to_append(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().create(true).append(true).open(path)
}

/// The session, groups and parent of the calling process.
pub(crate) fn place() -> String {
    // SAFETY: take no pointer.
    let (sid, pgid) = unsafe { (libc::getsid(0), libc::getpgid(0)) };
    format!("ppid={} sid={sid} pgid={pgid}", parent())
}

pub(crate) fn pid() -> Pid {
    process::getpid().as_raw_nonzero().get()
}

/// Forks a process that runs `child` and exits.
pub(crate) fn fork(child: impl FnOnce()) -> Pid {
    try_fork(child).unwrap_or_else(|error| panic!("failed to fork: {error}"))
}

pub(crate) fn try_fork(child: impl FnOnce()) -> std::io::Result<Pid> {
    // SAFETY: the helper forks only while it has a single thread, so the copy may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()),
        0 => {
            lifetime_limit::apply(lifetime_limit::LIFETIME_SECONDS);
            child();
            exit(0)
        }
        pid => Ok(pid),
    }
}

/// A child of the caller's parent.
pub(crate) fn fork_sibling(child: impl FnOnce()) {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: with neither CLONE_VM nor a new stack this is fork(2) with another parent, made by
    // the only thread of this process.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => panic!("failed to clone a sibling: {}", std::io::Error::last_os_error()),
        0 => {
            lifetime_limit::apply(lifetime_limit::LIFETIME_SECONDS);
            child();
            exit(0)
        }
        _ => {}
    }
}

/// Runs `child` as `vfork` does: in the memory of the caller, which is blocked until it has ended.
pub(crate) fn vfork(child: fn()) {
    static CHILD: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
    extern "C" fn enter(_: *mut libc::c_void) -> libc::c_int {
        lifetime_limit::apply(lifetime_limit::LIFETIME_SECONDS);
        // SAFETY: stored below from a `fn()` before this runs.
        let child: fn() = unsafe { mem::transmute(CHILD.load(Ordering::Relaxed)) };
        child();
        exit(0)
    }
    CHILD.store(child as *mut (), Ordering::Relaxed);
    let mut stack = vec![0u128; 1 << 16];
    // SAFETY: the stack has no other user, is aligned, and outlives the child, because CLONE_VFORK
    // blocks the caller until it has ended; the only other thread in this memory is the blocked one.
    let pid = unsafe {
        let top = stack.as_mut_ptr_range().end.cast();
        libc::clone(enter, top, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, ptr::null_mut())
    };
    assert!(pid > 0, "failed to vfork: {}", std::io::Error::last_os_error());
}

/// Exits at once: the exit handlers of a forked copy belong to its original.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Ends the calling thread only, also if it is the leader.
pub(crate) fn exit_thread() -> ! {
    // SAFETY: the raw call runs no destructor and frees nothing the other threads use.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("SYS_exit returned")
}

pub(crate) fn wait(child: Pid) {
    // SAFETY: a null status is allowed.
    unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
}

pub(crate) fn rest() -> ! {
    loop {
        thread::sleep(Duration::from_secs(1000));
    }
}

pub(crate) fn leave_session() {
    process::setsid().expect("a forked child leads no group");
}

pub(crate) fn ignore(signals: &[i32]) {
    for signal in signals {
        // SAFETY: ignoring a signal installs no code.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// Blocks `signal`, to be taken with [`take`].
pub(crate) fn block(signal: i32) {
    // SAFETY: the set is a local, initialised by sigemptyset before use.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut());
    }
}

/// Waits until the blocked `signal` arrives.
pub(crate) fn take(signal: i32) {
    // SAFETY: as in `block`; sigwait writes to a local.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        let mut taken = 0;
        while libc::sigwait(&set, &mut taken) != 0 || taken != signal {}
    }
}

/// Seizes `tracee` and holds it in a ptrace stop.
pub(crate) fn trace(tracee: Pid) -> std::io::Result<()> {
    // SAFETY: neither request reads or writes memory of this process.
    let held = unsafe {
        let null = ptr::null_mut::<libc::c_void>();
        libc::ptrace(libc::PTRACE_SEIZE, tracee, null, null) == 0
            && libc::ptrace(libc::PTRACE_INTERRUPT, tracee, null, null) == 0
            && libc::waitpid(tracee, ptr::null_mut(), libc::__WALL) == tracee
    };
    if held { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Lets any process of the same user trace this one; Yama would refuse a non-ancestor.
pub(crate) fn allow_tracers() {
    // SAFETY: takes no pointer; without Yama it is EINVAL and not needed.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
}
