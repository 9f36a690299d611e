//! The directory of a cgroup: opening it, reading and writing its files.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

use rustix::fs::{Access, AtFlags, Mode, OFlags};

use crate::sys::linux::{
    file::read_all,
    nostd::{
        cgroup::walk,
        procfs::entries,
        syscall::{self, Errno},
    },
};

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Opens the directory of a cgroup by its path; an error without an errno if it is not in a cgroup v2
/// file system.
pub(crate) fn open_cgroup(path: &Path) -> io::Result<OwnedFd> {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    let dir = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
    match rustix::fs::fstatfs(&dir)?.f_type as u64 {
        CGROUP2_SUPER_MAGIC => Ok(dir),
        _ => Err(io::Error::other("not a cgroup v2 directory")),
    }
}

/// The same; `None` if there is no such directory, or it is not a cgroup.
pub(crate) fn find_cgroup(path: &Path) -> io::Result<Option<OwnedFd>> {
    match open_cgroup(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error().is_none() => Ok(None),
        opened => opened.map(Some),
    }
}

/// Opens a cgroup below another one.
pub(crate) fn open_child(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
}

/// The names of the cgroups below this one; none if it has been removed.
pub(crate) fn each_child(parent: BorrowedFd<'_>, each: &mut dyn FnMut(&CStr)) -> io::Result<()> {
    let listing = match syscall::openat(parent.as_raw_fd(), c".", syscall::O_DIRECTORY) {
        Err(errno) if means_removed(errno) => return Ok(()),
        listing => listing?,
    };
    entries(&listing, &mut |name, is_dir| {
        if is_dir {
            each(name);
        }
    })?;
    Ok(())
}

/// Whether a cgroup has this file.
pub(crate) fn has_file(dir: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::accessat(dir, name, Access::EXISTS, AtFlags::empty()).is_ok()
}

/// Whether the directory has no entry of this name.
pub(crate) fn is_missing(dir: BorrowedFd<'_>, name: &CStr) -> bool {
    let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    matches!(found, Err(rustix::io::Errno::NOENT))
}

/// Whether this is the root of the whole hierarchy: the only cgroup without a `cgroup.type`.
pub(crate) fn is_hierarchy_root(dir: BorrowedFd<'_>) -> bool {
    let found = rustix::fs::accessat(dir, "cgroup.type", Access::EXISTS, AtFlags::empty());
    matches!(found, Err(rustix::io::Errno::NOENT))
}

/// Whether the cgroup behind a descriptor has been removed.
pub(crate) fn is_removed(cgroup: BorrowedFd<'_>) -> bool {
    let found = rustix::fs::accessat(cgroup, "cgroup.procs", Access::EXISTS, AtFlags::empty());
    found.is_err_and(|e| means_removed(Errno(e.raw_os_error())))
}

/// Whether an operation on a cgroup failed only because the cgroup has been removed.
pub(crate) fn means_removed(errno: Errno) -> bool {
    walk::is_gone(errno)
}

/// The same for an [`io::Error`].
pub(crate) fn is_removed_error(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|raw| means_removed(Errno(raw)))
}

/// Whether a cgroup has an extended attribute.
pub(crate) fn has_attribute(cgroup: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match rustix::fs::fgetxattr(cgroup, name, &mut [0_u8; 0]) {
        Ok(_) | Err(rustix::io::Errno::RANGE) => Ok(true),
        // OPNOTSUPP comes before Linux 5.7, where none can have been set.
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

pub(crate) fn read_text(dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let file = rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    read_all(&file)
}

pub(crate) fn write_text(dir: BorrowedFd<'_>, name: &str, text: &str) -> io::Result<()> {
    let file = rustix::fs::openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}

/// Like [`read_text`] for the cgroup of a job: its members can have changed the permissions, which are
/// restored.
pub(crate) fn read_job_text(cgroup: BorrowedFd<'_>, name: &CStr) -> io::Result<String> {
    read_all(&open_job_file(cgroup, name, 0)?)
}

/// Like [`write_text`] for the cgroup of a job: see [`read_job_text`].
pub(crate) fn write_job_text(cgroup: BorrowedFd<'_>, name: &CStr, text: &str) -> io::Result<()> {
    let file = open_job_file(cgroup, name, syscall::O_WRONLY)?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}

fn open_job_file(cgroup: BorrowedFd<'_>, name: &CStr, flags: i32) -> io::Result<OwnedFd> {
    let file = walk::open_file(cgroup.as_raw_fd(), name, flags)?.into_raw();
    // SAFETY: `into_raw` gave up the ownership of this open descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}
