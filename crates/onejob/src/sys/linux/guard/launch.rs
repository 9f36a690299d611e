//! Starting the outer guard, without waiting for it.
//!
//! It becomes nobody's child: an intermediate process starts it and ends. So a `waitpid(-1)` of the
//! owner never meets it, and since the intermediate one has no exit signal, no `SIGCHLD` tells of it
//! either. Both share our memory, so that the price does not grow with that: the intermediate one
//! while we are suspended, the guard while we go on, until it executes its program. What it reads of
//! ours meanwhile stays where it is.
//!
//! The intermediate process also shares our descriptors, so the pidfd of the guard that `clone` makes
//! for it is ours: we know the outer guard, and its end, without a word of its own.
//!
//! Not suspended, we would be first: a kernel may keep a new process on the processor of its parent,
//! where it begins when that waits.

use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::thread::futex;

use crate::sys::linux::{
    nostd::{
        guard::{self, GuardTask, Memory, rlimit},
        syscall::{
            self, CLONE_CHILD_CLEARTID, CLONE_FILES, CLONE_PIDFD, CLONE_VFORK, CLONE_VM, Errno,
            SIGCHLD, SIGCONT,
            raw::{self, nr},
        },
    },
    process::fork_detect::ProcessToken,
};

/// The guard program, as the build script made it; empty where it could not.
#[cfg(guard_program)]
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/onejob-guard"));
#[cfg(not(guard_program))]
static PROGRAM: &[u8] = &[];

/// What a pair of guards is to take down when this process is gone, besides whatever it starts.
#[derive(Clone, Copy)]
pub(crate) struct GuardConfig<'a> {
    /// The cgroups below this one whose names start so. The guards stay where we are now.
    pub(crate) cgroups: Option<(BorrowedFd<'a>, &'a str)>,
    /// The records in this directory whose names start so.
    pub(crate) records: Option<(&'a Path, &'a str)>,
    /// The socket of the bus of a service manager that is to put them into a scope.
    pub(crate) bus: Option<&'a Path>,
}

impl GuardConfig<'_> {
    /// As the guard program gets it. No name of ours has a NUL.
    pub(super) fn arguments(&self) -> [CString; 5] {
        let word = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
        let (registry, records) =
            self.records.map_or((&[][..], ""), |(dir, start)| (dir.as_os_str().as_bytes(), start));
        let prefix = self.cgroups.map_or("", |(_, prefix)| prefix);
        let bus = self.bus.map_or(&[][..], |path| path.as_os_str().as_bytes());
        let group = syscall::own_group().to_string();
        let [prefix, records, group] = [prefix, records, &group].map(|text| word(text.as_bytes()));
        [prefix, records, word(registry), word(bus), group]
    }
}

/// The outer guard on its way into its program.
pub(crate) struct Launch {
    road: Arc<LaunchState>,
    /// Whose memory the guard is in: not a forked copy's.
    owner: Option<ProcessToken>,
}

/// What the guard reads of ours until it has executed its program.
struct LaunchState {
    /// The first descriptors of the guard.
    fds: Vec<OwnedFd>,
    words: [CString; 5],
    /// Where the stacks of the two begin: theirs alone.
    tops: [usize; 2],
    _stacks: Stack,
    /// Whether the guard is a forked copy of us, with memory of its own from the start.
    is_copied: bool,
    /// Why the program could not be executed.
    exec_errno: AtomicI32,
    /// The guard's number, and its pidfd in our own table; 0 and -1 before there is one.
    pid: AtomicI32,
    pidfd: AtomicI32,
    /// 1 as long as the guard is in our memory: the kernel clears it and wakes who waits.
    in_our_memory: AtomicU32,
}

/// The outer guard, as the kernel names it.
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

const STACK: usize = 32 * 1024;

/// A forked guard runs on its stack for good, and does all its work there.
const STACK_OF_A_FORK: usize = 512 * 1024;

/// How long a guard that is still in our memory may take before it is continued: no event tells that a
/// process which is not our child was stopped.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

