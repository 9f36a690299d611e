//! A seccomp filter with user notification, and the supervisor process for it.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::sys;

/// One instruction of a filter.
pub(crate) fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Loads a word of the call's description: its number is at 0, its arguments begin at 16.
pub(crate) fn load(offset: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

/// Goes on if that is `value`, and skips `otherwise` instructions if not.
pub(crate) fn equal(value: u32, otherwise: u8) -> libc::sock_filter {
    step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, otherwise, value)
}

/// Installs the filter, with a supervisor that has no parent in the scenario. A call that the filter
/// reports to it fails with the error that `error` returns, if any.
pub(crate) fn supervised(
    filter: &[libc::sock_filter],
    error: impl FnMut(&libc::seccomp_notif) -> Option<i32>,
) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .expect("a pair of sockets");
    let intermediate = sys::fork(|| {
        sys::fork(|| {
            sys::leave_session();
            // SAFETY: it is not used any more in this copy, which never returns from here. Should the
            // caller be killed before it has sent the filter's descriptor, that is the end.
            unsafe { libc::close(ours.as_raw_fd()) };
            if let Some(listener) = receive(theirs.as_fd()) {
                supervise(error, &listener);
            }
        });
    });
    sys::wait(intermediate);
    // The call that sends the descriptor must not wait for an answer of the supervisor.
    let mut first = vec![
        load(0),
        equal(libc::SYS_sendmsg as u32, 3),
        load(16),
        equal(ours.as_raw_fd() as u32, 1),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        load(0),
    ];
    first.extend(filter);
    let raw = install(&first, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: with this flag the result is a new descriptor, which this process owns.
    let listener = unsafe { OwnedFd::from_raw_fd(raw as i32) };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let passed = [listener.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&passed)));
    sendmsg(ours, &[IoSlice::new(b"!")], &mut ancillary, SendFlags::empty())
        .expect("the supervisor listens");
}

fn receive(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::empty()).ok()?;
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

fn supervise(mut error: impl FnMut(&libc::seccomp_notif) -> Option<i32>, listener: &OwnedFd) {
    // A reader of the output of PROGRAM waits for the end of PROGRAM, not of this process.
    let nowhere = File::options().read(true).write(true).open("/dev/null").expect("/dev/null");
    for number in 0..2 {
        // SAFETY: the standard streams are not used any more here.
        unsafe { libc::dup2(nowhere.as_raw_fd(), number) };
    }
    loop {
        let mut fds = [libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: one entry, which is a local.
        unsafe { libc::poll(fds.as_mut_ptr(), 1, -1) };
        if fds[0].revents & libc::POLLIN != 0 {
            answer(&mut error, listener);
        } else if fds[0].revents != 0 {
            // No process is left below the filter.
            return;
        }
    }
}

/// Answers one call; a process that was killed while waiting needs no answer.
fn answer(error: &mut impl FnMut(&libc::seccomp_notif) -> Option<i32>, listener: &OwnedFd) {
    // SAFETY: plain numbers, which the kernel wants to be zero.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one of these.
    if unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) }
        != 0
    {
        return;
    }
    let error = error(&asked);
    let mut answer = libc::seccomp_notif_resp {
        id: asked.id,
        val: 0,
        error: -error.unwrap_or(0),
        flags: match error {
            Some(_) => 0,
            None => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        },
    };
    // SAFETY: the kernel reads one of these.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
}

/// Returns the result of the kernel: the descriptor of the listener, if there is one.
pub(crate) fn install(filter: &[libc::sock_filter], flags: libc::c_ulong) -> libc::c_long {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    const FILTER: libc::c_uint = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: program and filter live through the call, which copies them.
    let set = unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        libc::syscall(libc::SYS_seccomp, FILTER, flags, &raw const program)
    };
    assert!(set >= 0, "failed to install the filter: {}", io::Error::last_os_error());
    set
}
