//! The guards: two small processes that end the jobs of an owner that has died.
//!
//! The *outer* guard starts the *inner* guard and leaves the session. The inner guard stays in the session and
//! joins the process group of the owner before its first child, because it is the parent of the processes that it
//! starts for the owner. If
//! it were in another group, the owner's group would not be orphaned, and a stop signal from the terminal would
//! stop a job that no shell can continue. Both guards are subreapers, both watch the owner through a pidfd, and
//! each can end the jobs alone: it ends the owner's cgroups, if there are any, then kills every process below
//! itself.

mod children;
mod cpu_time;
mod ending;
mod hello;
mod inner;
mod kill;
mod memory;
mod outer;
pub(crate) mod registry;
mod requests;
pub(crate) mod rlimit;
mod scope;
mod session;
pub(crate) mod spawn;
mod startup;
mod state;
mod task;
mod unfinished;

#[allow(unused_imports, reason = "the guard program does not use all of them")]
pub(crate) use self::{
    children::MAX_CHILDREN,
    memory::Memory,
    startup::{abort_before_run, run},
    task::{GuardTask, NAME},
};