impl Launch {
    /// Starts the guard with these descriptors as its first ones, and these words.
    pub(crate) fn begin(fds: Vec<OwnedFd>, words: [CString; 5]) -> io::Result<Launch> {
        let road = Arc::new(LaunchState::new(fds, words, false)?);
        let launch = Launch { road, owner: ProcessToken::current().ok() };
        if PROGRAM.is_empty() {
            launch.road.exec_errno.store(Errno::NOSYS.0, Ordering::Relaxed);
        } else {
            launch.road.clone_intermediate()?;
        }
        Ok(launch)
    }

    /// Waits until the guard is a process of its own.
    pub(crate) fn wait_exec(mut self) -> std::result::Result<Started, Errno> {
        self.wait();
        match Errno(self.road.exec_errno.load(Ordering::Acquire)) {
            Errno(0) => {}
            errno if is_refusal(errno) => self.fork()?,
            errno => return Err(errno),
        }
        self.road.started().ok_or(Errno::SRCH)
    }

    fn wait(&self) {
        while self.owner.is_none_or(|owner| owner.is_current())
            && self.road.in_our_memory.load(Ordering::Acquire) == 1
        {
            let timeout = futex::Timespec::try_from(LOOK_AGAIN).ok();
            let _ =
                futex::wait(&self.road.in_our_memory, futex::Flags::empty(), 1, timeout.as_ref());
            if self.road.in_our_memory.load(Ordering::Acquire) == 1 {
                let _ =
                    syscall::pidfd_send_signal(self.road.pidfd.load(Ordering::Acquire), SIGCONT);
            }
        }
    }

    /// Without an executable memory file: the guards are forked copies of this process that run the
    /// same code. They pin the memory this process has now.
    fn fork(&mut self) -> std::result::Result<(), Errno> {
        let copy = |fd: &OwnedFd| fd.try_clone();
        let fds: io::Result<Vec<_>> = self.road.fds.iter().map(copy).collect();
        let fds = fds.map_err(|_| Errno::MFILE)?;
        let road = LaunchState::new(fds, self.road.words.clone(), true)?;
        self.road = Arc::new(road);
        self.road.clone_intermediate()
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        // Its stack and its words must not be anybody else's memory before.
        self.wait();
        drop(self.road.started());
    }
}

/// No memory files, or none that may be executed (vm.memfd_noexec, a security module) or written
/// (RLIMIT_FSIZE).
fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::ACCES | Errno::PERM | Errno::NOEXEC | Errno::FBIG)
}

impl LaunchState {
    fn new(
        fds: Vec<OwnedFd>,
        words: [CString; 5],
        is_copied: bool,
    ) -> std::result::Result<LaunchState, Errno> {
        let stack = if is_copied { STACK_OF_A_FORK } else { STACK };
        let mut stacks = Stack::new(STACK + stack)?;
        let tops = [STACK + stack, STACK].map(|size| stacks.top(size) as usize);
        let (errno, here) = (AtomicI32::new(0), AtomicU32::new(0));
        let (pid, pidfd) = (AtomicI32::new(0), AtomicI32::new(-1));
        Ok(LaunchState {
            fds,
            words,
            tops,
            _stacks: stacks,
            is_copied,
            exec_errno: errno,
            pid,
            pidfd,
            in_our_memory: here,
        })
    }

    /// Starts the guard, which goes on by itself.
    fn clone_intermediate(&self) -> std::result::Result<(), Errno> {
        let mut pidfd = -1;
        let top = self.tops[1] as *mut u8;
        let flags = CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_PIDFD;
        let args = syscall::clone_args(flags, 0, top, &mut pidfd);
        let all_blocked = Blocked::new();
        // SAFETY: a part of a fresh stack; the child is gone when this returns, and the guard that it
        // starts has what it needs in a place that `Launch` keeps until it has arrived.
        let pid = unsafe {
            let road = (&raw const *self).cast_mut().cast();
            raw::clone_to(nr::CLONE, args, intermediate, road)?
        };
        drop(all_blocked);
        // SAFETY: the kernel has written a new descriptor.
        let pidfd = unsafe { syscall::OwnedFd::from_raw(pidfd) };
        let ended = reap_intermediate(pid as i32, &pidfd);
        if self.pidfd.load(Ordering::Acquire) < 0 {
            // It was killed before it could start a guard, which would have cleared this.
            self.in_our_memory.store(0, Ordering::Release);
        }
        ended
    }

