//! System calls with types: thin, named after the call, linked to its page by name.

pub(crate) mod raw;

use self::raw::{nr, syscall};

/// An error number of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

#[rustfmt::skip]
impl Errno {
    pub(crate) const PERM: Errno = Errno(1);      pub(crate) const NOENT: Errno = Errno(2);
    pub(crate) const SRCH: Errno = Errno(3);      pub(crate) const INTR: Errno = Errno(4);
    pub(crate) const NOEXEC: Errno = Errno(8);
    pub(crate) const CHILD: Errno = Errno(10);    pub(crate) const AGAIN: Errno = Errno(11);
    pub(crate) const NOMEM: Errno = Errno(12);    pub(crate) const ACCES: Errno = Errno(13);
    pub(crate) const BUSY: Errno = Errno(16);
    pub(crate) const NODEV: Errno = Errno(19);    pub(crate) const NOTDIR: Errno = Errno(20);
    pub(crate) const INVAL: Errno = Errno(22);    pub(crate) const NFILE: Errno = Errno(23);
    pub(crate) const MFILE: Errno = Errno(24);    pub(crate) const CANCELED: Errno = Errno(125);
    pub(crate) const NOSYS: Errno = Errno(38);
    pub(crate) const FBIG: Errno = Errno(27);
    pub(crate) const TIMEDOUT: Errno = Errno(110); pub(crate) const STALE: Errno = Errno(116);
    pub(crate) const OPNOTSUPP: Errno = Errno(95); pub(crate) const CONNRESET: Errno = Errno(104);
    pub(crate) const TOOBIG: Errno = Errno(7);     pub(crate) const BADMSG: Errno = Errno(74);
    /// Not the kernel's: a message of an older or a newer version than ours.
    pub(crate) const FROM_OLDER: Errno = Errno(-1);
    pub(crate) const FROM_NEWER: Errno = Errno(-2);
}

pub(crate) type Result<T> = core::result::Result<T, Errno>;

pub(crate) const SIGKILL: i32 = 9;
pub(crate) const SIGCHLD: i32 = 17;
pub(crate) const SIGCONT: i32 = 18;
pub(crate) const SIGSTOP: i32 = 19;
pub(crate) const SIGPIPE: i32 = 13;

pub(crate) const CLONE_VM: u64 = 0x100;
pub(crate) const CLONE_FILES: u64 = 0x400;
pub(crate) const CLONE_PIDFD: u64 = 0x1000;
pub(crate) const CLONE_VFORK: u64 = 0x4000;
pub(crate) const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
pub(crate) const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

pub(crate) const O_WRONLY: i32 = 1;
pub(crate) const O_DIRECTORY: i32 = if cfg!(target_arch = "aarch64") { 0o40000 } else { 0o200000 };
pub(crate) const O_NOFOLLOW: i32 = if cfg!(target_arch = "aarch64") { 0o100000 } else { 0o400000 };
pub(crate) const O_CLOEXEC: i32 = 0o2000000;
pub(crate) const AT_REMOVEDIR: usize = 0x200;
pub(crate) const AT_EMPTY_PATH: usize = 0x1000;

pub(crate) const POLLIN: i16 = 1;
pub(crate) const POLLPRI: i16 = 2;
pub(crate) const POLLOUT: i16 = 4;

/// A descriptor that closes itself.
pub(crate) struct Fd(pub(crate) i32);

impl Fd {
    pub(crate) fn raw(&self) -> i32 {
        self.0
    }

    /// Gives the descriptor up without closing it.
    pub(crate) fn into_raw(self) -> i32 {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        if self.0 >= 0 {
            close(self.0);
        }
    }
}

/// A path or word, ended by NUL.
pub(crate) type CStr = core::ffi::CStr;

fn path(text: &CStr) -> usize {
    text.as_ptr() as usize
}

fn fd(raw: i32) -> usize {
    raw as isize as usize
}

fn retry_eintr<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            answer => return answer,
        }
    }
}

