//! What a child does between `clone` and `execve`, as one flat request describes it.
//!
//! The library builds the request. If the owner spawns the child, the child shares the owner's memory and
//! reads the request in place; if a guard spawns it, the request goes to the guard in a message or a memory
//! file. So it is one block without absolute addresses: every pointer is an offset from its start until
//! [`ExecRequest::relocate`].

pub(crate) mod attributes;
mod check;
mod request;
mod run;

#[allow(unused_imports, reason = "the guard does not use all of them")]
pub(crate) use self::{
    check::{MAX_SIZE, check},
    request::{ExecRequest, KEEP, Limit, List, Mapping, SET, Stage},
    run::start,
};
