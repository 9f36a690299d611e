//! A lifetime limit for every process that a test starts, so that a failed test leaves no process
//! behind for ever.

use std::{mem, ptr};

/// Long enough for a stalled machine, short enough for leaked processes to end soon.
pub const LIFETIME_SECONDS: i64 = 300;

/// Makes the kernel kill the calling process after `seconds`, no matter which signals it blocks or
/// ignores and what it waits for. `fork` and `exec` do not inherit it: every new process must call
/// this function.
pub fn apply(seconds: i64) {
    // SAFETY: all-zero is a valid sigevent and itimerspec; both and the timer id are locals that
    // live through the calls, which keep no pointer to them.
    unsafe {
        let mut event: libc::sigevent = mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer: libc::timer_t = ptr::null_mut();
        let mut end: libc::itimerspec = mem::zeroed();
        end.it_value.tv_sec = seconds;
        let armed = libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) == 0
            && libc::timer_settime(timer, 0, &end, ptr::null_mut()) == 0;
        assert!(armed, "failed to arm the lifetime timer: {}", std::io::Error::last_os_error());
    }
}