pub(crate) fn close(raw: i32) {
    // SAFETY: the caller owns the descriptor; an error means it is closed all the same.
    let _ = unsafe { syscall(nr::CLOSE, [fd(raw), 0, 0, 0, 0, 0]) };
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_range(first: i32) {
    // SAFETY: only a guard or a child calls this, in a descriptor table of its own.
    let closed =
        unsafe { syscall(raw::CLOSE_RANGE, [first as usize, u32::MAX as usize, 0, 0, 0, 0]) };
    if closed.is_err() {
        // Before Linux 5.9: as many as a process usually may have.
        const USUAL: i32 = 4096;
        (first..USUAL).for_each(close);
    }
}

/// Closes these, which are ours.
pub(crate) fn close_all(fds: &[i32]) {
    let follows = |pair: &[i32]| matches!(*pair, [before, after] if after == before + 1);
    // Those that came in one message mostly have numbers in a row.
    if let [first, .., last] = *fds
        && first >= 0
        && fds.windows(2).all(follows)
    {
        let (first, last) = (first as usize, last as usize);
        // SAFETY: the caller's.
        if unsafe { syscall(raw::CLOSE_RANGE, [first, last, 0, 0, 0, 0]) }.is_ok() {
            return;
        }
    }
    fds.iter().filter(|fd| **fd >= 0).for_each(|fd| close(*fd));
}

pub(crate) fn read(from: i32, into: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into the buffer.
    retry_eintr(|| unsafe {
        syscall(nr::READ, [fd(from), into.as_mut_ptr() as usize, into.len(), 0, 0, 0])
    })
}

/// Reads from the start of the file, wherever its offset is.
pub(crate) fn pread(from: i32, into: &mut [u8]) -> Result<usize> {
    let (at, len) = (into.as_mut_ptr() as usize, into.len());
    // SAFETY: the kernel writes at most `len` bytes into the buffer.
    retry_eintr(|| unsafe { syscall(nr::PREAD64, [fd(from), at, len, 0, 0, 0]) })
}

pub(crate) fn write(to: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the kernel reads `len` bytes from the buffer.
    retry_eintr(|| unsafe {
        syscall(nr::WRITE, [fd(to), bytes.as_ptr() as usize, bytes.len(), 0, 0, 0])
    })
}

pub(crate) fn write_all(to: i32, bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = write(to, rest)?;
        rest = rest.get(written..).unwrap_or(&[]);
    }
    Ok(())
}

/// A memory file that can be executed.
pub(crate) fn memfd_create(name: &CStr) -> Result<Fd> {
    const CLOEXEC: usize = 1;
    const EXEC: usize = 0x10;
    // SAFETY: the name ends with NUL; the answer is a new descriptor that nobody else owns.
    let make = |flags| unsafe { syscall(nr::MEMFD_CREATE, [path(name), flags, 0, 0, 0, 0]) };
    // Linux knows EXEC since 6.3, and does not miss it before.
    let made = make(CLOEXEC | EXEC).or_else(|errno| match errno {
        Errno::INVAL => make(CLOEXEC),
        errno => Err(errno),
    });
    made.map(|raw| Fd(raw as i32))
}

pub(crate) fn openat(dir: i32, name: &CStr, flags: i32) -> Result<Fd> {
    let flags = (flags | O_CLOEXEC) as usize;
    // SAFETY: the name ends with NUL; the answer is a new descriptor that nobody else owns.
    let opened =
        retry_eintr(|| unsafe { syscall(nr::OPENAT, [fd(dir), path(name), flags, 0, 0, 0]) });
    opened.map(|raw| Fd(raw as i32))
}

/// The same, but of what is mounted at or below `name` nothing is opened (`openat2`, Linux 5.6).
pub(crate) fn openat_on_same_mount(dir: i32, name: &CStr, flags: i32) -> Result<Fd> {
    const RESOLVE_NO_XDEV: u64 = 1;
    // `struct open_how`: flags, mode, and how the name is resolved.
    let how = [(flags | O_CLOEXEC) as u64, 0, RESOLVE_NO_XDEV];
    let args = [fd(dir), path(name), how.as_ptr() as usize, size_of_val(&how), 0, 0];
    // SAFETY: the name ends with NUL, and the kernel reads one open_how, which has 24 bytes.
    retry_eintr(|| unsafe { syscall(raw::OPENAT2, args) }).map(|raw| Fd(raw as i32))
}

/// Changes the permissions of a file that is ours; nothing happens to another's.
pub(crate) fn fchmodat(dir: i32, name: &CStr, mode: usize) {
    // SAFETY: the name ends with NUL.
    let _ = unsafe { syscall(nr::FCHMODAT, [fd(dir), path(name), mode, 0, 0, 0]) };
}

