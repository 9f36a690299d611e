//! Files and directories.

use super::{
    errno::{Errno, Result, retry_eintr},
    fd::{AsFd, OwnedFd, syscall_fd},
    raw::{self, nr, syscall},
};

/// A text that ends with NUL.
pub(crate) type CStr = core::ffi::CStr;

pub(crate) const O_WRONLY: i32 = 1;
pub(crate) const O_DIRECTORY: i32 = if cfg!(target_arch = "aarch64") { 0o40000 } else { 0o200000 };
pub(crate) const O_NOFOLLOW: i32 = if cfg!(target_arch = "aarch64") { 0o100000 } else { 0o400000 };
const O_CLOEXEC: i32 = 0o2000000;
const AT_REMOVEDIR: usize = 0x200;
pub(crate) const AT_EMPTY_PATH: usize = 0x1000;

fn path(text: &CStr) -> usize {
    text.as_ptr() as usize
}

pub(crate) fn read(from: impl AsFd, into: &mut [u8]) -> Result<usize> {
    let args = [from.as_fd().arg(), into.as_mut_ptr() as usize, into.len(), 0, 0, 0];
    // SAFETY: the kernel writes at most `len` bytes into the buffer.
    retry_eintr(|| unsafe { syscall(nr::READ, args) })
}

/// Reads from the start of the file, whatever its offset is.
pub(crate) fn pread(from: impl AsFd, into: &mut [u8]) -> Result<usize> {
    let args = [from.as_fd().arg(), into.as_mut_ptr() as usize, into.len(), 0, 0, 0];
    // SAFETY: the kernel writes at most `len` bytes into the buffer.
    retry_eintr(|| unsafe { syscall(nr::PREAD64, args) })
}

pub(crate) fn write(to: impl AsFd, bytes: &[u8]) -> Result<usize> {
    let args = [to.as_fd().arg(), bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
    // SAFETY: the kernel reads `len` bytes from the buffer.
    retry_eintr(|| unsafe { syscall(nr::WRITE, args) })
}

pub(crate) fn write_all(to: impl AsFd, bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = write(&to, rest)?;
        rest = rest.get(written..).unwrap_or(&[]);
    }
    Ok(())
}

/// A memory file that can be executed.
pub(crate) fn memfd_create(name: &CStr) -> Result<OwnedFd> {
    const CLOEXEC: usize = 1;
    const EXEC: usize = 0x10;
    // SAFETY: the name ends with NUL, and the kernel returns a new descriptor.
    let create = |flags| unsafe { syscall_fd(nr::MEMFD_CREATE, [path(name), flags, 0, 0, 0, 0]) };
    // Before Linux 6.3 the flag EXEC is unknown, and every memory file can be executed.
    create(CLOEXEC | EXEC).or_else(|errno| match errno {
        Errno::INVAL => create(CLOEXEC),
        errno => Err(errno),
    })
}

pub(crate) fn openat(dir: impl AsFd, name: &CStr, flags: i32) -> Result<OwnedFd> {
    let args = [dir.as_fd().arg(), path(name), (flags | O_CLOEXEC) as usize, 0, 0, 0];
    // SAFETY: the name ends with NUL, and the kernel returns a new descriptor.
    retry_eintr(|| unsafe { syscall_fd(nr::OPENAT, args) })
}

/// [`openat`] that refuses a path through a mount point (`openat2`, Linux 5.6).
pub(crate) fn openat_on_same_mount(dir: impl AsFd, name: &CStr, flags: i32) -> Result<OwnedFd> {
    const RESOLVE_NO_XDEV: u64 = 1;
    // `struct open_how`: flags, mode, resolve.
    let how = [(flags | O_CLOEXEC) as u64, 0, RESOLVE_NO_XDEV];
    let args = [dir.as_fd().arg(), path(name), how.as_ptr() as usize, size_of_val(&how), 0, 0];
    // SAFETY: the name ends with NUL, the kernel reads one open_how, which has 24 bytes, and returns a
    // new descriptor.
    retry_eintr(|| unsafe { syscall_fd(raw::OPENAT2, args) })
}

/// Changes the permissions of a file. Without effect if the file belongs to another user.
pub(crate) fn fchmodat(dir: impl AsFd, name: &CStr, mode: usize) {
    // SAFETY: the name ends with NUL.
    let _ = unsafe { syscall(nr::FCHMODAT, [dir.as_fd().arg(), path(name), mode, 0, 0, 0]) };
}

/// [`fchmodat`] for an open file.
pub(crate) fn fchmod(file: impl AsFd, mode: usize) {
    // SAFETY: no pointer is passed.
    let _ = unsafe { syscall(nr::FCHMOD, [file.as_fd().arg(), mode, 0, 0, 0, 0]) };
}

/// Sets the offset at which the next `read` or `getdents` begins.
pub(crate) fn seek(file: impl AsFd, offset: u64) -> Result<()> {
    const SEEK_SET: usize = 0;
    // SAFETY: no pointer is passed.
    unsafe { syscall(nr::LSEEK, [file.as_fd().arg(), offset as usize, SEEK_SET, 0, 0, 0]) }
        .map(drop)
}

