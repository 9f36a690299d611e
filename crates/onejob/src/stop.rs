//! The ladder: ask politely, wait the grace period, kill what is left, confirm empty.

use std::time::{Duration, Instant};

use crate::{ProcessId, Result, Signal, sys};

/// How a job, or a tree of processes, was ended. It is confirmed empty: survivors are an
/// [`Error`](crate::Error::survivors).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StopReport {
    /// How many members were asked politely.
    pub asked: usize,
    /// Whether the grace period ran out and the rest was killed.
    pub killed: bool,
    /// How long it took.
    pub took: Duration,
}

/// What the ladder needs from whatever it takes down.
pub(crate) trait Stoppable {
    /// The polite rung: sends `signal` to every member, wakes those that are stopped, and says how
    /// many it reached.
    fn ask(&self, signal: Signal) -> Result<usize>;
    /// Waits until nobody is left; whether that came before the deadline.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool>;
    /// The last rung: returns when nobody is left, or with the survivors.
    fn kill(&self) -> Result<()>;
}

pub(crate) fn stop(job: &dyn Stoppable, signal: Signal, grace: Duration) -> Result<StopReport> {
    let start = Instant::now();
    let asked = if grace.is_zero() { 0 } else { job.ask(signal)? };
    // Whom nobody could ask nobody waits for.
    let patience = if asked == 0 { Duration::ZERO } else { grace };
    let emptied = !grace.is_zero() && job.wait(start.checked_add(patience))?;
    // Also after a polite end: the kill proves the emptiness and costs nothing then.
    job.kill()?;
    Ok(StopReport { asked, killed: !emptied, took: start.elapsed() })
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
