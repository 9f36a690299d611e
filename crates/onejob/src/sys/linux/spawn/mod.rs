//! Starting a member: as a child of this process ([`local`]) or of a guard ([`remote`]).
//!
//! [`request`] builds the record that the child executes, with the standard streams of [`stdio`];
//! [`baseline`], [`credentials`] and [`attributes`] compare the guards with this process. [`method`] is the order in
//! which a child is put into its cgroup, and [`clone`] has the system calls of a local child.

pub(crate) mod attributes;
pub(crate) mod baseline;
mod clone;
mod credentials;
mod failure;
pub(crate) mod join;
pub(crate) mod local;
mod method;
pub(crate) mod remote;
pub(crate) mod request;
mod stdio;
