//! A descriptor whose other end is somebody else's: when that is closed, they are gone.

use std::{
    fs,
    os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, OFlags, Stat, fcntl_getfl, fstat},
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd},
    net::{AddressFamily, SocketType, getpeername, sockopt},
    termios::isatty,
};

/// What is to be had from it is never read: it may be CMD's standard input.
#[derive(Debug)]
pub(crate) struct Lifeline {
    fd: OwnedFd,
    end: PollFlags,
}

impl Lifeline {
    /// Holds on to an inherited descriptor. CMD does not get it, unless as a standard stream.
    ///
    /// To be called before anything of ours is opened, or the number could be ours.
    pub(crate) fn hold(number: RawFd) -> Result<Lifeline, String> {
        let refuse = |why: &str| format!("descriptor {number} cannot be a lifeline: {why}");
        // SAFETY: nothing of ours is open yet that could be closed while this is used.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        // Inherited is only what survives an exec: anything else stands for a closed stream.
        if !fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            return Err(refuse("it is not open (open it in the shell, as in 7< <(cat))"));
        }
        let end = end_of(fd).map_err(refuse)?;
        let held = if number > 2 {
            fcntl_setfd(fd, FdFlags::CLOEXEC)
                // SAFETY: an open descriptor that we were given, and that nobody uses yet.
                .map(|()| unsafe { OwnedFd::from_raw_fd(number) })
        } else {
            fcntl_dupfd_cloexec(fd, 3)
        };
        held.map(|fd| Lifeline { fd, end }).map_err(|error| refuse(&error.to_string()))
    }

    pub(crate) fn is_cut(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [self.polled()], Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Ready when the other end is closed, whatever there still is to be read.
    pub(super) fn polled(&self) -> PollFd<'_> {
        PollFd::new(&self.fd, self.end)
    }
}

/// What tells, beside a hang-up, that its other end is closed: it has one, and we do not hold that
/// ourselves.
fn end_of(fd: BorrowedFd<'_>) -> Result<PollFlags, &'static str> {
    let Ok(stat) = fstat(fd) else { return Err("it cannot be looked at") };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo if holds_other_end(fd, &stat) => {
            Err("we hold its other end, too, and it would never be closed (close it in the shell)")
        }
        FileType::Fifo => Ok(PollFlags::empty()),
        FileType::CharacterDevice if isatty(fd) => Ok(PollFlags::empty()),
        FileType::Socket
            if getpeername(fd).is_err() || sockopt::socket_type(fd) == Ok(SocketType::DGRAM) =>
        {
            Err("it is a socket without a connection")
        }
        // A closed local peer hangs up; one that has only said all it had to say (as sshd does for
        // ssh -n) is still there. A remote one that is gone looks the same as that.
        FileType::Socket => match sockopt::socket_domain(fd) {
            Ok(AddressFamily::UNIX) => Ok(PollFlags::empty()),
            _ => Ok(PollFlags::RDHUP),
        },
        FileType::RegularFile => {
            Err("a file has no other end (a pipe, a socket or a terminal has)")
        }
        _ => Err("it has no other end (a pipe, a socket or a terminal has)"),
    }
}

/// Whether the other end of this pipe is among our own descriptors, and hence among CMD's.
fn holds_other_end(fd: BorrowedFd<'_>, pipe: &Stat) -> bool {
    let access = |fd: BorrowedFd<'_>| fcntl_getfl(fd).map(|flags| flags & OFlags::ACCMODE);
    let Ok(ours) = access(fd) else { return false };
    if ours == OFlags::RDWR {
        return true;
    }
    let is_other = |number: RawFd| {
        // SAFETY: only asked what it is; if it is closed already, that fails.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let same = fstat(fd).is_ok_and(|it| (it.st_dev, it.st_ino) == (pipe.st_dev, pipe.st_ino));
        same && access(fd).is_ok_and(|access| access != ours)
    };
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return false };
    let mut numbers =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.any(is_other)
}
