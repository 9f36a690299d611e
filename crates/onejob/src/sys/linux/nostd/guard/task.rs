//! The arguments and the descriptors of a guard.

use super::super::{
    procfs::number,
    syscall::{BorrowedFd, CStr},
};

/// The name of both guards.
pub(crate) const NAME: &CStr = c"onejob-guard";

/// The arguments of a pair of guards.
#[derive(Clone, Copy)]
pub(crate) struct GuardTask<'a> {
    /// The names of the owner's cgroups below the base begin with this. Empty if the owner has no cgroups.
    pub(super) prefix: &'a CStr,
    /// The names of the records of its jobs begin with this.
    pub(super) records: &'a CStr,
    /// The directory of the records. Empty if there are none.
    pub(super) registry: &'a CStr,
    /// The socket of the service manager's bus, if the guards are to be moved into a scope; otherwise empty.
    pub(super) bus: &'a CStr,
    /// The process group of the owner; 0 if its leader is not in this PID namespace.
    pub(super) group: i32,
}

impl<'a> GuardTask<'a> {
    pub(crate) fn new([prefix, records, registry, bus, group]: [&'a CStr; 5]) -> GuardTask<'a> {
        let group = number(group.to_bytes()).map_or(0, |group| group as i32);
        GuardTask { prefix, records, registry, bus, group }
    }

    pub(super) fn has_cgroups(&self) -> bool {
        !self.prefix.is_empty()
    }
}

/// The descriptors that the owner gives to a guard: the numbers 0 and 1.
#[derive(Clone, Copy)]
pub(super) struct OwnerFds {
    /// The socket to the owner.
    pub(super) socket: BorrowedFd<'static>,
    /// A pidfd of the owner.
    pub(super) pidfd: BorrowedFd<'static>,
}

impl OwnerFds {
    /// # Safety
    /// The process must be a guard: the descriptors 0 and 1 are these, and nothing closes them.
    pub(super) unsafe fn new() -> OwnerFds {
        // SAFETY: the caller guarantees that both stay open as long as the process lives.
        unsafe { OwnerFds { socket: BorrowedFd::borrow_raw(0), pidfd: BorrowedFd::borrow_raw(1) } }
    }
}

/// The number of the descriptor of the base, the directory of the owner's cgroups.
pub(super) const BASE: i32 = 2;

/// The cgroups of the owner.
#[derive(Clone, Copy)]
pub(super) struct Cgroups<'a> {
    /// The directory in which they are.
    pub(super) base: BorrowedFd<'a>,
    /// Their names begin with this.
    pub(super) prefix: &'a [u8],
}
