//! What this host can guarantee, without making a job.

use crate::{Guarantees, Mechanism, sys};

/// One mechanism, and whether a job could be held together by it from where we stand.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rung {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// What a job of it would promise; `None` if it is not available.
    pub guarantees: Option<Guarantees>,
    /// Why it is available, or why not.
    pub reason: String,
    /// What to do to get it, or more of it.
    pub remedy: Option<String>,
}

/// Every mechanism of this operating system, in the order in which [`Job::new`](crate::Job::new)
/// tries them. Each is probed for real; nothing stays behind.
pub fn survey() -> Vec<Rung> {
    sys::survey()
}
