//! The messages of owner and guard, over one `SOCK_SEQPACKET` socket pair.
//!
//! | request | carries | reply |
//! |---|---|---|
//! | `SPAWN`, the [`ExecRequest`](super::exec::ExecRequest) | a reply socket, the report pipe, the memory file with the request if it is large, then the descriptors that the request and the index of the cgroup refer to; or, where these do not fit into one message, a socket with them in `MORE` messages | `STARTED` with a pidfd, or `FAILED`; `ENDED` when the process has ended |
//! | `SYNC` | a reply socket | `DONE`, once every dead child is reaped |
//! | `USAGE` | a reply socket | `DONE` with the CPU time of the reaped children |
//! | `END_CGROUP` | – | the guard ends the cgroup with these numbers below the base: for an owner that has run out of descriptors |
//! | `KILL` | a reply socket | `DONE` after one round of a kill of all members, with the numbers of processes that it met and of those among them that may not be killed; or `FAILED` |
//! | `SWEEP` | – | the guard ends the abandoned cgroups below the base |
//! | `LISTEN` | a datagram socket | the guard serves `SPAWN`, `SYNC` and `USAGE` from there, too: for other processes of the user |
//! | `CPU_TIME_LIMIT` | a reply socket, the directory of a cgroup | `DONE`; and `CPU_TIME_EXHAUSTED` once the members have used that much CPU time and are killed, unless the reply socket is closed before |
//! | `RELEASE` | – | the guards exit and leave the members alone |
//! | `END` | – | the guards kill the members and exit |
//!
//! Every reply goes to the reply socket of its request. So threads of the owner never share a queue, and a
//! thread that waits for one reply polls one descriptor.
//!
//! On the main socket the outer guard sends `HELLO` when both guards are ready: with their pids and the inner
//! guard's pidfd; or with an error, and its own pid if it serves alone. The owner has the outer guard's pidfd
//! from `clone`. If that guard dies before it has sent `HELLO`, the owner sends `HELLO`, and the inner guard
//! replies. A guard that has ended everything sends `DONE` on the main socket and exits.
//!
//! A guard that is to be moved into a scope first sends `CONNECTED`, with its pid and a connection to the bus,
//! and waits for `ENTER`, with the directory of the scope and the `cgroup.procs` of the guards' cgroup in it.
//! With `ASKED` the owner reports that it has sent the request for the scope.

use super::syscall::{
    AsFd, BorrowedFd, Errno, OwnedFd, Result, close_all,
    raw::{nr, syscall},
};

pub(crate) const HELLO: u32 = 1;
pub(crate) const SPAWN: u32 = 2;
pub(crate) const STARTED: u32 = 3;
pub(crate) const FAILED: u32 = 4;
pub(crate) const ENDED: u32 = 5;
pub(crate) const SYNC: u32 = 6;
pub(crate) const DONE: u32 = 7;
pub(crate) const RELEASE: u32 = 8;
pub(crate) const END: u32 = 9;
pub(crate) const USAGE: u32 = 10;
pub(crate) const END_CGROUP: u32 = 11;
pub(crate) const LISTEN: u32 = 12;
pub(crate) const SWEEP: u32 = 13;
pub(crate) const KILL: u32 = 14;
pub(crate) const CPU_TIME_LIMIT: u32 = 20;
pub(crate) const CPU_TIME_EXHAUSTED: u32 = 21;
pub(crate) const CONNECTED: u32 = 22;
pub(crate) const ENTER: u32 = 23;
pub(crate) const ASKED: u32 = 24;
pub(crate) const MORE: u32 = 25;

/// The version of the protocol, after a mark that distinguishes its messages from those of other programs.
pub(crate) const VERSION: u32 = MARK | 1;

const MARK: u32 = 0x6f6a_0000;

/// How many descriptors fit in one message (`SCM_MAX_FD`).
pub(crate) const MAX_FDS: usize = 253;

/// A message.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) version: u32,
    pub(crate) kind: u32,
    /// An error number.
    pub(crate) errno: i32,
    /// How many descriptors follow in `MORE` messages.
    pub(crate) more: u32,
    /// By `kind`: pids; a wait status; microseconds of user and system time; the size of a memory file (or 0)
    /// and the index of the cgroup plus 1 (or 0); the numbers of a job and of its cgroup; or microseconds and
    /// a number of CPUs.
    pub(crate) numbers: [u64; 2],
}

