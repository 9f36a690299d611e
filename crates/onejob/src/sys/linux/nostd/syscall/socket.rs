//! Sockets.

use core::ffi::CStr;

use super::{
    errno::{Errno, Result},
    fd::{AsFd, OwnedFd, syscall_fd},
    raw::{nr, syscall},
};

const AF_UNIX: u16 = 1;

/// `struct sockaddr_un`.
#[repr(C)]
struct Address {
    family: u16,
    path: [u8; 108],
}

/// A non-blocking stream connection to a Unix socket. Fails with `Errno::AGAIN` if that does not accept connections
/// at once.
pub(crate) fn connect_stream(path: &CStr) -> Result<OwnedFd> {
    const STREAM_NONBLOCK_CLOEXEC: usize = 0o2004001;
    let mut address = Address { family: AF_UNIX, path: [0; 108] };
    let bytes = path.to_bytes_with_nul();
    let room = address.path.get_mut(..bytes.len()).ok_or(Errno::INVAL)?;
    for (slot, byte) in room.iter_mut().zip(bytes) {
        *slot = *byte;
    }
    let kind = [AF_UNIX as usize, STREAM_NONBLOCK_CLOEXEC, 0, 0, 0, 0];
    // SAFETY: no pointer is passed, and the kernel returns a new descriptor.
    let socket = unsafe { syscall_fd(nr::SOCKET, kind) }?;
    let (at, len) = (&raw const address as usize, 2 + bytes.len());
    // SAFETY: the kernel reads `len` bytes of the address.
    unsafe { syscall(nr::CONNECT, [socket.as_fd().arg(), at, len, 0, 0, 0]) }?;
    Ok(socket)
}
