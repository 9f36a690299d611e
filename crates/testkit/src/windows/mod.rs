//! The judges of Windows: everything asked of the kernel directly, nothing of onejob.

pub(crate) mod environment;
pub mod lifetime_limit;
pub mod proc;
pub(crate) mod sandbox;
