//! What owner and guard say to each other, over one `SOCK_SEQPACKET` socket pair.
//!
//! | request | carries | answered |
//! |---|---|---|
//! | `SPAWN`, the plan's record | a reply socket, the report pipe, the record's memory file if it is large, then what the plan's descriptors, its `cwd_fd` and `join`, and the cgroup to be born in count from; or, where these are more than fit, a socket with them in `MORE` messages | `STARTED` with a pidfd, or `FAILED`; when the process has ended, `ENDED` |
//! | `SYNC` | a reply socket | `DONE`, once everybody who has died is reaped |
//! | `USAGE` | a reply socket | `DONE` with CPU time of the dead |
//! | `END_CGROUP` | – | the cgroup with these numbers below the base is ended: for an owner without descriptors to do it |
//! | `KILL` | a reply socket | `DONE` after one round of a kill of all members, with the numbers of processes that it met and of those among them that may not be killed; or `FAILED` |
//! | `SWEEP` | – | what dead owners have abandoned below the base is ended |
//! | `LISTEN` | a datagram socket | from now on `SPAWN`, `SYNC` and `USAGE` are answered there, too: for other processes of the user |
//! | `BUDGET` | a reply socket, a cgroup's directory | `DONE`; and `SPENT` once its members have used that much CPU time and are killed, unless the reply socket is closed before |
//! | `RELEASE` | – | the guards end and leave the members alone |
//! | `END` | – | the guards kill the members and end |
//!
//! Every answer goes to the reply socket that came with its request, so threads of the owner never
//! meet in one queue, and whoever waits for one thing polls one descriptor. A guard greets with
//! `HELLO` on the main socket once both guards stand: with their numbers and the inner one's pidfd, or with
//! an error, and its own number if it stands alone. The owner has the outer one's pidfd from its `clone`; if
//! that one ends without a greeting, `HELLO` asks the inner one for it. A guard leaves with `DONE` there when it has ended everything. One that is
//! to be put into a scope first says `CONNECTED`, with its number and a connection to the bus, and waits
//! for `ENTER`, with the scope's directory and the `cgroup.procs` of the guards' own place in it. `ASKED`
//! says that the bus is being asked for it.

