//! The socket on which other processes of the user send requests to the guard of a job.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with},
};

use super::{
    directory::{Registry, socket_of},
    record::Record,
};
use crate::{
    Error, Result,
    sys::linux::{file::path_of_descriptor, guard::client::Guards},
};

impl Record {
    /// Makes the socket of a new job.
    pub(crate) fn listener(registry: &Path, id: &str) -> Result<OwnedFd> {
        let failed = |e: Errno| Error::os("make the socket of the job's guard", e);
        let registry = Registry::create(registry)?;
        let socket = datagram_socket().map_err(failed)?;
        let address = address(registry.dir.as_fd(), &socket_of(id)).map_err(failed)?;
        bind(&socket, &address).map_err(failed)?;
        Ok(socket)
    }

    /// Connects to the guard of the job.
    pub(crate) fn connect(&self) -> Result<Guards> {
        let failed = |e: Errno| Error::os(format!("connect to the guard of job {}", self.id()), e);
        let Some(ids) = self.header.guards.filter(|_| self.is_of_own_namespace()) else {
            return Err(Error::unsupported(format!(
                "job {} was started in another PID namespace",
                self.id()
            )));
        };
        let socket = datagram_socket().map_err(failed)?;
        let address = address(self.registry.dir.as_fd(), &socket_of(self.id())).map_err(failed)?;
        // If no process listens, the inner guard is dead, which its pidfd shows.
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::NOENT | Errno::CONNREFUSED) => {}
            Err(e) => return Err(failed(e)),
        }
        Guards::connect(ids, socket)
    }
}

fn datagram_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

/// An address has room for 107 bytes, so the directory is named by its descriptor.
fn address(dir: BorrowedFd<'_>, file: &str) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(format!("{}/{file}", path_of_descriptor(dir)))
}