/// The same of an open one.
pub(crate) fn fchmod(file: i32, mode: usize) {
    // SAFETY: no pointer is passed.
    let _ = unsafe { syscall(nr::FCHMOD, [fd(file), mode, 0, 0, 0, 0]) };
}

/// Has the next read of an open file, or the next listing of an open directory, begin there.
pub(crate) fn seek(file: i32, offset: u64) -> Result<()> {
    // SAFETY: no pointer is passed; the offset is from the beginning.
    unsafe { syscall(nr::LSEEK, [fd(file), offset as usize, 0, 0, 0, 0]) }.map(drop)
}

pub(crate) fn rmdirat(dir: i32, name: &CStr) -> Result<()> {
    // SAFETY: the name ends with NUL.
    unsafe { syscall(nr::UNLINKAT, [fd(dir), path(name), AT_REMOVEDIR, 0, 0, 0]) }.map(drop)
}

pub(crate) fn unlinkat(dir: i32, name: &CStr) -> Result<()> {
    // SAFETY: the name ends with NUL.
    unsafe { syscall(nr::UNLINKAT, [fd(dir), path(name), 0, 0, 0, 0]) }.map(drop)
}

/// Waits for the exclusive lock on an open file, which goes with its last descriptor.
pub(crate) fn flock_exclusive(file: i32) -> Result<()> {
    const LOCK_EX: usize = 2;
    // SAFETY: no pointer is passed.
    retry_eintr(|| unsafe { syscall(nr::FLOCK, [fd(file), LOCK_EX, 0, 0, 0, 0]) }).map(drop)
}

/// Takes the exclusive lock if no other open file has one.
pub(crate) fn flock_exclusive_now(file: i32) -> Result<()> {
    const LOCK_EX_NB: usize = 2 | 4;
    // SAFETY: no pointer is passed.
    retry_eintr(|| unsafe { syscall(nr::FLOCK, [fd(file), LOCK_EX_NB, 0, 0, 0, 0]) }).map(drop)
}

/// Whether an open file belongs to the user we act as.
pub(crate) fn is_own(file: i32) -> bool {
    const STATX_UID: usize = 0x8;
    // `struct statx`, alike everywhere: the owner is its sixth word.
    let mut stat = [0_u32; 64];
    let (empty, at) = (path(c""), stat.as_mut_ptr() as usize);
    // SAFETY: the name ends with NUL, and the kernel writes one statx, which has 256 bytes.
    let seen = unsafe { syscall(nr::STATX, [fd(file), empty, AT_EMPTY_PATH, STATX_UID, at, 0]) };
    // SAFETY: takes nothing, cannot fail.
    let me = unsafe { syscall(nr::GETEUID, [0; 6]) };
    seen.is_ok() && me == Ok(stat[5] as usize)
}

/// How many links a file of this name has.
pub(crate) fn nlink(dir: i32, name: &CStr) -> Result<u32> {
    const STATX_NLINK: usize = 0x4;
    // `struct statx`, alike everywhere: the number of links is its fifth word.
    let mut stat = [0_u32; 64];
    let at = stat.as_mut_ptr() as usize;
    // SAFETY: the name ends with NUL, and the kernel writes one statx, which has 256 bytes.
    unsafe { syscall(nr::STATX, [fd(dir), path(name), 0, STATX_NLINK, at, 0]) }?;
    Ok(stat[4])
}

/// The inode of an open file.
pub(crate) fn inode_of(file: i32) -> Result<u64> {
    const STATX_INO: usize = 0x100;
    // `struct statx`, alike everywhere: the inode is its fifth 64-bit word.
    let mut stat = [0_u64; 32];
    let (empty, at) = (path(c""), stat.as_mut_ptr() as usize);
    // SAFETY: the name ends with NUL, and the kernel writes one statx, which has 256 bytes.
    unsafe { syscall(nr::STATX, [fd(file), empty, AT_EMPTY_PATH, STATX_INO, at, 0]) }?;
    Ok(stat[4])
}

pub(crate) fn readlinkat(dir: i32, name: &CStr, into: &mut [u8]) -> Result<usize> {
    let (at, len) = (into.as_mut_ptr() as usize, into.len());
    // SAFETY: the name ends with NUL, and at most `len` bytes are written into the buffer.
    unsafe { syscall(nr::READLINKAT, [fd(dir), path(name), at, len, 0, 0]) }
}

