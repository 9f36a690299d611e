//! A lifetime limit for every process that a test starts, so that a failed test leaves no process
//! behind for ever.

use std::{thread, time::Duration};

/// Long enough for a stalled machine, short enough for leaked processes to end soon.
pub const LIFETIME_SECONDS: i64 = 300;

/// Ends the calling process after `seconds`. Every new process must call this function.
pub fn apply(seconds: i64) {
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(seconds.unsigned_abs()));
        std::process::exit(1)
    });
}
