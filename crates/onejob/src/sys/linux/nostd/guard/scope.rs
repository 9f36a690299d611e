//! Being put into a scope of the service manager's: before there is an inner guard, so that both and
//! whatever they start are inside.
//!
//! The guard connects to the manager's bus, and the owner, who gets the connection, does the talking:
//! so the manager sees the guard as the one who asks, in whatever PID namespace that is, and no
//! number is ever passed.

use super::{
    super::{
        protocol::{self, Message},
        syscall::{
            self, CStr, Errno, POLLIN, PollFd, Result, close, getpid, poll,
            raw::{nr, syscall},
        },
    },
    BASE, OWNER, SOCKET,
};

const AF_UNIX: u16 = 1;

#[repr(C)]
struct Address {
    family: u16,
    path: [u8; 108],
}

/// Returns inside, with the scope's directory as `BASE`.
pub(crate) fn enter(bus: &CStr, prefix: &[u8]) -> Result<()> {
    let connection = connect(bus)?;
    let mut connected = Message::new(protocol::CONNECTED);
    connected.numbers[0] = getpid() as u64;
    protocol::send(SOCKET, &connected, &[connection.raw()])?;
    let mut fds = [-1; protocol::MAX_FDS];
    let mut is_asked_for = false;
    let count = loop {
        let mut waiting = [PollFd::new(SOCKET, POLLIN), PollFd::new(OWNER, POLLIN)];
        poll(&mut waiting, -1);
        // What a dead owner had said comes first.
        match waiting[0].fired().then(|| protocol::receive(SOCKET, &mut fds)).transpose()? {
            Some(Some((Message { kind: protocol::ASKED, .. }, _))) => is_asked_for = true,
            Some(Some((Message { kind: protocol::ENTER, .. }, count))) => break count,
            None if !waiting[1].fired() => {}
            // There is no scope, or no owner any more.
            _ if is_asked_for => leave(&connection, prefix),
            _ => syscall::exit(0),
        }
    };
    drop(connection);
    let [scope, leaf] = fds.get(..count).and_then(|fds| fds.try_into().ok()).ok_or(Errno::INVAL)?;
    // Whoever hands controllers down may have no members of its own.
    syscall::write(leaf, b"0")?;
    syscall::dup_to(scope, BASE, 0)?;
    syscall::set_cloexec(BASE, true)?;
    close(scope);
    close(leaf);
    Ok(())
}

/// Ends, but not while a scope may be under way: systemd would move the dead into it without noticing,
/// and wait for ever for the end of a scope that nobody was ever in. So inside, or once the bus has hung
/// up, as the owner makes it do when it was refused. A bus that hangs is not waited for for ever; in
/// rounds, since a machine that stands still takes time from one of them only.
fn leave(connection: &syscall::Fd, prefix: &[u8]) -> ! {
    const ROUNDS: u32 = 40;
    for _ in 0..ROUNDS {
        if is_inside(prefix) {
            break;
        }
        // Only a hang-up ends this wait, which is told also if no event is asked for. What the bus sends
        // is left unread: a bus that sends without end would use up the rounds at once.
        let mut hung_up = [PollFd::new(connection.raw(), 0)];
        poll(&mut hung_up, 500);
        if hung_up[0].fired() {
            break;
        }
    }
    syscall::exit(0)
}

/// Whether we are in the scope, whose name is the prefix but for the dash.
fn is_inside(prefix: &[u8]) -> bool {
    let name = prefix.strip_suffix(b"-").unwrap_or(prefix);
    let mut text = [0_u8; 4096];
    let read = syscall::openat(-100, c"/proc/self/cgroup", 0)
        .and_then(|file| syscall::read(file.raw(), &mut text));
    let text = text.get(..read.unwrap_or(0)).unwrap_or(&[]);
    !name.is_empty() && (0..text.len()).any(|at| text.get(at..).unwrap_or(&[]).starts_with(name))
}

/// Never waits: who does not take connections now is not asked.
fn connect(bus: &CStr) -> Result<syscall::Fd> {
    const STREAM_NONBLOCK_CLOEXEC: usize = 0o2004001;
    let mut address = Address { family: AF_UNIX, path: [0; 108] };
    let path = bus.to_bytes_with_nul();
    let room = address.path.get_mut(..path.len()).ok_or(Errno::INVAL)?;
    for (slot, byte) in room.iter_mut().zip(path) {
        *slot = *byte;
    }
    let kind = [AF_UNIX as usize, STREAM_NONBLOCK_CLOEXEC, 0, 0, 0, 0];
    // SAFETY: makes a new descriptor.
    let socket = unsafe { syscall(nr::SOCKET, kind) }.map(|raw| syscall::Fd(raw as i32))?;
    let (at, len) = (&raw const address as usize, 2 + path.len());
    // SAFETY: the kernel reads `len` bytes of the address.
    unsafe { syscall(nr::CONNECT, [socket.raw() as usize, at, len, 0, 0, 0]) }?;
    Ok(socket)
}