pub(crate) fn rmdirat(dir: impl AsFd, name: &CStr) -> Result<()> {
    // SAFETY: the name ends with NUL.
    unsafe { syscall(nr::UNLINKAT, [dir.as_fd().arg(), path(name), AT_REMOVEDIR, 0, 0, 0]) }
        .map(drop)
}

pub(crate) fn unlinkat(dir: impl AsFd, name: &CStr) -> Result<()> {
    // SAFETY: the name ends with NUL.
    unsafe { syscall(nr::UNLINKAT, [dir.as_fd().arg(), path(name), 0, 0, 0, 0]) }.map(drop)
}

const LOCK_EX: usize = 2;
const LOCK_NB: usize = 4;

/// Waits for the exclusive lock on an open file. Closing the last descriptor of the open file releases it.
pub(crate) fn flock_exclusive(file: impl AsFd) -> Result<()> {
    // SAFETY: no pointer is passed.
    retry_eintr(|| unsafe { syscall(nr::FLOCK, [file.as_fd().arg(), LOCK_EX, 0, 0, 0, 0]) })
        .map(drop)
}

/// Takes the exclusive lock, or fails with `Errno::AGAIN` if another open file holds a lock.
pub(crate) fn try_flock_exclusive(file: impl AsFd) -> Result<()> {
    let args = [file.as_fd().arg(), LOCK_EX | LOCK_NB, 0, 0, 0, 0];
    // SAFETY: no pointer is passed.
    retry_eintr(|| unsafe { syscall(nr::FLOCK, args) }).map(drop)
}

/// `struct statx` (`statx(2)`), the same on every architecture.
#[repr(C)]
struct Statx {
    mask: u32,
    blksize: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad: u16,
    ino: u64,
    rest: [u64; 27],
}

const _: () = assert!(size_of::<Statx>() == 256);

fn statx(dir: impl AsFd, name: &CStr, flags: usize, mask: usize) -> Result<Statx> {
    let mut stat = Statx {
        mask: 0,
        blksize: 0,
        attributes: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        mode: 0,
        pad: 0,
        ino: 0,
        rest: [0; 27],
    };
    let at = &raw mut stat as usize;
    // SAFETY: the name ends with NUL, and the kernel writes one statx, which has 256 bytes.
    unsafe { syscall(nr::STATX, [dir.as_fd().arg(), path(name), flags, mask, at, 0]) }?;
    Ok(stat)
}

/// Whether an open file belongs to the effective user of this process.
pub(crate) fn is_own(file: impl AsFd) -> bool {
    const STATX_UID: usize = 0x8;
    // SAFETY: no pointer is passed.
    let user = unsafe { syscall(nr::GETEUID, [0; 6]) };
    statx(file, c"", AT_EMPTY_PATH, STATX_UID).is_ok_and(|stat| user == Ok(stat.uid as usize))
}

/// How many links a file has.
pub(crate) fn nlink(dir: impl AsFd, name: &CStr) -> Result<u32> {
    const STATX_NLINK: usize = 0x4;
    statx(dir, name, 0, STATX_NLINK).map(|stat| stat.nlink)
}

/// The inode of an open file.
pub(crate) fn inode_of(file: impl AsFd) -> Result<u64> {
    const STATX_INO: usize = 0x100;
    statx(file, c"", AT_EMPTY_PATH, STATX_INO).map(|stat| stat.ino)
}

pub(crate) fn readlinkat(dir: impl AsFd, name: &CStr, into: &mut [u8]) -> Result<usize> {
    let args = [dir.as_fd().arg(), path(name), into.as_mut_ptr() as usize, into.len(), 0, 0];
    // SAFETY: the name ends with NUL, and the kernel writes at most `len` bytes into the buffer.
    unsafe { syscall(nr::READLINKAT, args) }
}

/// Whether the file has this extended attribute: not if its file system has none.
pub(crate) fn has_xattr(file: impl AsFd, name: &CStr) -> Result<bool> {
    // SAFETY: the name ends with NUL; with size 0 the kernel writes nothing.
    match unsafe { syscall(nr::FGETXATTR, [file.as_fd().arg(), path(name), 0, 0, 0, 0]) } {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn getdents(dir: impl AsFd, into: &mut [u8]) -> Result<usize> {
    let args = [dir.as_fd().arg(), into.as_mut_ptr() as usize, into.len(), 0, 0, 0];
    // SAFETY: the kernel writes at most `len` bytes into the buffer.
    unsafe { syscall(nr::GETDENTS64, args) }
}

/// Whether the file is a memory file, as [`memfd_create`] makes: only these have seals.
pub(crate) fn is_memory_file(file: impl AsFd) -> bool {
    const F_GET_SEALS: usize = 1034;
    // SAFETY: no pointer is passed.
    unsafe { syscall(nr::FCNTL, [file.as_fd().arg(), F_GET_SEALS, 0, 0, 0, 0]) }.is_ok()
}
