//! System calls with types, named after the call. The manual page of the call describes each.

mod clone;
mod errno;
mod fd;
mod file;
mod memory;
mod pidfd;
mod poll;
mod process;
pub(crate) mod raw;
mod rlimit;
mod sched;
mod signal;
mod socket;
mod wait;

pub(crate) use self::{
    clone::*, errno::*, fd::*, file::*, memory::*, pidfd::*, poll::*, process::*, rlimit::*,
    sched::*, signal::*, socket::*, wait::*,
};
