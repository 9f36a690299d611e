//! Waiting for a file to grow.

use std::{io, os::fd::AsFd, path::Path};

use rustix::fd::{BorrowedFd, OwnedFd};

/// Readable when a file has changed.
pub(crate) struct Changes(OwnedFd);

#[cfg(target_os = "linux")]
impl Changes {
    pub(crate) fn of(path: &Path) -> io::Result<Changes> {
        use rustix::fs::inotify;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = inotify::init(flags)?;
        inotify::add_watch(&changes, path, inotify::WatchFlags::MODIFY)?;
        Ok(Changes(changes))
    }
}

#[cfg(not(target_os = "linux"))]
impl Changes {
    /// No job runs there yet, so there is no log to follow.
    pub(crate) fn of(_: &Path) -> io::Result<Changes> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Changes {
    /// Makes it tell of what comes next.
    pub(crate) fn forget(&self) {
        let mut told = [0; 4096];
        while rustix::io::read(&self.0, &mut told).is_ok_and(|len| len > 0) {}
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
