//! The guarantees that are available on this host, without a lasting job.

use std::path::PathBuf;

use crate::{Error, Guarantees, Mechanism, Result, sys};

/// One mechanism, and whether this process can make a job with it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MechanismReport {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// The guarantees of a job with this mechanism; `None` if it is not available.
    pub guarantees: Option<Guarantees>,
    /// Why it is available, or why not.
    pub reason: String,
    /// How to make it available, or how to get stronger guarantees from it.
    pub hint: Option<String>,
}

/// Every mechanism of this operating system, in the order in which [`Job::new`](crate::Job::new)
/// tries them. Each is probed by making an empty job, which is closed again. After an error that would
/// make [`Job::new`](crate::Job::new) fail, the other mechanisms are not tried.
pub fn probe_mechanisms() -> Vec<MechanismReport> {
    let mut failed = None;
    let probe = |entry: &sys::MechanismEntry| {
        if let Some(first) = failed {
            return entry.unavailable(&not_tried(first));
        }
        let (report, is_next_tried) = entry.probe();
        if !is_next_tried {
            failed = Some(entry.mechanism);
        }
        report
    };
    sys::MECHANISMS.iter().map(probe).collect()
}

fn not_tried(first: Mechanism) -> Error {
    Error::unsupported(format!("not tried: making a job fails with the error of {first}"))
        .with_hint(format!("fix the error of {first} first"))
}

/// The remains of a job that has no owner any more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbandonedJob {
    /// The path of the cgroup or record file.
    pub place: PathBuf,
    /// The number of live processes in it.
    pub processes: usize,
    /// Why it still exists.
    pub kind: AbandonedKind,
    /// The processes of an abandoned job that do not end although they were killed, and the reason.
    pub stuck: Option<String>,
}

/// Why a job without an owner still exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AbandonedKind {
    /// The owner and the guards were all killed, or the guards are still ending the job. The next job
    /// that is made in the same place starts its end, and does not wait for its processes.
    Abandoned,
    /// The owner released the job: its members live on as intended.
    Released,
}

/// The abandoned and released jobs of this user, found below the cgroup of this process and in the
/// records. This call changes nothing.
///
/// # Errors
/// If the runtime directory is not safe to use; the error gives the reason.
pub fn abandoned_jobs() -> Result<Vec<AbandonedJob>> {
    sys::abandoned_jobs()
}

/// The directory with the records of this user's jobs. Other processes find the jobs through these
/// records.
///
/// # Errors
/// If there is no such directory, or it is not safe to use; the error gives the reason.
pub fn runtime_dir() -> Result<PathBuf> {
    sys::runtime_dir()
}
