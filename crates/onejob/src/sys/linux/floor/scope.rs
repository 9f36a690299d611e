//! Being put into a scope of the service manager's: before there is an inner guard, so that both and
//! whatever they start are inside.
//!
//! The guard connects to the manager's bus, and the owner, who gets the connection, does the talking:
//! so the manager sees the guard as the one who asks, in whatever PID namespace that is, and no
//! number is ever passed.

use super::{
    call::{self, CStr, Errno, POLLIN, PollFd, Result, close, getpid, poll},
    guard::{BASE, OWNER, SOCKET},
    message::{self, Message},
    raw::{nr, syscall},
};

const AF_UNIX: u16 = 1;

#[repr(C)]
struct Address {
    family: u16,
    path: [u8; 108],
}

/// Returns inside, with the scope's directory as `BASE`.
pub(crate) fn enter(bus: &CStr) -> Result<()> {
    let connection = connect(bus)?;
    let mut connected = Message::new(message::CONNECTED);
    connected.numbers[0] = getpid() as u64;
    message::send(SOCKET, &connected, &[connection.raw()])?;
    drop(connection);
    let mut waiting = [PollFd::new(SOCKET, POLLIN), PollFd::new(OWNER, POLLIN)];
    poll(&mut waiting, -1);
    if waiting[1].fired() {
        call::exit(0);
    }
    let mut fds = [-1; message::MAX_FDS];
    let count = match message::receive(SOCKET, &mut fds)? {
        Some((Message { kind: message::ENTER, .. }, count)) => count,
        // There is no scope, or no owner any more.
        _ => call::exit(0),
    };
    let [scope, leaf] = fds.get(..count).and_then(|fds| fds.try_into().ok()).ok_or(Errno::INVAL)?;
    // Whoever hands controllers down may have no members of its own.
    call::write(leaf, b"0")?;
    call::dup_to(scope, BASE, 0)?;
    call::set_cloexec(BASE, true)?;
    close(scope);
    close(leaf);
    Ok(())
}

/// Never waits: who does not take connections now is not asked.
fn connect(bus: &CStr) -> Result<call::Fd> {
    const STREAM_NONBLOCK_CLOEXEC: usize = 0o2004001;
    let mut address = Address { family: AF_UNIX, path: [0; 108] };
    let path = bus.to_bytes_with_nul();
    let room = address.path.get_mut(..path.len()).ok_or(Errno::INVAL)?;
    for (slot, byte) in room.iter_mut().zip(path) {
        *slot = *byte;
    }
    let kind = [AF_UNIX as usize, STREAM_NONBLOCK_CLOEXEC, 0, 0, 0, 0];
    // SAFETY: makes a new descriptor.
    let socket = unsafe { syscall(nr::SOCKET, kind) }.map(|raw| call::Fd(raw as i32))?;
    let (at, len) = (&raw const address as usize, 2 + path.len());
    // SAFETY: the kernel reads `len` bytes of the address.
    unsafe { syscall(nr::CONNECT, [socket.raw() as usize, at, len, 0, 0, 0]) }?;
    Ok(socket)
}
