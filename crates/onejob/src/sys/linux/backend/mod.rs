//! The mechanisms of Linux, a file each: a `Backend` and its `ENTRY`.

pub(crate) mod cgroup;
mod cgroup_guarantees;
pub(crate) mod cgroup_view;
mod enclosed;
mod errors;
mod spawn_lock;
pub(crate) mod subreaper;
mod tracked;
mod unlisted;