    /// The guard, once.
    fn started(&self) -> Option<Started> {
        let pidfd = self.pidfd.swap(-1, Ordering::AcqRel);
        // SAFETY: `clone` has made it for us, and nobody else has taken it.
        let own = |raw: i32| unsafe { OwnedFd::from_raw_fd(raw) };
        (pidfd >= 0).then(|| Started { pid: self.pid.load(Ordering::Acquire), pidfd: own(pidfd) })
    }
}

/// Leaves the owner's group for one that the outer guard is born into, and does not lead: whoever
/// kills the whole group of the owner is not to meet a guard that has not left the session yet.
fn leave_process_group() {
    // A group from outside our PID namespace has no number, and cannot be joined again.
    if syscall::own_group() != 0 {
        syscall::join_group(0);
    }
}

/// `Errno::OPNOTSUPP` where no pidfd can be waited for: the guards end with our end of the socket.
fn reap_intermediate(pid: i32, pidfd: &syscall::OwnedFd) -> std::result::Result<(), Errno> {
    use rustix::process::{Pid, WaitOptions, waitpid};
    const WALL: WaitOptions = WaitOptions::from_bits_retain(0x4000_0000);
    match syscall::reap(pidfd, true).map(|ended| ended.map_or(0, |it| it.wait_status())) {
        Err(Errno::INVAL) => {}
        // How it ends when it could not do what it is for.
        Ok(status) if status & 0x7f == 0 && status != 0 => return Err(Errno(status >> 8)),
        _ => return Ok(()),
    }
    // Not yet waited for, so the number is its own.
    let _ = waitpid(Pid::from_raw(pid), WALL);
    Err(Errno::OPNOTSUPP)
}

unsafe extern "C" fn intermediate(data: *mut u8) -> ! {
    // SAFETY: `set_out` passes a `Road`, and waits.
    let road = unsafe { &*data.cast::<LaunchState>() };
    leave_process_group();
    let mut unused = -1;
    let shared = if road.is_copied { 0 } else { CLONE_VM | CLONE_CHILD_CLEARTID };
    let top = road.tops[0] as *mut u8;
    let mut args = syscall::clone_args(shared | CLONE_PIDFD, SIGCHLD, top, &mut unused);
    args[syscall::PIDFD] = road.pidfd.as_ptr() as usize;
    args[syscall::CHILD_TID] = road.in_our_memory.as_ptr() as usize;
    road.in_our_memory.store(u32::from(!road.is_copied), Ordering::Release);
    let entry = if road.is_copied { become_copy } else { become_program };
    // SAFETY: the other part of the stack, in our memory or in a copy of it; the road stays until the
    // guard has left it.
    match unsafe { raw::clone_to(nr::CLONE, args, entry, data) } {
        Ok(pid) => road.pid.store(pid as i32, Ordering::Release),
        Err(errno) => {
            road.exec_errno.store(errno.0, Ordering::Release);
            road.in_our_memory.store(0, Ordering::Release);
        }
    }
    syscall::exit(0)
}

