//! Who a process is, beyond its number.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::OnceLock,
};

use crate::{
    Error, Process, ProcessId, Result,
    sys::linux::{
        file::read_proc,
        nostd::{
            procfs::{Proc, Stat},
            syscall::{self, Errno},
        },
    },
};

/// `PID_FS_MAGIC`: pidfds of this file system have an inode of their own per process (Linux 6.9).
const PID_FS_MAGIC: u64 = 0x5049_4446;

pub(crate) fn identify(pid: u32) -> Result<ProcessId> {
    let (id, pidfd) = open(pid)?;
    // An identity without the boot equals no later one. It is read again without the other descriptors.
    drop(pidfd);
    let boot = if id.boot == 0 { boot() } else { Ok(id.boot) };
    match boot {
        Ok(boot) => Ok(ProcessId { boot, ..id }),
        // There is no /proc.
        Err(error) if error.is_not_found() => Ok(id),
        Err(error) => Err(error),
    }
}

/// The process that has this pid now, held by a pidfd.
pub(crate) fn open(pid: u32) -> Result<(ProcessId, OwnedFd)> {
    let pidfd = open_pidfd(pid)?;
    let proc = Proc::open().ok();
    let id = of_pidfd(pid, pidfd.as_fd(), proc.as_ref());
    Ok((id, pidfd))
}

fn open_pidfd(pid: u32) -> Result<OwnedFd> {
    if pid == 0 || i32::try_from(pid).is_err() {
        return Err(Error::invalid(format!("{pid} is not the number of a process")));
    }
    pidfd_open(pid).map_err(|e| Error::os(format!("find process {pid}"), e))
}

/// The process that has the pid of this identity now. The start time is read only if the inode does not
/// decide.
fn open_pid_of(id: &ProcessId) -> Result<(ProcessId, OwnedFd)> {
    if id.inode == 0 {
        return open(id.pid);
    }
    let pidfd = open_pidfd(id.pid)?;
    Ok((persistent_id(id.pid, pidfd.as_fd()), pidfd))
}

/// The very process of an identity, held by a pidfd.
pub(crate) fn reopen(id: &ProcessId) -> Result<OwnedFd> {
    let gone = || Error::stale(format!("process {} is gone", id.pid));
    let (now, pidfd) = match open_pid_of(id) {
        Err(error) if error.is_not_found() => return Err(gone()),
        opened => opened?,
    };
    if now == *id {
        Ok(pidfd)
    } else if now.boot == 0 && id.boot != 0 {
        // Unknown is not another one.
        boot().and(Err(gone()))
    } else if !can_be_compared(&now, id) {
        let unknown = io::Error::other("neither its inode nor its start time can be read");
        Err(Error::os(format!("identify process {}", id.pid), unknown))
    } else {
        Err(gone().with_hint("its number belongs to another process now"))
    }
}

/// The same; `None` if it is gone, and an error if that cannot be found out.
pub(crate) fn find(id: &ProcessId) -> Result<Option<OwnedFd>> {
    match reopen(id) {
        Err(error) if error.is_stale() => Ok(None),
        found => found.map(Some),
    }
}

/// Whether enough is known of both to tell that they are two processes.
fn can_be_compared(now: &ProcessId, id: &ProcessId) -> bool {
    let both = |of: fn(&ProcessId) -> u64| of(now) != 0 && of(id) != 0;
    now.boot != 0 && id.boot != 0 && (both(|id| id.inode) || both(|id| id.start))
}

/// This process, held by a pidfd: no job does without.
pub(crate) fn caller() -> Result<OwnedFd> {
    pidfd_open(std::process::id()).map_err(|errno| match errno {
        Errno::NOSYS => no_pidfds(),
        errno => {
            let error = Error::os("open a pidfd of this process", errno);
            if errno == Errno::PERM {
                error.with_hint("have the sandbox allow pidfd_open")
            } else {
                error
            }
        }
    })
}

