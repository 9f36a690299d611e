//! Stopping: send a signal, wait for the grace period, kill the remaining members, confirm empty.

use std::time::{Duration, Instant};

use crate::{ProcessId, Result, Signal, sys, trace::event};

/// How a job, or a tree of processes, was stopped. It is confirmed to be empty: if members survive,
/// the result is an [`Error`](crate::Error::survivors) instead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StopReport {
    /// The number of members that got the first signal.
    pub signaled: usize,
    /// Whether the grace period expired and the remaining members were killed.
    pub killed: bool,
    /// The duration of the stop.
    pub took: Duration,
    /// Why the members ended; `None` if they ended by themselves.
    pub reason: Option<StopReason>,
}

/// Why members ended, or why a limit made a call of a member fail.
///
/// If several reasons apply, the most severe one is reported: one that ended the whole job before one
/// that ended a part of it, and that before one that only made calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// The total CPU time of the job was used up, and all members were killed.
    CpuTime,
    /// The job was out of memory, and the kernel killed all members or some of them.
    Memory,
    /// The timeout of [`Job::stop_after`](crate::Job::stop_after) expired.
    Timeout,
    /// The limit on processes was reached and a new process was refused; the others went on.
    Processes,
    /// A stop or a kill was requested. Also if this process has no permission to read whether a limit was
    /// reached.
    Requested,
}

/// The operations that [`stop`] needs from a job or a tree of processes.
pub(crate) trait Stoppable {
    /// Sends `signal` to every member, continues members that are stopped, and returns the number of
    /// members reached.
    fn terminate(&self, signal: Signal) -> Result<usize>;
    /// Waits until no member is left; returns whether that happened before the deadline.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool>;
    /// Kills all members; returns when no member is left, or an error with the survivors.
    fn kill(&self) -> Result<()>;
    /// The most severe limit of the job that its members have reached so far.
    fn limit_reached(&self) -> Result<Option<StopReason>> {
        Ok(None)
    }
}

pub(crate) fn stop(job: &dyn Stoppable, signal: Signal, grace: Duration) -> Result<StopReport> {
    let start = Instant::now();
    let signaled = if grace.is_zero() { 0 } else { job.terminate(signal)? };
    event!(debug, "stop: signal sent", signal = signal, members = signaled);
    // If no process could be signalled, skip the grace period.
    let wait_at_most = if signaled == 0 { Duration::ZERO } else { grace };
    let emptied = match grace.is_zero() {
        true => false,
        false => match job.wait(start.checked_add(wait_at_most)) {
            // Members that this process may not observe can perhaps still be killed.
            Err(error) if error.is_permission_denied() => false,
            waited => waited?,
        },
    };
    // Kill also if all members have ended: this proves that the job is empty, and costs nothing.
    event!(debug, "stop: kill", emptied_before = emptied);
    job.kill().inspect_err(|error| event!(debug, "stop: kill failed", error = error))?;
    let reached = match job.limit_reached() {
        // The guards have killed what this process may not even observe.
        Err(error) if error.is_permission_denied() => None,
        reached => reached?,
    };
    let reason = reached.or(Some(StopReason::Requested));
    Ok(StopReport { signaled, killed: !emptied, took: start.elapsed(), reason })
}

/// Waits until all members have ended, and stops the members that are left after `timeout`.
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
        Some(StopReason::Processes | StopReason::Requested) if !emptied => {
            Some(StopReason::Timeout)
        }
        Some(StopReason::Requested) => None,
        reason => reason,
    };
    Ok(StopReport { killed: report.killed && !emptied, took: start.elapsed(), reason, ..report })
}

/// Stops the process `root` and all of its descendants, without a job.
///
/// Sends `signal`, waits up to `grace` until all have ended, then kills the rest; a zero `grace` kills
/// at once. Never signals an unrelated process: every process is held by a pidfd and proven to be below
/// `root` before it is signalled. The calling process is left out if it is below `root`.
///
/// Without a job, completeness is best effort: a process that left the tree before this call by
/// daemonising cannot be found any more, and a process that leaves the tree during this call is found
/// only if it was seen before.
///
/// # Errors
/// [`is_invalid_input`](crate::Error::is_invalid_input) for pid 1, a kernel thread or the calling
/// process; [`is_stale`](crate::Error::is_stale) if `root` is gone;
/// [`is_permission_denied`](crate::Error::is_permission_denied) for a process of another user, before
/// any process is signalled; an error with [`survivors`](crate::Error::survivors) if some processes
/// cannot be killed.
pub fn stop_tree(root: &ProcessId, signal: Signal, grace: Duration) -> Result<StopReport> {
    stop(&*sys::tree(root)?, signal, grace)
}
