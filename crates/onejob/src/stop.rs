//! The ladder: ask politely, wait the grace period, kill what is left, confirm empty.

use std::time::{Duration, Instant};

use crate::{ProcessId, Result, Signal, sys};

/// How a job, or a tree of processes, was ended. It is confirmed empty: survivors are an
/// [`Error`](crate::Error::survivors).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StopReport {
    /// How many members were asked politely.
    pub signaled: usize,
    /// Whether the grace period ran out and the rest was killed.
    pub killed: bool,
    /// How long it took.
    pub took: Duration,
    /// What had happened to the members before.
    pub reason: StopReason,
}

/// Why members came to their end, or could not do what they wanted.
///
/// Of several, the first in this order: what has ended the whole job, what has ended a part of it,
/// and what was only refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum StopReason {
    /// The CPU time that all had together was used up, and they were killed.
    CpuTime,
    /// Memory was out, and the system killed them all, or some of them.
    Memory,
    /// The time of [`Job::stop_after`](crate::Job::stop_after) was over.
    Timeout,
    /// A process too many was refused; the others went on.
    Processes,
    /// Nothing of that: they ended by themselves, or somebody asked.
    #[default]
    Requested,
}

/// What the ladder needs from whatever it takes down.
pub(crate) trait Stoppable {
    /// The polite rung: sends `signal` to every member, wakes those that are stopped, and says how
    /// many it reached.
    fn terminate(&self, signal: Signal) -> Result<usize>;
    /// Waits until nobody is left; whether that came before the deadline.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool>;
    /// The last rung: returns when nobody is left, or with the survivors.
    fn kill(&self) -> Result<()>;
    /// What the limits of a job have done to its members so far.
    fn reason(&self) -> StopReason {
        StopReason::Requested
    }
}

pub(crate) fn stop(job: &dyn Stoppable, signal: Signal, grace: Duration) -> Result<StopReport> {
    let start = Instant::now();
    let asked = if grace.is_zero() { 0 } else { job.terminate(signal)? };
    // Whom nobody could ask nobody waits for.
    let patience = if asked == 0 { Duration::ZERO } else { grace };
    let emptied = match grace.is_zero() {
        true => false,
        false => match job.wait(start.checked_add(patience)) {
            // What may not be looked at can perhaps be killed all the same.
            Err(error) if error.is_permission_denied() => false,
            waited => waited?,
        },
    };
    // Also after a polite end: the kill proves the emptiness and costs nothing then.
    job.kill()?;
    Ok(StopReport {
        signaled: asked,
        killed: !emptied,
        took: start.elapsed(),
        reason: job.reason(),
    })
}

/// Waits for the end of all, and stops those who are left after `timeout`.
pub(crate) fn stop_after(
    job: &dyn Stoppable,
    timeout: Duration,
    signal: Signal,
    grace: Duration,
) -> Result<StopReport> {
    let start = Instant::now();
    let emptied = job.wait(start.checked_add(timeout))?;
    let report = stop(job, signal, if emptied { Duration::ZERO } else { grace })?;
    let reason = match report.reason {
        StopReason::Processes | StopReason::Requested if !emptied => StopReason::Timeout,
        reason => reason,
    };
    Ok(StopReport { killed: report.killed && !emptied, took: start.elapsed(), reason, ..report })
}

/// Stops the process `root` and everything below it, whoever started it, without a job.
///
/// Asks with `signal`, waits up to `grace` until all have ended, then kills the rest; a zero
/// `grace` kills at once. No stranger is ever hit: every process is held by a pidfd and proven to
/// be below `root` before it is signalled, and the calling process is spared if it is below
/// `root` itself. What had left the tree before this call by daemonising cannot be found any more,
/// and what leaves it while it is being asked is found only if it was seen before: without a job,
/// completeness is best effort.
///
/// # Errors
/// [`is_invalid_input`](crate::Error::is_invalid_input) for pid 1, a kernel thread or the calling
/// process; [`is_stale`](crate::Error::is_stale) if `root` is gone;
/// [`is_permission_denied`](crate::Error::is_permission_denied) for another user's process, before
/// anything is signalled; [`survivors`](crate::Error::survivors).
pub fn stop_tree(root: &ProcessId, signal: Signal, grace: Duration) -> Result<StopReport> {
    stop(&sys::tree(root)?, signal, grace)
}
