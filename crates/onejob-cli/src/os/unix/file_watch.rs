//! Waiting for a file to grow.

use std::{io, os::fd::AsFd, path::Path};

use rustix::fd::{BorrowedFd, OwnedFd};

/// Readable when a file has been modified, or when the reader of standard output has closed it.
#[cfg(target_os = "linux")]
pub(crate) struct FileWatch {
    file: OwnedFd,
    epoll: OwnedFd,
}

#[cfg(target_os = "linux")]
impl FileWatch {
    pub(crate) fn new(path: &Path) -> io::Result<FileWatch> {
        use rustix::{
            event::epoll::{self, EventData, EventFlags},
            fs::inotify,
        };
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let file = inotify::init(flags)?;
        inotify::add_watch(&file, path, inotify::WatchFlags::MODIFY)?;
        let epoll_fd = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll_fd, &file, EventData::new_u64(0), EventFlags::IN)?;
        // EPOLLHUP and EPOLLERR are always reported. epoll refuses regular files (EPERM), which
        // cannot hang up.
        let _ = epoll::add(&epoll_fd, io::stdout(), EventData::new_u64(1), EventFlags::empty());
        Ok(FileWatch { file, epoll: epoll_fd })
    }

    /// Resets it. Returns whether standard output still has a reader.
    pub(crate) fn reset(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut events = [0; 4096];
        while rustix::io::read(&self.file, &mut events).is_ok_and(|len| len > 0) {}
        let stdout = io::stdout();
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        !poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }
}

#[cfg(target_os = "linux")]
impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) struct FileWatch(OwnedFd);

#[cfg(not(target_os = "linux"))]
impl FileWatch {
    /// No mechanism supports this system yet, so no log can be followed.
    pub(crate) fn new(_: &Path) -> io::Result<FileWatch> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn reset(&self) -> bool {
        true
    }
}

#[cfg(not(target_os = "linux"))]
impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
