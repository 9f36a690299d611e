//! Random moments, and how long it takes until nothing is left.

use std::time::{Duration, Instant};

/// Waits without the rounding of a sleep.
pub(crate) fn pause(duration: Duration) {
    let start = Instant::now();
    if let Some(most) = duration.checked_sub(Duration::from_micros(200)) {
        std::thread::sleep(most);
    }
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}

/// The times from each of many deaths until nothing was left.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// Checks that the median is two seconds at most: a single time can be longer, since the machine may
    /// stall.
    #[track_caller]
    pub(crate) fn assert_prompt(mut self, what: &str) {
        self.0.sort_unstable();
        let Some(last) = self.0.last() else { return };
        let median = self.0[self.0.len() / 2];
        let deaths = self.0.len();
        eprintln!("{what}: {deaths} deaths, gone after {median:?} (median), {last:?} (maximum)");
        assert!(median <= Duration::from_secs(2), "{what}: {median:?}");
    }
}
