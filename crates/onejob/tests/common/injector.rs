//! Makes one system call of a thread fail: the first, the second and so on.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::mpsc,
    thread,
};

/// The calls that can fail: those that read files, processes and sockets.
const CALLS: &[(libc::c_long, &str)] = &[
    (libc::SYS_openat, "openat"),
    (libc::SYS_openat2, "openat2"),
    (libc::SYS_read, "read"),
    (libc::SYS_pread64, "pread64"),
    (libc::SYS_getdents64, "getdents64"),
    (libc::SYS_pidfd_open, "pidfd_open"),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
    (libc::SYS_newfstatat, "newfstatat"),
    (libc::SYS_fstat, "fstat"),
    (libc::SYS_fstatfs, "fstatfs"),
    (libc::SYS_statx, "statx"),
    (libc::SYS_lseek, "lseek"),
    (libc::SYS_readlinkat, "readlinkat"),
    (libc::SYS_faccessat, "faccessat"),
    (libc::SYS_faccessat2, "faccessat2"),
    (libc::SYS_fgetxattr, "fgetxattr"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_socketpair, "socketpair"),
    (libc::SYS_socket, "socket"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_inotify_init1, "inotify_init1"),
    (libc::SYS_inotify_add_watch, "inotify_add_watch"),
    (libc::SYS_flock, "flock"),
    (libc::SYS_fcntl, "fcntl"),
    (libc::SYS_unlinkat, "unlinkat"),
];

/// The result of one run.
pub struct Run<T> {
    pub result: T,
    /// The number of calls that can fail.
    pub calls: usize,
    /// The call that failed.
    pub failed: Option<&'static str>,
}

/// Runs `act` in a new thread in which the call with this index fails with `errno`.
pub fn run<T: Send>(index: usize, errno: i32, act: impl FnOnce() -> T + Send) -> Run<T> {
    let (send, listeners) = mpsc::channel();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            send.send(install()).expect("the supervisor waits");
            act()
        });
        let listener = listeners.recv().expect("a listener");
        let (mut calls, mut failed) = (0, None);
        while let Some(reported) = next(&listener) {
            let fails = calls == index;
            if fails {
                let named =
                    CALLS.iter().find(|(call, _)| *call == libc::c_long::from(reported.data.nr));
                failed = named.map(|(_, name)| *name);
            }
            answer(&listener, &reported, fails.then_some(errno));
            calls += 1;
        }
        Run { result: thread.join().expect("no panic"), calls, failed }
    })
}

/// Installs the filter for the calling thread. Returns the descriptor at which its calls are reported.
fn install() -> OwnedFd {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first field of seccomp_data.
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (call, _) in CALLS {
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *call as u32));
        filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    }
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    const FILTER: libc::c_uint = libc::SECCOMP_SET_MODE_FILTER;
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // SAFETY: program and filter live through the call, which copies them; the answer is a descriptor
    // that nothing else owns.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let listener = libc::syscall(libc::SYS_seccomp, FILTER, flags, &raw const program);
        assert!(listener >= 0, "failed to install a filter: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(listener as i32)
    }
}

/// Waits for the next call; `None` when the thread has ended.
fn next(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    loop {
        let mut fds = [libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: one entry, a local.
        unsafe { libc::poll(fds.as_mut_ptr(), 1, -1) };
        if fds[0].revents & libc::POLLIN == 0 {
            return None;
        }
        // SAFETY: a struct of numbers, which must be zero; the kernel writes it.
        unsafe {
            let mut reported: libc::seccomp_notif = std::mem::zeroed();
            let request = libc::SECCOMP_IOCTL_NOTIF_RECV;
            if libc::ioctl(listener.as_raw_fd(), request, &raw mut reported) == 0 {
                return Some(reported);
            }
        }
    }
}

fn answer(listener: &OwnedFd, reported: &libc::seccomp_notif, errno: Option<i32>) {
    let mut answer = libc::seccomp_notif_resp {
        id: reported.id,
        val: 0,
        error: -errno.unwrap_or(0),
        flags: match errno {
            Some(_) => 0,
            None => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        },
    };
    // SAFETY: the kernel reads one of these.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
}
