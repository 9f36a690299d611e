//! The operating systems.
//!
//! Each system provides, with identical names and signatures:
//!
//! | item | what |
//! |---|---|
//! | `MECHANISMS` | an entry for each of its mechanisms, strongest default first |
//! | `open(name)` | a view of a live job, by name or by a prefix of its id |
//! | `jobs()` | the live jobs of this user |
//! | `open_listed(record)` | a view of one of these, with its open record |
//! | `Record` | the [`JobRecord`] through which other processes find a listed job |
//! | `ChildProcess` | a process started into a job: `id`, `pid`, `wait(deadline)`, `signal`, on Unix `signal_group` and `AsFd`, on Windows `AsHandle` |
//! | `tree(root)` | a [`Stoppable`](crate::stop::Stoppable) for the processes below a process |
//! | `descendants(root)` | a process and all processes below it, for listing |
//! | `identify(pid)` | the [`ProcessId`](crate::ProcessId) of the process that has this pid now |
//! | `abandoned_jobs()`, `runtime_dir()` | the jobs without an owner, and the directory of the records |
//! | `limit_hint(errno)` | a hint, if a resource limit of this process may be the cause of a failed call |
//! | `ProcessToken` | distinguishes the process that made a job from its forked copies |
//!
//! Operating systems are named in this module and its submodules only. [`backend`] is the interface to
//! the mechanisms: a new mechanism needs one file in the folder of its system, one entry in
//! `MECHANISMS` and one variant of [`crate::Mechanism`].

mod backend;

#[cfg_attr(
    not(any(onejob_linux, windows)),
    allow(unused_imports, reason = "only mechanisms need them")
)]
pub(crate) use backend::{
    Backend, Explanation, Freezer, JobRecord, LimitControl, MechanismEntry, RecordTraits,
};

// Set by the build script for the targets that `linux` supports.
#[cfg(onejob_linux)]
mod linux;
#[cfg(all(onejob_linux, fuzzing))]
pub use linux::fuzz;
#[cfg(onejob_linux)]
pub(crate) use linux::{
    ChildProcess, MECHANISMS, ProcessToken, Record, abandoned_jobs, descendants, identify, jobs,
    limit_hint, open, open_listed, runtime_dir, tree,
};

#[cfg(all(windows, not(onejob_unsupported)))]
mod windows;
#[cfg(all(windows, not(onejob_unsupported)))]
pub(crate) use windows::{
    ChildProcess, MECHANISMS, Record, abandoned_jobs, descendants, identify, jobs, open,
    open_listed, runtime_dir, tree,
};

#[cfg(not(any(onejob_linux, all(windows, not(onejob_unsupported)))))]
mod unsupported;
#[cfg(not(any(onejob_linux, all(windows, not(onejob_unsupported)))))]
pub(crate) use unsupported::{
    ChildProcess, MECHANISMS, Record, abandoned_jobs, descendants, identify, jobs, open,
    open_listed, runtime_dir, tree,
};

/// Resource limits of the process are examined on Linux only.
#[cfg(not(onejob_linux))]
pub(crate) fn limit_hint(_: i32) -> Option<String> {
    None
}

#[cfg(not(onejob_linux))]
mod token;
#[cfg(not(onejob_linux))]
pub(crate) use token::ProcessToken;
