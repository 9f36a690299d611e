//! A higher priority for a thread that kills members.
//!
//! If hundreds of members compete for the CPUs, the thread that is to kill them gets a five-hundredth of the
//! time. So until that is done it takes the best scheduling that is permitted: a real-time policy, or the
//! highest priority, or a short slice, which makes it wait less between its turns (Linux 6.12).
//!
//! A thread with a real-time policy must not reap children: the kernel removes the `/proc` entries of a reaped process
//! and waits, without sleeping, for any process that is removing one of them, too. If that process needs the same CPU,
//! it runs only when the real-time thread has used up its share of a second (`sched(7)`).

use super::{
    procfs::{Load, parse_loadavg},
    syscall::{
        CWD, Errno, RLIMIT_RTTIME, SCHED_BATCH, SCHED_FIFO, SCHED_IDLE, SCHED_NORMAL, SchedAttr,
        UNLIMITED, cpu_count, get_rlimit, openat, read,
    },
};

/// How many processes that compete for the CPUs leave too little time to a single one.
pub(crate) const CROWD: usize = 64;

/// And how many per CPU.
const PER_CPU: usize = 16;

/// The shortest slice of the kernel, in nanoseconds.
const SHORT_SLICE: u64 = 100_000;

const BEST_NICE: i32 = -20;

/// The scheduling that the calling thread had before it was raised, and that it gets back when this is
/// dropped; `None` if it was not raised.
pub(crate) struct Priority(Option<SchedAttr>);

impl Priority {
    /// Raises the priority of the calling thread. It must not start a process or a thread meanwhile: that would
    /// inherit the priority.
    pub(crate) fn raise() -> Priority {
        let Ok(before) = SchedAttr::of(0) else { return Priority(None) };
        Priority(improve(&before).then_some(before))
    }

    /// [`Priority::raise`], if too many processes compete for the CPUs.
    pub(crate) fn raise_if_crowded() -> Option<Priority> {
        is_crowded_now().then(Priority::raise)
    }

    /// Raises the priority of a thread that also reaps, until it exits.
    pub(crate) fn raise_without_real_time() {
        if let Ok(before) = SchedAttr::of(0)
            && is_ordinary(&before)
        {
            improve_ordinary(&before);
        }
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            // A thread may always lower its priority.
            let _ = before.set();
        }
    }
}

/// Whether too many processes compete for the CPUs. `false` if `/proc` does not show it.
pub(crate) fn is_crowded_now() -> bool {
    let mut text = [0_u8; 128];
    openat(CWD, c"/proc/loadavg", 0)
        .and_then(|file| read(file, &mut text))
        .ok()
        .and_then(|len| parse_loadavg(text.get(..len)?))
        .is_some_and(is_crowded)
}

/// Whether too many processes compete for the CPUs under this load.
pub(crate) fn is_crowded(load: Load) -> bool {
    load.runnable >= CROWD && load.runnable >= PER_CPU * cpu_count()
}

/// Sets the best scheduling that is permitted to a thread that has the scheduling `before`. Returns whether
/// one was set.
fn improve(before: &SchedAttr) -> bool {
    if !is_ordinary(before) {
        return false;
    }
    let real_time =
        SchedAttr { policy: SCHED_FIFO, flags: before.flags, priority: 1, ..SchedAttr::default() };
    // With a limit the kernel would kill a real-time process that does not sleep for that long.
    let may_be_real_time = get_rlimit(0, RLIMIT_RTTIME) == Ok([UNLIMITED; 2]);
    (may_be_real_time && real_time.set() != Err(Errno::PERM)) || improve_ordinary(before)
}

fn is_ordinary(attr: &SchedAttr) -> bool {
    matches!(attr.policy, SCHED_NORMAL | SCHED_BATCH | SCHED_IDLE)
}

fn improve_ordinary(before: &SchedAttr) -> bool {
    let first =
        SchedAttr { policy: SCHED_NORMAL, nice: BEST_NICE, runtime: SHORT_SLICE, ..*before };
    let short = SchedAttr { runtime: SHORT_SLICE, ..*before };
    first.set().is_ok() || short.set().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduling() -> SchedAttr {
        SchedAttr::of(0).expect("readable")
    }

    #[test]
    fn a_raised_priority_is_given_back() {
        let before = scheduling();
        let priority = Priority::raise();
        let during = scheduling();
        drop(priority);
        assert_eq!(scheduling(), before);
        // Without privileges only the slice can change, which kernels before 6.12 do not have.
        let has_slices = super::super::syscall::is_release(6, 12);
        assert!(during != before || !has_slices, "{during:?}");
    }
}
