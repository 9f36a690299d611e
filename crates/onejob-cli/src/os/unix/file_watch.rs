//! Waiting for a file to grow.

use std::{io, os::fd::AsFd, path::Path};

use rustix::fd::{BorrowedFd, OwnedFd};

/// Readable when a file has changed, or nobody reads any more what we write.
#[cfg(target_os = "linux")]
pub(crate) struct Changes {
    file: OwnedFd,
    both: OwnedFd,
}

#[cfg(target_os = "linux")]
impl Changes {
    pub(crate) fn of(path: &Path) -> io::Result<Changes> {
        use rustix::{
            event::epoll::{self, EventData, EventFlags},
            fs::inotify,
        };
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let file = inotify::init(flags)?;
        inotify::add_watch(&file, path, inotify::WatchFlags::MODIFY)?;
        let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&both, &file, EventData::new_u64(0), EventFlags::IN)?;
        // A hangup is always told. A plain file, which cannot be waited for, has none.
        let _ = epoll::add(&both, io::stdout(), EventData::new_u64(1), EventFlags::empty());
        Ok(Changes { file, both })
    }

    /// Makes it tell of what comes next; whether somebody can still read us.
    pub(crate) fn forget(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut told = [0; 4096];
        while rustix::io::read(&self.file, &mut told).is_ok_and(|len| len > 0) {}
        let stdout = io::stdout();
        let mut reader = [PollFd::new(&stdout, PollFlags::empty())];
        !poll(&mut reader, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|gone| gone > 0)
    }
}

#[cfg(target_os = "linux")]
impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) struct Changes(OwnedFd);

#[cfg(not(target_os = "linux"))]
impl Changes {
    /// No job runs there yet, so there is no log to follow.
    pub(crate) fn of(_: &Path) -> io::Result<Changes> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn forget(&self) -> bool {
        true
    }
}

#[cfg(not(target_os = "linux"))]
impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
