//! Scripted processes and judges for the promise tests.
//!
//! The judge of who survived is never the library under test: a test case runs below a [`Cell`],
//! an outer boundary of the kernel's, and the cell says who lives there. [`Bystanders`] live
//! beside it and must not be hit. The scripted processes are the programs `actor` and `owner` of
//! this package.

mod bins;
mod bystanders;
mod cell;
pub mod cgroup;
mod eventually;
pub mod mortal;
mod namespace;
mod owner;
pub mod proc;
mod report;
mod setting;

pub use bins::{Bins, scratch_dir};
pub use bystanders::Bystanders;
pub use cell::{Cell, Living};
pub use eventually::{DEADLINE, eventually, skip};
pub use namespace::GO as CELL_GO;
pub use owner::{Answer, Owner, numbers};
pub use report::{Player, Report};
pub use setting::Setting;
