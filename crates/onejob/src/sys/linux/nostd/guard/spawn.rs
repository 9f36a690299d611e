//! How a guard makes children.
//!
//! A child shares the guard's memory until it executes its program, which spares copying that and
//! taking the copy down again; and the guard goes on meanwhile, since a program on a file system that
//! hangs must not keep it from the owner's end. So each child has a place of its own for its record
//! and its stack, which nobody else touches until the kernel says that the child is done with it. When
//! all places are taken, or the record is too large for one, the child gets a copy of our few pages.
//!
//! Others get a copy, too. Before Linux 5.16 everybody: until then a core dump takes along whoever
//! shares the memory. Whoever is born into a cgroup: when that is out of memory, the kernel
//! kills everybody who shares the memory of the one it has chosen. And whoever becomes another user: the
//! kernel closes the memory of such a process to others, and ours is to stay open to our own user. And
//! whoever gets other settings of its memory than ours, which would be ours as well.

use core::sync::atomic::{AtomicI32, Ordering};

use super::super::{
    exec::{self, ExecRequest, request},
    protocol::{self, MAX_FDS, Message},
    syscall::{
        self, CLONE_CHILD_CLEARTID, CLONE_INTO_CGROUP, CLONE_PIDFD, CLONE_VM, CloneArgs, Errno, Fd,
        Result, SIGCHLD, close_all,
        raw::{self, nr, syscall},
    },
};

const STACK: usize = 16 * 1024;

/// The largest record that comes inside its request.
pub(crate) const MAX_INLINE: usize = 24 * 1024;

/// For one child. What is not used is not touched.
#[repr(C, align(16))]
struct Slot {
    stack: [u8; STACK],
    record: [u64; MAX_INLINE / 8],
    /// Not 0 while a child shares it. The kernel writes the 0.
    busy: AtomicI32,
}

const SLOTS: usize = 8;

/// The most descriptors of a request that come in messages of their own.
pub(crate) const MANY: usize = 16 * 1024;

/// The descriptors of a request that has more than fit in one message.
struct Parcel {
    fds: [i32; MANY],
    count: usize,
}

impl Parcel {
    /// Takes as many as the request has announced, all of which are there already.
    fn unpack(&mut self, socket: i32, announced: u32) -> Result<()> {
        let mut fds = [-1; MAX_FDS];
        while self.count < announced as usize {
            let came = match protocol::receive_now(socket, &mut fds)? {
                Some((Message { kind: protocol::MORE, .. }, 1..)) => came_with(&fds),
                other => {
                    close_all(other.map_or(&[], |_| came_with(&fds)));
                    return Err(Errno::BADMSG);
                }
            };
            let Some(room) = self.fds.get_mut(self.count..self.count + came.len()) else {
                close_all(came);
                return Err(Errno::MFILE);
            };
            room.copy_from_slice(came);
            self.count += came.len();
            fds = [-1; MAX_FDS];
        }
        Ok(())
    }

    fn fds(&self) -> &[i32] {
        self.fds.get(..self.count).unwrap_or(&[])
    }

    fn empty(&mut self) {
        close_all(self.fds());
        self.count = 0;
    }
}

/// Those that are open: they come first.
fn came_with(fds: &[i32; MAX_FDS]) -> &[i32] {
    fds.split(|fd| *fd < 0).next().unwrap_or(&[])
}

pub(crate) struct SpawnSlots {
    /// No child ever shares the last one, so there is always room for a request.
    places: [Slot; SLOTS],
    /// Where the latest request has put its record, and how long that is.
    latest: usize,
    len: usize,
    parcel: Parcel,
    /// Whether all children get copies.
    pub(crate) copies: bool,
}

impl SpawnSlots {
    #[allow(clippy::declare_interior_mutable_const, reason = "what a memory begins with")]
    pub(crate) const NONE: SpawnSlots = SpawnSlots {
        places: [const {
            Slot { stack: [0; STACK], record: [0; MAX_INLINE / 8], busy: AtomicI32::new(0) }
        }; SLOTS],
        latest: 0,
        len: 0,
        parcel: Parcel { fds: [0; MANY], count: 0 },
        copies: false,
    };

    /// Receives a message, and the record that comes with it if it asks for a child.
    pub(crate) fn receive(
        &mut self,
        socket: i32,
        fds: &mut [i32; MAX_FDS],
    ) -> Result<Option<(Message, usize)>> {
        let free = |place: &Slot| place.busy.load(Ordering::Acquire) == 0;
        self.latest = self.places.iter().position(free).unwrap_or(SLOTS - 1);
        let Some(place) = self.places.get_mut(self.latest) else { return Err(Errno::NOMEM) };
        let received = protocol::receive_request(socket, fds, &mut place.record)?;
        Ok(received.map(|(message, count, len)| {
            self.len = len;
            (message, count)
        }))
    }

    /// Starts the child of the latest request. `fds`: the report, the record's file if it did not come
    /// inside, then the record's own or the socket with them. Whatever the request says, it is found out
    /// here or by the child: it may come from another process.
    pub(crate) fn start(&mut self, request: &Message, fds: &[i32]) -> Result<(i32, Fd)> {
        let (1.., Some((socket, fds))) = (request.more, fds.split_last()) else {
            return self.start_with(request, fds);
        };
        let unpacked = self.parcel.unpack(*socket, request.more);
        let started = unpacked.and_then(|()| self.start_with(request, fds));
        self.parcel.empty();
        started
    }