/// Whether the file has this extended attribute.
pub(crate) fn has_xattr(file: i32, name: &CStr) -> bool {
    // SAFETY: the name ends with NUL; with size 0 nothing is written.
    unsafe { syscall(nr::FGETXATTR, [fd(file), path(name), 0, 0, 0, 0]) }.is_ok()
}

pub(crate) fn getdents(dir: i32, into: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into the buffer.
    unsafe { syscall(nr::GETDENTS64, [fd(dir), into.as_mut_ptr() as usize, into.len(), 0, 0, 0]) }
}

pub(crate) fn getpid() -> i32 {
    // SAFETY: cannot fail and touches nothing.
    unsafe { syscall(nr::GETPID, [0; 6]) }.unwrap_or(0) as i32
}

pub(crate) fn getppid() -> i32 {
    // SAFETY: cannot fail and touches nothing.
    unsafe { syscall(nr::GETPPID, [0; 6]) }.unwrap_or(0) as i32
}

/// The calling process' group; 0 if its leader is not of our PID namespace.
pub(crate) fn own_group() -> i32 {
    // SAFETY: cannot fail for ourselves and touches nothing.
    unsafe { syscall(nr::GETPGID, [0; 6]) }.unwrap_or(0) as i32
}

/// Joins a process group of this session, or leads a new one (0).
pub(crate) fn join_group(group: i32) {
    // SAFETY: changes the group of this process.
    let _ = unsafe { syscall(nr::SETPGID, [0, group as usize, 0, 0, 0, 0]) };
}

/// The session of a process, 0 being the calling one; 0 if its leader is not of our PID namespace.
pub(crate) fn session_of(pid: i32) -> i32 {
    // SAFETY: touches nothing.
    unsafe { syscall(nr::GETSID, [pid as usize, 0, 0, 0, 0, 0]) }.unwrap_or(0) as i32
}

pub(crate) fn pidfd_open(pid: i32) -> Result<Fd> {
    // SAFETY: the answer is a new descriptor that nobody else owns.
    unsafe { syscall(raw::PIDFD_OPEN, [pid as usize, 0, 0, 0, 0, 0]) }.map(|raw| Fd(raw as i32))
}

/// Sends `signal` (0: only asks whether it could) to exactly the process behind the pidfd.
pub(crate) fn pidfd_send_signal(pidfd: i32, signal: i32) -> Result<()> {
    // SAFETY: no pointer is passed; what a signal does is the caller's intent.
    unsafe { syscall(raw::PIDFD_SEND_SIGNAL, [fd(pidfd), signal as usize, 0, 0, 0, 0]) }.map(drop)
}

/// To the process group that the process leads or led (Linux 6.9).
#[allow(dead_code, reason = "the guard signals no groups")]
pub(crate) fn pidfd_signal_group(pidfd: i32, signal: i32) -> Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: usize = 1 << 2;
    let args = [fd(pidfd), signal as usize, 0, PIDFD_SIGNAL_PROCESS_GROUP, 0, 0];
    // SAFETY: as above.
    unsafe { syscall(raw::PIDFD_SEND_SIGNAL, args) }.map(drop)
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PollFd {
    pub(crate) fd: i32,
    pub(crate) events: i16,
    pub(crate) revents: i16,
}

impl PollFd {
    pub(crate) fn new(fd: i32, events: i16) -> PollFd {
        PollFd { fd, events, revents: 0 }
    }

    pub(crate) fn fired(&self) -> bool {
        self.revents != 0
    }
}

/// Waits up to `milliseconds` (negative: for ever). Interruptions count as nothing having happened.
pub(crate) fn poll(fds: &mut [PollFd], milliseconds: i32) -> usize {
    let timeout = [i64::from(milliseconds / 1000), i64::from(milliseconds % 1000) * 1_000_000];
    let timeout_at = if milliseconds < 0 { 0 } else { timeout.as_ptr() as usize };
    // SAFETY: the kernel writes `revents` of exactly these entries and reads the timeout.
    unsafe { syscall(nr::PPOLL, [fds.as_mut_ptr() as usize, fds.len(), timeout_at, 0, 0, 0]) }
        .unwrap_or(0)
}

