//! The memory of a guard.

use super::{
    super::{
        kill_tree::PidSet,
        syscall::{Pages, Result},
        tree_walk::Frame,
    },
    children::Children,
    cpu_time::CpuTimeLimits,
    spawn::SpawnSlots,
    unfinished::Unfinished,
};

/// The memory of a guard. It is all zeroes at first, and a guard only touches the pages that it needs.
pub(crate) struct Memory {
    pub(super) arena: [i32; 32768],
    pub(super) path: [Frame; 512],
    pub(super) met: PidSet,
    pub(super) children: Children,
    pub(super) slots: SpawnSlots,
    pub(super) cpu_time_limits: CpuTimeLimits,
    pub(super) unfinished: Unfinished,
}

impl Memory {
    #[allow(clippy::declare_interior_mutable_const, reason = "the first value of a memory")]
    pub(crate) const NEW: Memory = Memory {
        arena: [0; 32768],
        path: [const { Frame::EMPTY }; 512],
        met: [0; 1 << 16],
        children: Children::NONE,
        slots: SpawnSlots::NEW,
        cpu_time_limits: CpuTimeLimits::NONE,
        unfinished: Unfinished::NONE,
    };

    /// New memory for a guard that is a forked copy of its owner. Static memory would count as data of the
    /// owner, even if it never forks a guard.
    pub(crate) fn map() -> Result<&'static mut Memory> {
        let memory = Pages::map(size_of::<Memory>())?.leak().cast::<Memory>();
        // SAFETY: it is mapped for good, aligned to a page, only used here, and zeroes are a `Memory` (the
        // unit test `a_guards_memory_begins_as_zeroes`).
        Ok(unsafe { &mut *memory })
    }
}
