//! Files of the kernel: their size is not known before they are read.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::fs::{Mode, OFlags};

/// Reads a file of `/proc` as text. Names that processes have chosen need not be UTF-8.
pub(crate) fn read_proc(path: &str) -> io::Result<String> {
    let bytes = read_proc_bytes(path)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into()))
}

/// Reads a file of `/proc`.
pub(crate) fn read_proc_bytes(path: &str) -> io::Result<Vec<u8>> {
    read_bytes(&rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Reads a whole file of text in as few calls as possible.
pub(crate) fn read_all(file: &OwnedFd) -> io::Result<String> {
    String::from_utf8(read_bytes(file)?).map_err(io::Error::other)
}

fn read_bytes(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        bytes.reserve(4096);
        if rustix::io::read(file, rustix::buffer::spare_capacity(&mut bytes))? == 0 {
            return Ok(bytes);
        }
    }
}

/// A path to the file behind a descriptor, wherever the file is by now.
pub(crate) fn path_of_descriptor(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
