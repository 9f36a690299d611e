//! What a job has used.

use std::time::Duration;

/// What the members of a job have used so far; `None` where the mechanism cannot tell.
///
/// Whose use is included says [`Guarantees`](crate::Guarantees).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// CPU time in user mode.
    pub cpu_user: Option<Duration>,
    /// CPU time in the kernel.
    pub cpu_system: Option<Duration>,
    /// The most memory in use at one time, in bytes.
    pub memory_peak: Option<u64>,
    /// Members alive now.
    pub processes: usize,
}
