//! Processes: their identity, children of this process, and the processes below a process.

pub(crate) mod caller_limits;
pub(crate) mod child;
pub(crate) mod cpu_time;
pub(crate) mod descendants;
pub(crate) mod dropped_children;
pub(crate) mod fork_detect;
pub(crate) mod identity;
pub(crate) mod privilege;
pub(crate) mod snapshot;
pub(crate) mod stuck;
pub(crate) mod tree;
