//! Scripted processes and sandboxes for the tests of guarantees.
//!
//! A test never uses the library under test to find survivors. A test case runs in a [`Sandbox`], an
//! outer boundary of the kernel, and the sandbox lists the processes that are alive in it.
//! [`Bystanders`] run beside the sandbox and must not be signalled. The scripted processes are the
//! programs `helper` and `owner` of this package.
//!
//! The same names have the same meaning on Linux and on Windows. Items that one system does not
//! support are missing there.

mod bins;
mod bystanders;
mod eventually;
mod fixture;
pub mod fuzz;
mod kill_on_drop;
mod line_process;
mod owner;
mod random;
mod report;

#[cfg(target_os = "linux")]
pub mod cgroup;
#[cfg(target_os = "linux")]
mod environment;
#[cfg(target_os = "linux")]
mod guards;
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
#[cfg(target_os = "linux")]
pub mod strace;

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
pub use fixture::{Fixture, every_environment};
#[cfg(target_os = "linux")]
pub use guards::{GUARD, Guards};
#[cfg(target_os = "linux")]
pub use hanging::Hanging;
pub use kill_on_drop::KillOnDrop;
pub use line_process::{LineProcess, Reply};
#[cfg(target_os = "linux")]
pub use namespace::GO as SANDBOX_GO;
pub use owner::{Owner, numbers};
pub use random::Random;
pub use report::{Helper, Report};
pub use sandbox::{LiveProcess, Sandbox};