/// Microseconds of a clock that only goes forward.
pub(crate) fn now() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    let mut time = [0_u64; 2];
    let at = time.as_mut_ptr() as usize;
    // SAFETY: the kernel writes one timespec.
    let _ = unsafe { syscall(nr::CLOCK_GETTIME, [CLOCK_MONOTONIC, at, 0, 0, 0, 0]) };
    time[0].wrapping_mul(1_000_000).wrapping_add(time[1] / 1000)
}

/// Whether a pidfd's process is dead with all its threads. A zombie is.
pub(crate) fn is_dead(pidfd: i32) -> bool {
    let mut fds = [PollFd::new(pidfd, POLLIN)];
    poll(&mut fds, 0) == 1 && fds[0].revents & POLLIN != 0
}

/// `struct pidfd_info` in its first version, as `PIDFD_GET_INFO` fills it (`pidfd.h`).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// Its number and thread group, its parent, then users and groups.
    ids: [u32; 11],
    exit_code: i32,
}

fn pidfd_info(pidfd: i32, mask: u64) -> Result<PidfdInfo> {
    const PIDFD_GET_INFO: usize = 0xC000_FF0B | size_of::<PidfdInfo>() << 16;
    let mut info = PidfdInfo { mask, ..PidfdInfo::default() };
    // SAFETY: the request carries the size of the struct, which the kernel does not exceed.
    unsafe { syscall(nr::IOCTL, [fd(pidfd), PIDFD_GET_INFO, &raw mut info as usize, 0, 0, 0]) }?;
    if info.mask & mask == mask { Ok(info) } else { Err(Errno::NODEV) }
}

/// The parent of exactly the process behind the pidfd; `Errno::SRCH` if that was reaped. Another error
/// says that the kernel cannot tell (before Linux 6.13).
pub(crate) fn parent_of(pidfd: i32) -> Result<i32> {
    const PIDFD_INFO_PID: u64 = 1 << 0;
    pidfd_info(pidfd, PIDFD_INFO_PID).map(|info| info.ids[2] as i32)
}

/// The number of the cgroup that the process behind the pidfd is in, which is its directory's inode
/// (Linux 6.13).
pub(crate) fn cgroup_of(pidfd: i32) -> Option<u64> {
    const PIDFD_INFO_CGROUPID: u64 = 1 << 2;
    pidfd_info(pidfd, PIDFD_INFO_CGROUPID).ok().map(|info| info.cgroup)
}

/// How a process that was reaped ended, whoever has done that (Linux 6.15).
pub(crate) fn exit_code(pidfd: i32) -> Option<i32> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    pidfd_info(pidfd, PIDFD_INFO_EXIT).ok().map(|info| info.exit_code)
}

/// A child that has ended, as `waitid` tells it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExitedChild {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    pub(crate) pid: i32,
    uid: u32,
    status: i32,
    rest: [i32; 25],
}

impl ExitedChild {
    /// The status in the encoding of `wait(2)`.
    pub(crate) fn wait_status(&self) -> i32 {
        match self.code {
            1 => (self.status & 0xff) << 8, // CLD_EXITED
            3 => self.status | 0x80,        // CLD_DUMPED
            _ => self.status,               // CLD_KILLED
        }
    }
}

const WNOHANG: usize = 1;
const WSTOPPED: usize = 2;
const WEXITED: usize = 4;

/// Reaps one child that has ended: `None` if there is none yet, `Errno::CHILD` if there are no
/// children at all.
pub(crate) fn reap_any() -> Result<Option<ExitedChild>> {
    let mut ended = ExitedChild::default();
    let at = &raw mut ended as usize;
    // SAFETY: the kernel writes a siginfo, for which `Ended` has room.
    retry_eintr(|| unsafe { syscall(nr::WAITID, [0, 0, at, WEXITED | WNOHANG, 0, 0]) })?;
    Ok((ended.pid != 0).then_some(ended))
}

/// Whether the child behind a pidfd was stopped since this was last asked.
pub(crate) fn was_stopped(pidfd: i32) -> bool {
    let mut stopped = ExitedChild::default();
    let at = &raw mut stopped as usize;
    const P_PIDFD: usize = 3;
    // SAFETY: the kernel writes a siginfo, for which `Ended` has room.
    let asked = unsafe { syscall(nr::WAITID, [P_PIDFD, fd(pidfd), at, WSTOPPED | WNOHANG, 0, 0]) };
    asked.is_ok() && stopped.pid != 0
}

