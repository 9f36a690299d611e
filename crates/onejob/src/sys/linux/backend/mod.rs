//! The mechanisms of Linux, a file each: a `Backend` and its `ENTRY`.

pub(crate) mod cgroup;
pub(crate) mod cgroup_view;
pub(crate) mod subreaper;
