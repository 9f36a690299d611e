//! Waiting for conditions, and skipping tests.

use std::{
    thread,
    time::{Duration, Instant},
};

/// A hang detector, not a speed check: the machine can stall for a minute.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until `condition` returns a value.
///
/// # Panics
/// With the text `what` when the deadline has passed.
#[track_caller]
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, condition)
        .unwrap_or_else(|| panic!("still waiting after {DEADLINE:?} for: {what}"))
}

/// Waits for at most `deadline` until `condition` returns a value.
pub(crate) fn within<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let value = condition();
        if value.is_some() || start.elapsed() > deadline {
            return value;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Raises the scheduling of the calling thread so that it runs whatever other processes do; children do not
/// inherit it. A user without privileges keeps the default scheduling.
#[cfg(target_os = "linux")]
pub fn run_first() {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters live through the call, which keeps no pointer to them.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &param) };
}

/// Prints that this host cannot run a test; the caller then returns.
///
/// # Panics
/// If the environment has `ONEJOB_NO_SKIP=1`, which is set on hosts on which every test must run.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(!no_skip(), "must not be skipped here (ONEJOB_NO_SKIP): {reason}");
    eprintln!("SKIPPED: {reason}");
}

fn no_skip() -> bool {
    std::env::var_os("ONEJOB_NO_SKIP").is_some_and(|value| value == "1")
}