unsafe extern "C" fn become_program(data: *mut u8) -> ! {
    // SAFETY: a `Road` that is there until we have left this memory.
    let road = unsafe { &*data.cast::<LaunchState>() };
    let executed = place_descriptors(&road.fds).and_then(|()| rlimit::raise());
    let executed = executed.and_then(|()| program_file()).and_then(|program| {
        let [prefix, records, registry, bus, group] =
            road.words.each_ref().map(|word| word.as_ptr());
        let (argv, envp) = (
            [guard::NAME.as_ptr(), prefix, records, registry, bus, group, ptr::null()],
            [ptr::null::<u8>()],
        );
        let (argv, envp) = (argv.as_ptr() as usize, envp.as_ptr() as usize);
        let empty = c"".as_ptr() as usize;
        // SAFETY: an open program, and lists of strings that end with a null.
        unsafe {
            raw::syscall(
                nr::EXECVEAT,
                [program as usize, empty, argv, envp, syscall::AT_EMPTY_PATH, 0],
            )
        }
    });
    if let Err(errno) = executed {
        road.exec_errno.store(errno.0, Ordering::Release);
    }
    syscall::exit(127)
}

/// The program in a memory file. Here, for the owner has better things to do meanwhile.
fn program_file() -> std::result::Result<i32, Errno> {
    let file = syscall::memfd_create(guard::NAME)?;
    syscall::write_all(&file, PROGRAM)?;
    Ok(file.into_raw())
}

/// Puts the descriptors at 0, 1, ….
fn place_descriptors(fds: &[OwnedFd]) -> std::result::Result<(), Errno> {
    const CLEAR: i32 = 3;
    let mut moved = [const { None }; 3];
    for (slot, fd) in moved.iter_mut().zip(fds) {
        *slot = Some(syscall::dup_above(fd, CLEAR)?);
    }
    for (number, from) in moved.iter().flatten().enumerate() {
        // SAFETY: the guard has its own table of descriptors, and none of its code uses these numbers yet.
        unsafe { syscall::dup_to(from, number as i32) }?;
    }
    Ok(())
}

/// The guard in a copy of our memory, which it never leaves.
unsafe extern "C" fn become_copy(data: *mut u8) -> ! {
    // SAFETY: a copy of the `Road`, which nobody else has.
    let road = unsafe { &*data.cast::<LaunchState>() };
    if place_descriptors(&road.fds).is_err() {
        syscall::exit(127);
    }
    match rlimit::raise().and_then(|()| Memory::map()) {
        Ok(memory) => {
            let words = road.words.each_ref().map(AsRef::<CStr>::as_ref);
            // SAFETY: the copy has one thread, and the descriptors are in their places.
            unsafe { guard::run(GuardTask::new(words), memory) }
        }
        Err(errno) => {
            // SAFETY: the socket is at 0.
            unsafe { guard::abort_before_run(errno) }
        }
    }
}

/// All signals blocked for this thread: a handler must not run in a child that shares our memory.
pub(crate) struct Blocked(u64);

impl Blocked {
    pub(crate) fn new() -> Blocked {
        Blocked(syscall::set_mask(u64::MAX))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        syscall::set_mask(self.0);
    }
}

/// Memory for the stacks of children that share ours.
pub(crate) struct Stack(Vec<MaybeUninit<u128>>);

impl Stack {
    pub(crate) fn new(size: usize) -> std::result::Result<Stack, Errno> {
        let mut words = Vec::new();
        words.try_reserve_exact(size / 16).map_err(|_| Errno::NOMEM)?;
        // SAFETY: that much is reserved, and whatever is there will do.
        unsafe { words.set_len(size / 16) };
        Ok(Stack(words))
    }

    /// The end of its first `size` bytes, where a stack of that size begins.
    pub(crate) fn top(&mut self, size: usize) -> *mut u8 {
        self.0.as_mut_ptr().cast::<u8>().wrapping_add(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guard that is a forked copy begins with fresh pages instead of [`Memory::NEW`].
    #[test]
    fn a_guards_memory_begins_as_zeroes() {
        static NEW: Memory = Memory::NEW;
        let at = (&raw const NEW).cast::<u8>();
        // SAFETY: static memory, of which each byte is set: what is not a field's is zeroed.
        let bytes = unsafe { std::slice::from_raw_parts(at, size_of::<Memory>()) };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}
