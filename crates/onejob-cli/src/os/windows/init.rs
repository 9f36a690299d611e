//! Unix functions without a counterpart on Windows.

use std::io;

use onejob::{Child, Signal};

/// Whether onejob can replace tini, dumb-init and timeout.
pub(crate) const HAS_DROPINS: bool = false;

/// Why `onejob init` is not available on this system.
pub(crate) fn why_no_init() -> Option<&'static str> {
    Some(
        "onejob init is not available on Windows: no process is re-parented there (use onejob run)",
    )
}

pub(crate) fn is_pid_1() -> bool {
    false
}

pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(())
}

pub(crate) fn reap_orphans(_: u32, _: impl FnMut(u32)) {}

pub(crate) fn set_parent_death_signal(_: Signal) -> io::Result<()> {
    Ok(())
}

pub(crate) fn become_group_leader() {}

pub(crate) fn release_terminal() -> Vec<Signal> {
    Vec::new()
}

pub(crate) fn stop_self() {}

pub(crate) fn signal_own_group(_: Signal) {}

pub(crate) fn signal_unless_in_own_group(child: &Child, signal: Signal) -> onejob::Result<()> {
    child.signal(signal)
}

pub(crate) fn signal_group(child: &Child, signal: Signal) -> onejob::Result<()> {
    child.signal(signal)
}

/// Returns: the exit code of [`Exit::Killed`](crate::exit::Exit::Killed) follows.
pub(crate) fn die_by_sigkill() {}
