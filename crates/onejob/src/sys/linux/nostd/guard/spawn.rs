//! The inner guard's children.
//!
//! A child shares the memory of the guard until it executes its program, which saves the time for a copy. The guard
//! does not wait for that, since a program on a file system that hangs must not keep it from ending the jobs. So
//! each child has its own slot for its request and its stack, which the guard does not touch until the kernel
//! reports that the child no longer uses it. If all slots are busy, or the request is too large for a slot, the
//! child gets a copy of the guard's few pages.
//!
//! These children get a copy, too:
//! - before Linux 5.16 every child: until then a core dump also kills every process that shares the memory;
//! - a child that is created in a cgroup: if the cgroup is out of memory, the kernel kills every process that shares
//!   the memory of the chosen one;
//! - a child that becomes another user: the kernel then denies other processes access to the memory, and the
//!   guard's must stay accessible to its user;
//! - a child with other attributes of its memory, which would become the guard's.

use core::sync::atomic::{AtomicI32, Ordering};

use super::super::{
    exec::{self, ExecRequest, MAX_SIZE},
    protocol::{self, Message, ReceivedFds},
    syscall::{
        self, AsFd, BorrowedFd, CLONE_CHILD_CLEARTID, CLONE_INTO_CGROUP, CLONE_PIDFD, CLONE_VM,
        CloneArgs, Errno, OwnedFd, Pages, Result, SIGCHLD, close_all, raw,
    },
};

const STACK: usize = 16 * 1024;

/// The largest request that comes in its message.
pub(crate) const MAX_INLINE: usize = 24 * 1024;

/// The memory of one child. Pages that are not needed are not touched.
#[repr(C, align(16))]
struct Slot {
    stack: [u8; STACK],
    record: [u64; MAX_INLINE / 8],
    /// Not 0 while a child shares this. The kernel writes the 0.
    busy: AtomicI32,
}

const SLOTS: usize = 8;

/// How many descriptors of one request may come in `MORE` messages.
pub(crate) const MAX_MORE_FDS: usize = 16 * 1024;

/// The descriptors of a request that has more than fit into one message.
struct MoreFds {
    /// The first `count` are used.
    fds: [Option<OwnedFd>; MAX_MORE_FDS],
    count: usize,
}

impl MoreFds {
    /// Receives as many as the request has announced. The sender has sent all of them before the request.
    fn receive(&mut self, socket: &OwnedFd, announced: u32) -> Result<()> {
        let mut received = ReceivedFds::new();
        while self.count < announced as usize {
            match protocol::receive_now(socket, &mut received)? {
                Some(Message { kind: protocol::MORE, .. }) => {}
                _ => return Err(Errno::BADMSG),
            }
            let fds = received.as_mut_slice();
            if fds.is_empty() {
                return Err(Errno::BADMSG);
            }
            let slots = self.fds.get_mut(self.count..self.count + fds.len());
            for (slot, fd) in slots.ok_or(Errno::MFILE)?.iter_mut().zip(&mut *fds) {
                *slot = fd.take();
            }
            self.count += fds.len();
        }
        Ok(())
    }

    fn as_slice(&self) -> &[Option<OwnedFd>] {
        self.fds.get(..self.count).unwrap_or(&[])
    }

    fn clear(&mut self) {
        close_all(self.fds.get_mut(..self.count).unwrap_or(&mut []));
        self.count = 0;
    }
}

pub(crate) struct SpawnSlots {
    /// No child ever shares the last one, so there is always room for a request.
    slots: [Slot; SLOTS],
    /// The slot with the latest request, and the size of that in bytes.
    latest: usize,
    len: usize,
    more: MoreFds,
    /// Whether every child gets a copy of the memory.
    copy_memory: bool,
}

impl SpawnSlots {
    #[allow(clippy::declare_interior_mutable_const, reason = "the first value of a memory")]
    pub(crate) const NEW: SpawnSlots = SpawnSlots {
        slots: [const {
            Slot { stack: [0; STACK], record: [0; MAX_INLINE / 8], busy: AtomicI32::new(0) }
        }; SLOTS],
        latest: 0,
        len: 0,
        more: MoreFds { fds: [const { None }; MAX_MORE_FDS], count: 0 },
        copy_memory: false,
    };

    pub(crate) fn set_copy_memory(&mut self, copy_memory: bool) {
        self.copy_memory = copy_memory;
    }

    /// Receives a message, and into a free slot the request that follows it if its kind is `SPAWN`.
    pub(crate) fn receive(
        &mut self,
        socket: impl AsFd,
        fds: &mut ReceivedFds,
    ) -> Result<Option<Message>> {
        let is_free = |slot: &Slot| slot.busy.load(Ordering::Acquire) == 0;
        self.latest = self.slots.iter().position(is_free).unwrap_or(SLOTS - 1);
        let Some(slot) = self.slots.get_mut(self.latest) else { return Err(Errno::NOMEM) };
        let received = protocol::receive_request(socket, fds, &mut slot.record)?;
        Ok(received.map(|(message, len)| {
            self.len = len;
            message
        }))
    }

    /// Starts the child of the latest request. `fds`: the report pipe, the memory file with the request if it is not
    /// in the slot, then the descriptors of the request, or the socket with them. Any process of the user can send a
    /// request, so this or the child checks everything in it.
    pub(crate) fn start(
        &mut self,
        message: &Message,
        fds: &[Option<OwnedFd>],
    ) -> Result<(i32, OwnedFd)> {
        let (1.., Some((Some(socket), fds))) = (message.more, fds.split_last()) else {
            return self.start_with(message, fds);
        };
        let received = self.more.receive(socket, message.more);
        let started = received.and_then(|()| self.start_with(message, fds));
        self.more.clear();
        started
    }

