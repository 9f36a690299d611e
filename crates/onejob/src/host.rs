//! What this host can guarantee, without making a job.

use std::path::PathBuf;

use crate::{Guarantees, Mechanism, Result, sys};

/// One mechanism, and whether a job could be held together by it from where we stand.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MechanismReport {
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
pub fn probe_mechanisms() -> Vec<MechanismReport> {
    sys::probe_mechanisms()
}

/// What is still there of a job that nobody holds any more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbandonedJob {
    /// Where: a cgroup or a file.
    pub place: PathBuf,
    /// How many processes live there.
    pub processes: usize,
    /// Why it is there.
    pub kind: AbandonedKind,
    /// Which processes of an abandoned job cannot end although they are killed, and why.
    pub stuck: Option<String>,
}

/// Why something is left of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AbandonedKind {
    /// Owner and guards were all killed, or the guards are still at it. The next job that is made here
    /// has it ended, and waits for none of its processes.
    Abandoned,
    /// It was released: its members live on as their owner wanted it.
    Released,
}

/// What is left of this user's jobs below our cgroup and among their records. Looking changes
/// nothing.
///
/// # Errors
/// If the runtime directory is not to be trusted; says why.
pub fn abandoned_jobs() -> Result<Vec<AbandonedJob>> {
    sys::abandoned_jobs()
}

/// Where the records of this user's jobs are, by which other processes find them.
///
/// # Errors
/// If there is no such place, or one that is not to be trusted; says why.
pub fn runtime_dir() -> Result<PathBuf> {
    sys::runtime_dir()
}