/// Waits for and reaps the child behind a pidfd, also one without an exit signal.
pub(crate) fn reap(pidfd: i32, block: bool) -> Result<Option<ExitedChild>> {
    let mut ended = ExitedChild::default();
    let at = &raw mut ended as usize;
    const P_PIDFD: usize = 3;
    // Without __WALL the kernel overlooks children whose exit signal is not SIGCHLD.
    const WALL: usize = 0x4000_0000;
    let options = WEXITED | if block { 0 } else { WNOHANG };
    // SAFETY: the kernel writes a siginfo, for which `Ended` has room.
    retry_eintr(|| unsafe { syscall(nr::WAITID, [P_PIDFD, fd(pidfd), at, options | WALL, 0, 0]) })?;
    Ok((ended.pid != 0).then_some(ended))
}

pub(crate) fn prctl(option: usize, argument: usize) -> Result<()> {
    // SAFETY: used with options that take a number or a static name.
    unsafe { syscall(nr::PRCTL, [option, argument, 0, 0, 0, 0]) }.map(drop)
}

pub(crate) const PR_SET_NAME: usize = 15;
pub(crate) const PR_SET_CHILD_SUBREAPER: usize = 36;

/// Sets the thread's signal mask and returns the old one.
pub(crate) fn set_mask(mask: u64) -> u64 {
    let mut old = 0_u64;
    let (new, was) = (&raw const mask as usize, &raw mut old as usize);
    const SIG_SETMASK: usize = 2;
    // SAFETY: both point to 64-bit signal sets, whose size is passed.
    let _ = unsafe { syscall(nr::RT_SIGPROCMASK, [SIG_SETMASK, new, was, 8, 0, 0]) };
    old
}

/// Sets the disposition of every signal: these ignored, all others default. 32 and 33 are the C
/// library's own, and std passes them on as they are.
pub(crate) fn set_dispositions(ignored: u64) {
    for signal in (1..=31).chain(34..=64) {
        set_disposition(signal, ignored & (1 << (signal - 1)) != 0);
    }
}

/// Makes a signal ignored or gives it its default action. Fails for KILL and STOP, harmlessly.
pub(crate) fn set_disposition(signal: i32, ignored: bool) {
    let action = [usize::from(ignored), 0, 0, 0];
    let at = action.as_ptr() as usize;
    // SAFETY: the kernel's sigaction is a handler (0 default, 1 ignore), flags, a restorer where
    // the architecture has one, and a mask of 8 bytes: at most these four words, all zero.
    let _ = unsafe { syscall(nr::RT_SIGACTION, [signal as usize, at, 0, 8, 0, 0]) };
}

/// Whether a signal is ignored.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let mut action = [0_usize; 4];
    let at = action.as_mut_ptr() as usize;
    // SAFETY: the kernel writes one sigaction, for which four words have room.
    let _ = unsafe { syscall(nr::RT_SIGACTION, [signal as usize, 0, at, 8, 0, 0]) };
    action[0] == 1
}

/// A descriptor that becomes readable when a blocked signal of the set is pending.
pub(crate) fn signalfd(set: u64) -> Result<Fd> {
    let at = &raw const set as usize;
    const NONBLOCK_CLOEXEC: usize = 0o2004000;
    // SAFETY: points to a 64-bit signal set; the answer is a new descriptor.
    unsafe { syscall(nr::SIGNALFD4, [usize::MAX, at, 8, NONBLOCK_CLOEXEC, 0, 0]) }
        .map(|raw| Fd(raw as i32))
}

/// A child with a copy of this memory, and a pidfd of it, by the old call that no seccomp filter
/// refuses; `None` in the child.
///
/// # Safety
/// In a multithreaded process the child may only use this floor.
pub(crate) unsafe fn fork(exit_signal: i32) -> Result<Option<(i32, Fd)>> {
    let mut pidfd = -1_i32;
    let flags = CLONE_PIDFD as usize | exit_signal as usize;
    // SAFETY: without CLONE_VM the child has its own copy of the stack this returns on; the kernel
    // writes one descriptor.
    let pid = unsafe { syscall(nr::CLONE, [flags, 0, &raw mut pidfd as usize, 0, 0, 0]) }?;
    Ok((pid != 0).then_some((pid as i32, Fd(pidfd))))
}