impl Message {
    pub(crate) fn new(kind: u32) -> Message {
        Message { version: VERSION, kind, errno: 0, more: 0, numbers: [0; 2] }
    }

    pub(crate) fn error(kind: u32, errno: Errno) -> Message {
        Message { errno: errno.0, ..Message::new(kind) }
    }
}

/// Why a message of which `len` bytes were received cannot be used, if it cannot.
pub(crate) fn flaw(message: &Message, len: usize) -> Option<Errno> {
    const VERSION_AND_KIND: usize = 8;
    if len < VERSION_AND_KIND || message.version & 0xffff_0000 != MARK {
        return Some(Errno::BADMSG);
    }
    match message.version.cmp(&VERSION) {
        core::cmp::Ordering::Less => Some(Errno::FROM_OLDER),
        core::cmp::Ordering::Greater => Some(Errno::FROM_NEWER),
        core::cmp::Ordering::Equal => (len < size_of::<Message>()).then_some(Errno::BADMSG),
    }
}

#[repr(C)]
struct Iovec {
    base: usize,
    len: usize,
}

#[repr(C)]
struct Msghdr {
    name: usize,
    name_len: u32,
    pad: u32,
    iov: usize,
    iov_len: usize,
    control: usize,
    control_len: usize,
    flags: u32,
    pad2: u32,
}

/// Room for one control message of descriptors.
#[repr(C)]
struct Control {
    len: usize,
    level: i32,
    kind: i32,
    fds: [i32; MAX_FDS + 1],
}

const HEADER: usize = 16;
const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
const MSG_NOSIGNAL: usize = 0x4000;
const MSG_DONTWAIT: usize = 0x40;
const MSG_CTRUNC: u32 = 8;
const MSG_TRUNC: u32 = 0x20;

fn header(iov: &[Iovec; 2]) -> Msghdr {
    let iov = iov.as_ptr() as usize;
    Msghdr {
        name: 0,
        name_len: 0,
        pad: 0,
        iov,
        iov_len: 2,
        control: 0,
        control_len: 0,
        flags: 0,
        pad2: 0,
    }
}

/// Descriptors that came with a message, in their order. Dropping closes them.
pub(crate) struct ReceivedFds {
    fds: [Option<OwnedFd>; MAX_FDS],
    count: usize,
}

impl ReceivedFds {
    pub(crate) const fn new() -> ReceivedFds {
        ReceivedFds { fds: [const { None }; MAX_FDS], count: 0 }
    }

