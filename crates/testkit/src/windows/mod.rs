//! The sandbox on Windows. It uses the kernel directly, not onejob.

pub(crate) mod environment;
pub mod lifetime_limit;
pub mod proc;
pub(crate) mod sandbox;
