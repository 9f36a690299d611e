//! The judges of Windows: everything asked of the kernel directly, nothing of onejob.

pub(crate) mod cell;
pub mod mortal;
pub mod proc;
pub(crate) mod setting;
