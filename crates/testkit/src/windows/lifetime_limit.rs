//! A hard end for every process a test starts, so that a failed test leaves nothing for ever.

use std::{thread, time::Duration};

/// Long enough for a stalled machine, short enough that a leak clears itself.
pub const LIFETIME_SECONDS: i64 = 300;

/// Ends the calling process after `seconds`. Every new process asks for itself.
pub fn apply(seconds: i64) {
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(seconds.unsigned_abs()));
        std::process::exit(1)
    });
}