/// What there is to say where they cannot be opened, or not be waited for.
pub(crate) fn no_pidfds() -> Error {
    Error::unsupported("this kernel has no pidfds that can be waited for")
        .with_hint("onejob needs Linux 5.4")
}

pub(crate) fn pidfd_open(pid: u32) -> std::result::Result<OwnedFd, Errno> {
    let raw = syscall::pidfd_open(pid as i32)?.into_raw();
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The process that has this number, held by a pidfd; `None` if there is none.
pub(crate) fn held(pid: u32) -> std::result::Result<Option<OwnedFd>, Errno> {
    match pidfd_open(pid) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // A number that is a thread's by now is `INVAL` or `NOENT`.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// As much of the identity of the process behind a pidfd as [`reopen`] needs: an inode is one process'
/// alone for the whole boot.
pub(crate) fn persistent_id(pid: u32, pidfd: BorrowedFd<'_>) -> ProcessId {
    match of_pidfd(pid, pidfd, None) {
        ProcessId { inode: 0, .. } => of_pidfd(pid, pidfd, Proc::open().ok().as_ref()),
        id => id,
    }
}

/// The identity of the process behind a pidfd, as far as it can be read.
pub(crate) fn of_pidfd(pid: u32, pidfd: BorrowedFd<'_>, proc: Option<&Proc>) -> ProcessId {
    let stat = proc.and_then(|proc| proc.stat(pid as i32).ok());
    with_start(pid, pidfd, stat.as_ref())
}

fn with_start(pid: u32, pidfd: BorrowedFd<'_>, stat: Option<&Stat>) -> ProcessId {
    // The number was the pidfd's own while the process was there; if it is not any more, the start
    // time read may be a stranger's.
    let still = || syscall::pidfd_send_signal(pidfd.as_raw_fd(), 0) != Err(Errno::SRCH);
    let start = stat.filter(|_| still()).map_or(0, |stat| stat.start);
    ProcessId { pid, start, boot: boot().unwrap_or(0), inode: inode(pidfd) }
}

fn inode(pidfd: BorrowedFd<'_>) -> u64 {
    static HAS_INODES: OnceLock<bool> = OnceLock::new();
    let has = HAS_INODES.get().copied().or_else(|| {
        let has = rustix::fs::fstatfs(pidfd).ok()?.f_type as u64 == PID_FS_MAGIC;
        Some(*HAS_INODES.get_or_init(|| has))
    });
    if has != Some(true) {
        return 0;
    }
    rustix::fs::fstat(pidfd).map_or(0, |stat| stat.st_ino)
}

/// Which boot this is. A failure is not remembered: descriptors may be there again the next time.
fn boot() -> Result<u128> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    static BOOT: OnceLock<u128> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(*boot);
    }
    let text = read_proc(FILE).map_err(|e| Error::os(format!("read {FILE}"), e))?;
    let boot = u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0);
    Ok(*BOOT.get_or_init(|| boot))
}

/// A member as it is listed.
pub(crate) fn describe(pid: u32, pidfd: BorrowedFd<'_>, proc: Option<&Proc>) -> Process {
    describe_with_stat(pid, pidfd, proc).0
}

/// The same, with the statistics that the kernel shows of it, if they can be read.
pub(crate) fn describe_with_stat(
    pid: u32,
    pidfd: BorrowedFd<'_>,
    proc: Option<&Proc>,
) -> (Process, Option<Stat>) {
    let stat = proc.and_then(|proc| proc.stat(pid as i32).ok());
    let id = with_start(pid, pidfd, stat.as_ref());
    let parent = stat.as_ref().and_then(|stat| u32::try_from(stat.parent).ok());
    let name = stat.as_ref().map(name_of).unwrap_or_default();
    let process = Process { id, parent, name, is_caller: pid == std::process::id() };
    // Without a start time, they can be those of another process.
    (process, stat.filter(|_| id.start != 0))
}

fn name_of(stat: &Stat) -> String {
    let name = stat.name.get(..stat.name_len).unwrap_or(&[]);
    String::from_utf8_lossy(name).into_owned()
}
