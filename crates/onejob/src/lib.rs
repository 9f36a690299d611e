//! Many processes, one job.
//!
//! A [`Job`] manages a process and all of its descendants as one unit: it lists them, waits for
//! them, freezes, stops and kills them. It never signals an unrelated process and never misses a
//! descendant. [`Job::guarantees`] returns how strong this is on the current host.
//!
//! ```
//! # fn main() -> onejob::Result<()> {
//! # #[cfg(target_os = "linux")] {
//! use onejob::{Command, Job};
//! use std::time::Duration;
//!
//! let job = Job::new()?;                                      // the strongest mechanism available
//! let mut sh = job.spawn(Command::new("sh").args(["-c", "sleep 60 & exit 7"]))?;
//! assert_eq!(sh.wait()?.code(), Some(7));                     // std::process::ExitStatus
//! assert_eq!(job.processes()?.len(), 1);                      // `sleep` is still running
//! job.stop(Duration::from_secs(5))?;                          // SIGTERM, then SIGKILL, until empty
//! assert!(job.is_empty()?);
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! If the *libraries* of a program start processes, the program can enclose itself:
//! [`JobBuilder::enclose`].
#![deny(missing_docs)]
#![cfg_attr(
    not(any(onejob_linux, windows)),
    allow(dead_code, reason = "no process is started on a system without a mechanism")
)]

mod builder;
mod child;
mod command;
mod error;
mod guarantees;
mod host;
mod job;
mod limits;
mod name;
mod process;
mod signal;
mod spec;
mod stats;
mod stop;
mod sys;
mod trace;

/// Decoders of bytes that other processes have written, for `cargo fuzz`.
#[cfg(all(onejob_linux, fuzzing))]
pub use sys::fuzz;

pub use builder::JobBuilder;
pub use child::Child;
pub use command::{Command, SignalState, Stdio};
pub use error::{Error, Result};
pub use guarantees::{
    Accounting, Containment, Freeze, Guarantees, Kill, Mechanism, OwnerDeath, Requirement,
};
pub use host::{
    AbandonedJob, AbandonedKind, MechanismReport, abandoned_jobs, probe_mechanisms, runtime_dir,
};
pub use job::Job;
pub use limits::{Limits, OnOom, Resources};
pub use name::{JobEntry, jobs};
pub use process::{Process, ProcessId, Tree, TreeNode, tree_below};
pub use signal::Signal;
pub use stats::{Snapshot, Stats};
pub use stop::{StopReason, StopReport, stop_tree};
