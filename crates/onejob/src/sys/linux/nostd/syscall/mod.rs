//! System calls with types, named after the call. The manual page of the call describes each.

mod clone;
mod errno;
mod fd;
mod file;
mod pidfd;
mod poll;
mod process;
pub(crate) mod raw;
mod signal;
mod wait;

pub(crate) use self::{
    clone::*, errno::*, fd::*, file::*, pidfd::*, poll::*, process::*, signal::*, wait::*,
};
