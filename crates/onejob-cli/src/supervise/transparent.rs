//! Signals in transparent mode: CMD is in onejob's process group.

use onejob::{Child, Job};

use crate::{os::ReceivedSignal, output::warn};

/// Forwards a signal to CMD, unless CMD has received it with the process group.
pub(super) fn handle_signal(received: ReceivedSignal, job: &Job, child: &Child) {
    if received.is_for_child(job, child)
        && let Err(error) = child.signal(received.signal)
    {
        warn(format_args!("failed to forward {}: {error}", received.signal));
    }
}