/// The arguments of the old `clone` call, which no seccomp filter refuses.
pub(crate) fn clone_args(
    flags: u64,
    exit_signal: i32,
    stack: *mut u8,
    pidfd: &mut i32,
) -> [usize; 5] {
    [(flags | exit_signal as u64) as usize, stack as usize, &raw mut *pidfd as usize, 0, 0]
}

/// Which argument of `clone` is the address where the pidfd goes, …
pub(crate) const PIDFD: usize = 2;

/// … and which that of the child's thread number.
pub(crate) const CHILD_TID: usize = if cfg!(target_arch = "x86_64") { 3 } else { 4 };

/// The argument of `clone3(2)`, in its version of 88 bytes (Linux 5.7).
#[repr(C)]
#[derive(Default)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

/// `clone3` without a stack: a child with a copy of this memory; `None` in the child.
///
/// # Safety
/// As [`fork`]; `args` must not share memory.
pub(crate) unsafe fn clone3(args: &CloneArgs) -> Result<Option<i32>> {
    let (at, size) = (&raw const *args as usize, size_of::<CloneArgs>());
    // SAFETY: as in `fork`.
    let pid = unsafe { syscall(raw::CLONE3, [at, size, 0, 0, 0, 0]) }?;
    Ok((pid != 0).then_some(pid as i32))
}

pub(crate) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: ends this process; never returns.
        let _ = unsafe { syscall(nr::EXIT_GROUP, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

pub(crate) fn dup_to(from: i32, to: i32, flags: i32) -> Result<()> {
    // SAFETY: only a child or a guard calls this, in a descriptor table of its own.
    unsafe { syscall(nr::DUP3, [fd(from), fd(to), flags as usize, 0, 0, 0]) }.map(drop)
}

const F_DUPFD_CLOEXEC: usize = 1030;
const F_SETFD: usize = 2;

/// A copy with a number of at least `least`, closed on exec.
pub(crate) fn dup_above(from: i32, least: i32) -> Result<i32> {
    // SAFETY: makes a new descriptor.
    unsafe { syscall(nr::FCNTL, [fd(from), F_DUPFD_CLOEXEC, least as usize, 0, 0, 0]) }
        .map(|raw| raw as i32)
        // Said of a number that the limit of descriptors does not allow.
        .map_err(|errno| if errno == Errno::INVAL { Errno::MFILE } else { errno })
}

pub(crate) fn set_cloexec(raw: i32, on: bool) -> Result<()> {
    // SAFETY: changes a flag of a descriptor.
    unsafe { syscall(nr::FCNTL, [fd(raw), F_SETFD, usize::from(on), 0, 0, 0]) }.map(drop)
}

/// Whether the file is one of memory alone, such as [`memfd_create`] makes: only these have seals.
pub(crate) fn is_memory_file(file: i32) -> bool {
    const F_GET_SEALS: usize = 1034;
    // SAFETY: takes numbers.
    unsafe { syscall(nr::FCNTL, [fd(file), F_GET_SEALS, 0, 0, 0, 0]) }.is_ok()
}

/// Whether the kernel is of this release or a later one.
pub(crate) fn is_release(major: u32, minor: u32) -> bool {
    const FIELD: usize = 65;
    const RELEASE: usize = 2;
    let mut names = [0_u8; 6 * FIELD];
    let at = names.as_mut_ptr() as usize;
    // SAFETY: the kernel writes six names of that size.
    if unsafe { syscall(nr::UNAME, [at, 0, 0, 0, 0, 0]) }.is_err() {
        return false;
    }
    let release = names.get(RELEASE * FIELD..).unwrap_or(&[]);
    let mut numbers = release.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        let digit =
            |number: u32, digit: &u8| number.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'));
        digits.iter().fold(0, digit)
    });
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// Whether the calling process may use as much of this resource as it wants.
pub(crate) fn is_unlimited(resource: usize) -> bool {
    let mut limit = [0_u64; 2];
    let at = limit.as_mut_ptr() as usize;
    // SAFETY: the kernel writes one rlimit pair.
    let read = unsafe { syscall(nr::PRLIMIT64, [0, resource, 0, at, 0, 0]) };
    read.is_ok() && limit == [u64::MAX; 2]
}
