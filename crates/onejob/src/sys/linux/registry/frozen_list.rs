//! The list of the processes that a freeze has stopped, for the process that thaws the job.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{Access, AtFlags, Mode, OFlags, accessat, fstat, openat, unlinkat},
    io::Errno,
};

use super::{
    directory::frozen_list_of,
    header::{process_of, text_of},
    record::{Record, read_text},
};
use crate::{Error, ProcessId, Result, sys::linux::process::caller_limits::check_file_size};

/// The list of a freeze in progress.
pub(crate) struct Freezing(OwnedFd);

impl Freezing {
    /// Adds a process, before it is stopped: a process that is listed and runs is thawed without harm, but
    /// one that is stopped and not listed would never be thawed.
    pub(crate) fn add(&self, process: &ProcessId) -> io::Result<()> {
        let line = text_of(process) + "\n";
        check_file_size(fstat(&self.0)?.st_size as u64 + line.len() as u64)?;
        match rustix::io::write(&self.0, line.as_bytes())? {
            len if len == line.len() => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Whether the freeze still holds: `false` if another process has thawed the job meanwhile.
    pub(crate) fn persist(&self) -> io::Result<bool> {
        Ok(fstat(&self.0)?.st_nlink > 0)
    }
}

impl Record {
    /// Opens the list for a freeze.
    pub(crate) fn freezing(&self) -> Result<Freezing> {
        let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        openat(&self.registry.dir, frozen_list_of(self.id()), flags | OFlags::NOFOLLOW, mode)
            .map(Freezing)
            .map_err(|e| Error::os("write the list of frozen processes", e))
    }

    /// Whether the job is frozen: the list exists.
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        let list = frozen_list_of(self.id());
        match accessat(&self.registry.dir, list, Access::EXISTS, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(Error::os("read whether the job is frozen", e)),
        }
    }

    /// Passes the listed processes to `thaw`, and removes the list afterwards. If this process is killed in
    /// between, the list is left for the next thaw.
    pub(crate) fn thaw(&self, thaw: impl Fn(&[ProcessId]) -> Result<()>) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let failed = |e: io::Error| Error::os("read the list of frozen processes", e);
        let dir = &self.registry.dir;
        let list = match openat(dir, frozen_list_of(self.id()), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            list => list.map_err(|e| failed(e.into()))?,
        };
        let listed = || {
            let text = read_text(list.as_fd()).map_err(failed)?;
            Ok::<_, Error>(text.lines().filter_map(process_of).collect::<Vec<_>>())
        };
        let before = listed()?;
        thaw(&before)?;
        match unlinkat(dir, frozen_list_of(self.id()), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(Error::os("remove the list of frozen processes", e)),
        }
        // A freeze can have added processes meanwhile.
        thaw(listed()?.get(before.len()..).unwrap_or(&[]))
    }
}