    fn start_with(&mut self, request: &Message, fds: &[i32]) -> Result<(i32, Fd)> {
        let [size, cgroup] = request.numbers;
        let Some((&report, fds)) = fds.split_first() else { return Err(Errno::BADMSG) };
        let parcel = (request.more > 0).then(|| self.parcel.fds());
        let cgroup = |own: &[i32]| match cgroup.checked_sub(1) {
            None => Ok(None),
            Some(at) => own.get(at as usize).copied().map(Some).ok_or(Errno::BADMSG),
        };
        if size > 0 {
            let Some((&file, own)) = fds.split_first() else { return Err(Errno::BADMSG) };
            let own = parcel.unwrap_or(own);
            let mut record = Copied::new(file, size)?;
            let plan = ExecRequest::relocate_received(record.words(), report, own)?;
            return clone_copying_memory(plan, cgroup(own)?);
        }
        let is_spare = self.latest == SLOTS - 1;
        let Some(place) = self.places.get_mut(self.latest) else { return Err(Errno::BADMSG) };
        let record = place.record.get_mut(..self.len / 8).unwrap_or(&mut []);
        let own = parcel.unwrap_or(fds);
        let plan = ExecRequest::relocate_received(record, report, own)?;
        let cgroup = cgroup(own)?;
        let keeps_memory = plan.keeps_credentials() && !plan.changes_memory();
        if cgroup.is_none() && keeps_memory && !is_spare && !self.copies {
            match clone_sharing_memory(plan, &place.busy, &mut place.stack) {
                Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {}
                started => return started,
            }
        }
        clone_copying_memory(plan, cgroup)
    }
}

/// A record that came in a memory file: a copy, which nobody else can change or shorten.
struct Copied {
    at: usize,
    size: usize,
}

impl Copied {
    fn new(file: i32, size: u64) -> Result<Copied> {
        const READ_WRITE: usize = 3;
        const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
        let size = usize::try_from(size).ok().filter(|size| *size <= request::MAX);
        let size = size.filter(|size| size % 8 == 0).ok_or(Errno::BADMSG)?;
        // One in memory: to read from anything else could take for ever.
        if !syscall::is_memory_file(file) {
            return Err(Errno::BADMSG);
        }
        let args = [0, size, READ_WRITE, MAP_PRIVATE_ANONYMOUS, usize::MAX, 0];
        // SAFETY: fresh memory, at an address the kernel chooses.
        let at = unsafe { syscall(nr::MMAP, args) }?;
        let mut copied = Copied { at, size };
        match syscall::pread(file, copied.bytes()) {
            Ok(len) if len == size => Ok(copied),
            Ok(_) => Err(Errno::BADMSG),
            Err(errno) => Err(errno),
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping made above, which is that large and ours alone.
        unsafe { core::slice::from_raw_parts_mut(self.at as *mut u8, self.size) }
    }

    fn words(&mut self) -> &mut [u64] {
        // SAFETY: as above; a mapping begins with a page.
        unsafe { core::slice::from_raw_parts_mut(self.at as *mut u64, self.size / 8) }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // SAFETY: the mapping made above; a child has a copy of it.
        let _ = unsafe { syscall(nr::MUNMAP, [self.at, self.size, 0, 0, 0, 0]) };
    }
}

/// A child that shares our memory, in a place of its own.
fn clone_sharing_memory(
    plan: &ExecRequest,
    taken: &AtomicI32,
    stack: &mut [u8; STACK],
) -> Result<(i32, Fd)> {
    let mut pidfd = -1_i32;
    let args = CloneArgs {
        flags: CLONE_VM | CLONE_PIDFD | CLONE_CHILD_CLEARTID,
        pidfd: &raw mut pidfd as u64,
        child_tid: taken.as_ptr() as u64,
        exit_signal: SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: STACK as u64,
        ..CloneArgs::default()
    };
    let (at, size) = (&raw const args as usize, size_of::<CloneArgs>());
    taken.store(1, Ordering::Relaxed);
    // SAFETY: nobody is on that stack, and nobody but the child touches it or the record until the
    // kernel has cleared `taken`. It knows nothing else of our memory.
    let started = unsafe {
        let record = (&raw const *plan).cast_mut().cast();
        raw::clone_to(raw::CLONE3, [at, size, 0, 0, 0], exec::start, record)
    };
    match started {
        Ok(pid) => Ok((pid as i32, Fd(pidfd))),
        Err(errno) => {
            taken.store(0, Ordering::Relaxed);
            Err(errno)
        }
    }
}

/// A child with a copy of our memory, in this cgroup from birth if there is one and the kernel lets us.
fn clone_copying_memory(plan: &ExecRequest, cgroup: Option<i32>) -> Result<(i32, Fd)> {
    let mut pidfd = -1_i32;
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let args = CloneArgs {
        flags: CLONE_PIDFD | into,
        pidfd: &raw mut pidfd as u64,
        exit_signal: SIGCHLD as u64,
        cgroup: cgroup.map_or(0, |dir| dir as u64),
        ..CloneArgs::default()
    };
    let mut is_born_inside = cgroup.is_some();
    // SAFETY: the child goes on in the floor only, and does not share our memory.
    let started = match unsafe { syscall::clone3(&args) } {
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
            is_born_inside = false;
            // SAFETY: as above.
            unsafe { syscall::fork(SIGCHLD) }
        }
        started => started.map(|pid| pid.map(|pid| (pid, Fd(pidfd)))),
    };
    if let Some(held) = started? {
        return Ok(held);
    }
    // SAFETY: the child, on its relocated record, of which it has a copy of its own.
    unsafe {
        if is_born_inside {
            (*(&raw const *plan).cast_mut()).join = -1;
        }
        plan.run()
    }
}
