//! Cgroups: where a job's cgroup is made, its members, its limits and what it has used.

pub(crate) mod controllers;
pub(crate) mod delegation;
pub(crate) mod location;
pub(crate) mod members;
pub(crate) mod root;
pub(crate) mod stats;
