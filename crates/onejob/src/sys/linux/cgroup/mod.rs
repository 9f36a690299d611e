//! Cgroups: where a job's cgroup is made, its members, its limits and the resources it has used.

pub(crate) mod abandoned;
pub(crate) mod adopt;
pub(crate) mod controllers;
pub(crate) mod delegation;
pub(crate) mod dir;
pub(crate) mod job_cgroup;
pub(crate) mod job_cgroups;
pub(crate) mod job_limits;
pub(crate) mod location;
pub(crate) mod members;
pub(crate) mod names;
pub(crate) mod probe;
pub(crate) mod root;
pub(crate) mod stats;
pub(crate) mod wait;
