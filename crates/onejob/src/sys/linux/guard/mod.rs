//! The owner's side of its two guards: starting them, sending them requests, and their end.

pub(crate) mod client;
pub(crate) mod cpu_time;
pub(crate) mod launch;
pub(crate) mod pair;