    fn start_with(&mut self, message: &Message, fds: &[Option<OwnedFd>]) -> Result<(i32, OwnedFd)> {
        let [size, cgroup] = message.numbers;
        let Some((Some(report), fds)) = fds.split_first() else { return Err(Errno::BADMSG) };
        let report = report.as_fd();
        let more = (message.more > 0).then(|| self.more.as_slice());
        if size > 0 {
            let Some((Some(file), own)) = fds.split_first() else { return Err(Errno::BADMSG) };
            let own = more.unwrap_or(own);
            let mut record = read_request(file, size)?;
            let request = ExecRequest::relocate_received(record.as_words(), report, own)?;
            return clone_copying_memory(request, cgroup_at(own, cgroup)?);
        }
        let is_last = self.latest == SLOTS - 1;
        let Some(slot) = self.slots.get_mut(self.latest) else { return Err(Errno::BADMSG) };
        let record = slot.record.get_mut(..self.len / 8).unwrap_or(&mut []);
        let own = more.unwrap_or(fds);
        let request = ExecRequest::relocate_received(record, report, own)?;
        let cgroup = cgroup_at(own, cgroup)?;
        let keeps_memory = request.keeps_credentials() && !request.changes_memory();
        if cgroup.is_none() && keeps_memory && !is_last && !self.copy_memory {
            match clone_sharing_memory(request, &slot.busy, &mut slot.stack) {
                Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {}
                started => return started,
            }
        }
        clone_copying_memory(request, cgroup)
    }
}

/// The cgroup of a request: `number` is its index plus 1, or 0.
fn cgroup_at(own: &[Option<OwnedFd>], number: u64) -> Result<Option<BorrowedFd<'_>>> {
    let Some(at) = number.checked_sub(1) else { return Ok(None) };
    match own.get(at as usize) {
        Some(Some(cgroup)) => Ok(Some(cgroup.as_fd())),
        _ => Err(Errno::BADMSG),
    }
}

/// Reads a request from a memory file, which another process can change or shorten at any time.
fn read_request(file: &OwnedFd, size: u64) -> Result<Pages> {
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_SIZE && size % 8 == 0);
    let size = size.ok_or(Errno::BADMSG)?;
    // Reading another kind of file can take without limit.
    if !syscall::is_memory_file(file) {
        return Err(Errno::BADMSG);
    }
    let mut pages = Pages::map(size)?;
    match syscall::pread(file, pages.as_bytes())? {
        len if len == size => Ok(pages),
        _ => Err(Errno::BADMSG),
    }
}

/// Starts a child that shares this memory, in its own slot.
fn clone_sharing_memory(
    request: &ExecRequest,
    busy: &AtomicI32,
    stack: &mut [u8; STACK],
) -> Result<(i32, OwnedFd)> {
    let mut pidfd = -1_i32;
    let args = CloneArgs {
        flags: CLONE_VM | CLONE_PIDFD | CLONE_CHILD_CLEARTID,
        pidfd: &raw mut pidfd as u64,
        child_tid: busy.as_ptr() as u64,
        exit_signal: SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: STACK as u64,
        ..CloneArgs::default()
    };
    let (at, size) = (&raw const args as usize, size_of::<CloneArgs>());
    busy.store(1, Ordering::Relaxed);
    // SAFETY: no other process uses this stack, and only the child accesses the stack and the request until the kernel
    // has cleared `busy`. The child accesses no other memory of the guard.
    let started = unsafe {
        let record = (&raw const *request).cast_mut().cast();
        raw::clone_to(raw::CLONE3, [at, size, 0, 0, 0], exec::start, record)
    };
    match started {
        // SAFETY: the kernel has written a new descriptor.
        Ok(pid) => Ok((pid as i32, unsafe { OwnedFd::from_raw(pidfd) })),
        Err(errno) => {
            busy.store(0, Ordering::Relaxed);
            Err(errno)
        }
    }
}

/// Starts a child with a copy of this memory: in `cgroup` if there is one and the kernel can do that, otherwise the
/// child joins it by itself.
fn clone_copying_memory(
    request: &ExecRequest,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<(i32, OwnedFd)> {
    let mut pidfd = -1_i32;
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let args = CloneArgs {
        flags: CLONE_PIDFD | into,
        pidfd: &raw mut pidfd as u64,
        exit_signal: SIGCHLD as u64,
        cgroup: cgroup.map_or(0, |dir| dir.raw() as u64),
        ..CloneArgs::default()
    };
    let mut is_in_cgroup = cgroup.is_some();
    // SAFETY: a guard has one thread. The child does not share its memory, and the kernel writes one descriptor.
    let started = match unsafe { syscall::clone3(&args) } {
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
            is_in_cgroup = false;
            // SAFETY: a guard has one thread.
            unsafe { syscall::fork(SIGCHLD) }
        }
        // SAFETY: in the parent the kernel has written a new descriptor.
        started => started.map(|pid| pid.map(|pid| (pid, unsafe { OwnedFd::from_raw(pidfd) }))),
    };
    if let Some(child) = started? {
        return Ok(child);
    }
    // SAFETY: this is a new child with a relocated request, of which it has its own copy.
    unsafe {
        if is_in_cgroup {
            (*(&raw const *request).cast_mut()).join = -1;
        }
        request.run()
    }
}
