//! Lifelines: an inherited descriptor whose other end belongs to another process, or a process. When that
//! end is closed or that process has exited, the process tree ends.

use std::{
    fs,
    os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, OFlags, Stat, fcntl_getfl, fstat},
    io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd},
    net::{AddressFamily, SocketType, getpeername, sockopt},
    process::{Pid, PidfdFlags, getppid, pidfd_open},
    termios::isatty,
};

use crate::os::LifelineProcess;

/// No data is read from it: it may be CMD's standard input.
#[derive(Debug)]
pub(crate) struct Lifeline {
    fd: OwnedFd,
    /// The events to poll for, in addition to a hang-up.
    events: PollFlags,
}

impl Lifeline {
    /// Takes an inherited descriptor. CMD does not inherit it, unless it is a standard stream.
    ///
    /// To be called before this process opens any file: otherwise the number could be that file's.
    pub(crate) fn take(number: RawFd) -> Result<Lifeline, String> {
        let refuse = |why: &str| format!("descriptor {number} cannot be a lifeline: {why}");
        // SAFETY: the number is only used for calls that fail with EBADF if it is closed, and this process
        // has opened no file yet that could be closed meanwhile.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        // An inherited descriptor has survived an exec. With FD_CLOEXEC it is a substitute for a closed
        // standard stream.
        if !fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            return Err(refuse("it is not open (open it in the shell: 7< <(cat))"));
        }
        let events = events_of(fd).map_err(refuse)?;
        let held = if number > 2 {
            fcntl_setfd(fd, FdFlags::CLOEXEC)
                // SAFETY: the descriptor is open, was inherited, and no other value in this process owns it.
                .map(|()| unsafe { OwnedFd::from_raw_fd(number) })
        } else {
            fcntl_dupfd_cloexec(fd, 3)
        };
        held.map(|fd| Lifeline { fd, events }).map_err(|error| refuse(&error.to_string()))
    }

    /// Watches a process. `None` if it has exited already.
    ///
    /// The parent is the process that getppid(2) returns: if the process that started onejob has exited
    /// before this call, that is the process that adopted onejob.
    pub(crate) fn of_process(process: LifelineProcess) -> Result<Option<Lifeline>, String> {
        let name = |pid: Pid| match process {
            LifelineProcess::Parent => "the parent process".to_owned(),
            LifelineProcess::Pid(_) => format!("process {pid}"),
        };
        let pid = match process {
            LifelineProcess::Parent => getppid().ok_or(
                "the parent process cannot be a lifeline: it is outside of this PID namespace",
            )?,
            LifelineProcess::Pid(pid) => {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                pid.ok_or("0 cannot be a lifeline: it is not a process")?
            }
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // The number of a parent that has exited in the meantime may belong to another process.
            Ok(_) if process == LifelineProcess::Parent && getppid() != Some(pid) => Ok(None),
            Ok(fd) => Ok(Some(Lifeline { fd, events: PollFlags::IN })),
            Err(Errno::SRCH) if process == LifelineProcess::Parent => Ok(None),
            Err(Errno::SRCH) => {
                Err(format!("{} cannot be a lifeline: it does not exist", name(pid)))
            }
            Err(error) => Err(format!("{} cannot be a lifeline: pidfd_open: {error}", name(pid))),
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [self.poll_fd()], Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Ready when the other end is closed, even if unread data is left, or when the process has exited.
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.fd, self.events)
    }
}

/// The poll events, in addition to a hang-up, that mean that the other end is closed. An error if there
/// is no other end, or if this process holds it too.
fn events_of(fd: BorrowedFd<'_>) -> Result<PollFlags, &'static str> {
    let Ok(stat) = fstat(fd) else { return Err("fstat failed") };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo if holds_other_end(fd, &stat) => Err(
            "its other end is open in onejob too, so it would never be closed (close it in the shell)",
        ),
        FileType::Fifo => Ok(PollFlags::empty()),
        FileType::CharacterDevice if isatty(fd) => Ok(PollFlags::empty()),
        FileType::Socket
            if getpeername(fd).is_err() || sockopt::socket_type(fd) == Ok(SocketType::DGRAM) =>
        {
            Err("it is a socket without a connection")
        }
        // A closed local peer hangs up; a half-closed one (as sshd leaves it for ssh -n) still exists.
        // For a remote peer, a half-close and a close look the same.
        FileType::Socket => match sockopt::socket_domain(fd) {
            Ok(AddressFamily::UNIX) => Ok(PollFlags::empty()),
            _ => Ok(PollFlags::RDHUP),
        },
        FileType::RegularFile => {
            Err("a regular file has no other end (use a pipe, a socket or a terminal)")
        }
        _ => Err("it has no other end (use a pipe, a socket or a terminal)"),
    }
}

/// Whether the other end of this pipe is open in this process, and hence in CMD.
fn holds_other_end(fd: BorrowedFd<'_>, pipe: &Stat) -> bool {
    let access = |fd: BorrowedFd<'_>| fcntl_getfl(fd).map(|flags| flags & OFlags::ACCMODE);
    let Ok(own) = access(fd) else { return false };
    if own == OFlags::RDWR {
        return true;
    }
    let is_other = |number: RawFd| {
        // SAFETY: only fstat and F_GETFL use it, which fail with EBADF if it is closed already.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let same = fstat(fd).is_ok_and(|it| (it.st_dev, it.st_ino) == (pipe.st_dev, pipe.st_ino));
        same && access(fd).is_ok_and(|access| access != own)
    };
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return false };
    let mut numbers =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.any(is_other)
}