use super::syscall::{
    Errno, Result, close_all,
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

/// The version of all this, below a mark that no other program's messages have.
pub(crate) const VERSION: u32 = MARK | 1;

const MARK: u32 = 0x6f6a_0000;

/// How many descriptors fit in one message (`SCM_MAX_FD`).
pub(crate) const MAX_FDS: usize = 253;

/// The bytes of a message; which of the numbers mean something depends on `kind`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) version: u32,
    pub(crate) kind: u32,
    /// An error number.
    pub(crate) errno: i32,
    /// How many descriptors come in `MORE` messages.
    pub(crate) more: u32,
    /// Pids, a wait status, microseconds of user and system time, the size of a plan in a memory file and one more
    /// than the index of the cgroup, which cgroup of which job, or microseconds and a number of CPUs.
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

/// What is wrong with the first `len` bytes of a message, if anything is.
pub(crate) fn flaw(message: &Message, len: usize) -> Option<Errno> {
    const BEGINNING: usize = 8;
    if len < BEGINNING || message.version & 0xffff_0000 != MARK {
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

/// Sends a message with copies of descriptors.
pub(crate) fn send(socket: i32, message: &Message, fds: &[i32]) -> Result<()> {
    send_with(socket, message, &[], fds)
}

/// The same, with what comes after the message itself.
pub(crate) fn send_with(socket: i32, message: &Message, more: &[u8], fds: &[i32]) -> Result<()> {
    send_flagged(socket, message, more, fds, 0)
}

/// Sends a message to where it finds room at once: a guard does not wait for a process that asked it for
/// something and does not read the answer.
pub(crate) fn answer(socket: i32, message: &Message, fds: &[i32]) -> Result<()> {
    send_flagged(socket, message, &[], fds, MSG_DONTWAIT)
}

fn send_flagged(
    socket: i32,
    message: &Message,
    more: &[u8],
    fds: &[i32],
    flags: usize,
) -> Result<()> {
    let iov = [
        Iovec { base: &raw const *message as usize, len: size_of::<Message>() },
        Iovec { base: more.as_ptr() as usize, len: more.len() },
    ];
    let mut head = header(&iov);
    let mut control =
        Control { len: 0, level: SOL_SOCKET, kind: SCM_RIGHTS, fds: [-1; MAX_FDS + 1] };
    if !fds.is_empty() {
        for (slot, fd) in control.fds.iter_mut().zip(fds) {
            *slot = *fd;
        }
        control.len = HEADER + 4 * fds.len().min(MAX_FDS);
        head.control = &raw const control as usize;
        head.control_len = (control.len + 7) & !7;
    }
    let at = &raw const head as usize;
    // SAFETY: the header describes the message and the control block, both alive.
    unsafe { syscall(nr::SENDMSG, [socket as usize, at, MSG_NOSIGNAL | flags, 0, 0, 0]) }.map(drop)
}

/// Receives a message; how many descriptors came with it, now ours and closed on exec. `None` when
/// the other end is closed. With an error nothing is left open of what has come.
pub(crate) fn receive(socket: i32, fds: &mut [i32; MAX_FDS]) -> Result<Option<(Message, usize)>> {
    let received = receive_any(socket, fds, &mut [], 0)?;
    received.map(|it| it.sound(fds, |_, _| {})).transpose()
}

/// Receives a message of a kind that carries no descriptors: closes what has come with it all the same.
pub(crate) fn receive_bare(socket: i32) -> Result<Option<Message>> {
    let mut fds = [-1; MAX_FDS];
    Ok(receive(socket, &mut fds)?.map(|(message, count)| {
        close_all(fds.get(..count).unwrap_or(&[]));
        message
    }))
}

/// [`receive`] of what is there already: never waits.
pub(crate) fn receive_now(
    socket: i32,
    fds: &mut [i32; MAX_FDS],
) -> Result<Option<(Message, usize)>> {
    let received = receive_any(socket, fds, &mut [], MSG_DONTWAIT)?;
    received.map(|it| it.sound(fds, |_, _| {})).transpose()
}

/// Receives a request with what came after it into `more`, and how many bytes that is. An unusable one is
/// refused on the reply socket that came with it.
pub(crate) fn receive_request(
    socket: i32,
    fds: &mut [i32; MAX_FDS],
    more: &mut [u64],
) -> Result<Option<(Message, usize, usize)>> {
    let Some(received) = receive_any(socket, fds, more, 0)? else { return Ok(None) };
    let len = received.len.saturating_sub(size_of::<Message>());
    let refuse = |reply, flaw| _ = answer(reply, &Message::error(FAILED, flaw), &[]);
    received.sound(fds, refuse).map(|(message, count)| Some((message, count, len)))
}

/// What has come, whatever it is.
struct Received {
    message: Message,
    len: usize,
    /// How many descriptors are open now.
    count: usize,
    flaw: Option<Errno>,
}

impl Received {
    /// The message and its descriptors. Those of one that has a flaw are closed, after `refuse` has had
    /// the first.
    fn sound(
        self,
        fds: &[i32; MAX_FDS],
        refuse: impl FnOnce(i32, Errno),
    ) -> Result<(Message, usize)> {
        let Some(flaw) = self.flaw else { return Ok((self.message, self.count)) };
        let came = fds.get(..self.count).unwrap_or(&[]);
        came.first().inspect(|reply| refuse(**reply, flaw));
        close_all(came);
        Err(flaw)
    }
}

fn receive_any(
    socket: i32,
    fds: &mut [i32; MAX_FDS],
    more: &mut [u64],
    flags: usize,
) -> Result<Option<Received>> {
    let mut message = Message { version: 0, ..Message::new(0) };
    let iov = [
        Iovec { base: &raw mut message as usize, len: size_of::<Message>() },
        Iovec { base: more.as_mut_ptr() as usize, len: size_of_val(more) },
    ];
    let mut head = header(&iov);
    let mut control = Control { len: 0, level: 0, kind: 0, fds: [-1; MAX_FDS + 1] };
    head.control = &raw mut control as usize;
    head.control_len = HEADER + 4 * MAX_FDS + 4;
    let at = &raw mut head as usize;
    let flags = MSG_CMSG_CLOEXEC | flags;
    // SAFETY: the header describes buffers of these sizes, all alive.
    let len = unsafe { syscall(nr::RECVMSG, [socket as usize, at, flags, 0, 0, 0]) }?;
    let mut count = 0;
    if head.control_len >= HEADER && control.level == SOL_SOCKET && control.kind == SCM_RIGHTS {
        count = (control.len.saturating_sub(HEADER) / 4).min(MAX_FDS);
    }
    for (slot, fd) in fds.iter_mut().zip(control.fds.iter().take(count)) {
        *slot = *fd;
    }
    // An empty datagram looks like the end of a connection, but for what comes with it.
    if len == 0 && count == 0 && head.flags & MSG_CTRUNC == 0 {
        return Ok(None);
    }
    let flaw = match head.flags {
        // There was no room for its descriptors.
        flags if flags & MSG_CTRUNC != 0 => Some(Errno::MFILE),
        flags if flags & MSG_TRUNC != 0 => Some(Errno::BADMSG),
        _ => flaw(&message, len),
    };
    Ok(Some(Received { message, len, count, flaw }))
}
