//! Scripted processes and judges for the promise tests.
//!
//! The judge of who survived is never the library under test: a test case runs below a [`Cell`],
//! an outer boundary of the kernel's, and the cell says who lives there. [`Bystanders`] live
//! beside it and must not be hit. The scripted processes are the programs `actor` and `owner` of
//! this package.
//!
//! The same names stand for the same things on Linux and on Windows; what only one of them has,
//! the other lacks.

mod bins;
mod bystanders;
mod eventually;
pub mod fuzz;
mod owner;
mod random;
mod report;

#[cfg(target_os = "linux")]
pub mod cgroup;
#[cfg(target_os = "linux")]
mod environment;
#[cfg(target_os = "linux")]
mod hanging;
#[cfg(target_os = "linux")]
pub mod lifetime_limit;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
pub mod proc;
#[cfg(target_os = "linux")]
mod sandbox;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows::{environment, sandbox};
#[cfg(windows)]
pub use windows::{lifetime_limit, proc};

pub use bins::{Bins, scratch_dir};
pub use bystanders::Bystanders;
pub use environment::Environment;
#[cfg(target_os = "linux")]
pub use eventually::run_first;
pub use eventually::{DEADLINE, eventually, skip};
#[cfg(target_os = "linux")]
pub use hanging::Hanging;
#[cfg(target_os = "linux")]
pub use namespace::GO as CELL_GO;
pub use owner::{Owner, Reply, numbers};
pub use random::Random;
pub use report::{Helper, Report};
pub use sandbox::{LiveProcess, Sandbox};