    pub(crate) fn as_slice(&self) -> &[Option<OwnedFd>] {
        self.fds.get(..self.count).unwrap_or(&[])
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [Option<OwnedFd>] {
        self.fds.get_mut(..self.count).unwrap_or(&mut [])
    }

    pub(crate) fn clear(&mut self) {
        close_all(self.as_mut_slice());
        self.count = 0;
    }
}

impl Drop for ReceivedFds {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Sends a message with copies of descriptors.
pub(crate) fn send(socket: impl AsFd, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<()> {
    send_flagged(socket.as_fd(), message, &[], fds, 0)
}

/// Sends a message that is followed by `data`.
pub(crate) fn send_with(
    socket: impl AsFd,
    message: &Message,
    data: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<()> {
    send_flagged(socket.as_fd(), message, data, fds, 0)
}

/// Sends a reply if the socket has room for it: a guard does not wait for a process that has sent a request
/// and does not read the reply.
pub(crate) fn reply(socket: impl AsFd, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<()> {
    send_flagged(socket.as_fd(), message, &[], fds, MSG_DONTWAIT)
}

fn send_flagged(
    socket: BorrowedFd<'_>,
    message: &Message,
    data: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: usize,
) -> Result<()> {
    let iov = [
        Iovec { base: &raw const *message as usize, len: size_of::<Message>() },
        Iovec { base: data.as_ptr() as usize, len: data.len() },
    ];
    let mut head = header(&iov);
    let mut control =
        Control { len: 0, level: SOL_SOCKET, kind: SCM_RIGHTS, fds: [-1; MAX_FDS + 1] };
    if !fds.is_empty() {
        for (slot, fd) in control.fds.iter_mut().zip(fds) {
            *slot = fd.raw();
        }
        control.len = HEADER + 4 * fds.len().min(MAX_FDS);
        head.control = &raw const control as usize;
        head.control_len = (control.len + 7) & !7;
    }
    let at = &raw const head as usize;
    let flags = MSG_NOSIGNAL | flags;
    // SAFETY: the header describes the message, the data and the control block, which outlive the call.
    unsafe { syscall(nr::SENDMSG, [socket.raw() as usize, at, flags, 0, 0, 0]) }.map(drop)
}

/// Receives a message. `fds` has its descriptors then, closed on exec; or none after an error. `None` if the
/// other end is closed.
pub(crate) fn receive(socket: impl AsFd, fds: &mut ReceivedFds) -> Result<Option<Message>> {
    let received = receive_any(socket.as_fd(), fds, &mut [], 0)?;
    received.map(|received| received.checked(fds, |_, _| {})).transpose()
}

/// [`receive`] for a message without descriptors.
pub(crate) fn receive_bare(socket: impl AsFd) -> Result<Option<Message>> {
    receive(socket, &mut ReceivedFds::new())
}

/// [`receive`] that fails with `Errno::AGAIN` instead of waiting.
pub(crate) fn receive_now(socket: impl AsFd, fds: &mut ReceivedFds) -> Result<Option<Message>> {
    let received = receive_any(socket.as_fd(), fds, &mut [], MSG_DONTWAIT)?;
    received.map(|received| received.checked(fds, |_, _| {})).transpose()
}

/// Receives a request, and the data that follows it into `data`. Returns how many bytes these are. An unusable
/// request is refused on the reply socket that came with it.
pub(crate) fn receive_request(
    socket: impl AsFd,
    fds: &mut ReceivedFds,
    data: &mut [u64],
) -> Result<Option<(Message, usize)>> {
    let Some(received) = receive_any(socket.as_fd(), fds, data, 0)? else { return Ok(None) };
    let len = received.len.saturating_sub(size_of::<Message>());
    let refuse = |socket: &OwnedFd, flaw| _ = reply(socket, &Message::error(FAILED, flaw), &[]);
    received.checked(fds, refuse).map(|message| Some((message, len)))
}

/// A datagram, before it is checked.
struct Received {
    message: Message,
    len: usize,
    flaw: Option<Errno>,
}

impl Received {
    /// The message, if it can be used. Otherwise `refuse` gets the first descriptor, and all are closed.
    fn checked(
        self,
        fds: &mut ReceivedFds,
        refuse: impl FnOnce(&OwnedFd, Errno),
    ) -> Result<Message> {
        let Some(flaw) = self.flaw else { return Ok(self.message) };
        if let Some(Some(first)) = fds.as_slice().first() {
            refuse(first, flaw);
        }
        fds.clear();
        Err(flaw)
    }
}

fn receive_any(
    socket: BorrowedFd<'_>,
    fds: &mut ReceivedFds,
    data: &mut [u64],
    flags: usize,
) -> Result<Option<Received>> {
    let mut message = Message { version: 0, ..Message::new(0) };
    let iov = [
        Iovec { base: &raw mut message as usize, len: size_of::<Message>() },
        Iovec { base: data.as_mut_ptr() as usize, len: size_of_val(data) },
    ];
    let mut head = header(&iov);
    let mut control = Control { len: 0, level: 0, kind: 0, fds: [-1; MAX_FDS + 1] };
    head.control = &raw mut control as usize;
    head.control_len = HEADER + 4 * MAX_FDS + 4;
    let at = &raw mut head as usize;
    let flags = MSG_CMSG_CLOEXEC | flags;
    fds.clear();
    // SAFETY: the header describes the message, the data and the control block, which outlive the call.
    let len = unsafe { syscall(nr::RECVMSG, [socket.raw() as usize, at, flags, 0, 0, 0]) }?;
    if head.control_len >= HEADER && control.level == SOL_SOCKET && control.kind == SCM_RIGHTS {
        fds.count = (control.len.saturating_sub(HEADER) / 4).min(MAX_FDS);
    }
    for (slot, raw) in fds.as_mut_slice().iter_mut().zip(control.fds) {
        // SAFETY: the kernel has made this descriptor for the message.
        *slot = Some(unsafe { OwnedFd::from_raw(raw) });
    }
    // An empty datagram without descriptors cannot be distinguished from a closed connection.
    if len == 0 && fds.count == 0 && head.flags & MSG_CTRUNC == 0 {
        return Ok(None);
    }
    let flaw = match head.flags {
        // The kernel could not create all descriptors.
        flags if flags & MSG_CTRUNC != 0 => Some(Errno::MFILE),
        flags if flags & MSG_TRUNC != 0 => Some(Errno::BADMSG),
        _ => flaw(&message, len),
    };
    Ok(Some(Received { message, len, flaw }))
}
