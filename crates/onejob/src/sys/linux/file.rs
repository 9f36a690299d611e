//! Files of the kernel: their size is not known before they are read.

use std::{io, os::fd::OwnedFd};

use rustix::fs::{Mode, OFlags};

/// Reads a file of `/proc`.
pub(crate) fn read_proc(path: &str) -> io::Result<String> {
    read_all(&rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Reads a whole file in as few calls as possible.
pub(crate) fn read_all(file: &OwnedFd) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        text.reserve(4096);
        if rustix::io::read(file, rustix::buffer::spare_capacity(&mut text))? == 0 {
            return String::from_utf8(text).map_err(io::Error::other);
        }
    }
}
