//! Unix: signals by a descriptor, a terminal with a foreground, statuses with signals.

mod daemonize;
mod entry;
mod file_watch;
mod init;
mod lifeline;
mod memory;
mod process_info;
mod signals;
mod spawn;
mod terminal;
mod wait;

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use onejob::Signal;

pub(crate) use daemonize::{Side, log_folder, make_log, redirect, split};
pub(crate) use entry::args;
pub(crate) use file_watch::Changes;
pub(crate) use init::{
    adopt_orphans, called_as, die_with_parent, is_first, reap_orphans, why_no_init,
};
pub(crate) use lifeline::Lifeline;
pub(crate) use process_info::{ancestors, details};
pub(crate) use signals::{
    Received, Signals, is_deaf_to, keep_statuses, lead_group, signal_group, signal_if_elsewhere,
    signal_own_group, suspend,
};
pub(crate) use spawn::start;
pub(crate) use terminal::{Terminal, leave_terminal};
pub(crate) use wait::{Ended, Waitable, in_background, wait_for};

/// Does something that a terminal may stop a background process for (`stty tostop`).
pub(crate) fn quietly(write: impl FnOnce()) {
    signals::while_blocked(Signal::TTOU, write);
}

/// Where what must be told in front is written.
pub(crate) type Reporter = std::io::PipeWriter;

/// How wide the terminal is that standard output goes to, if it goes to one.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    // A terminal that does not say is as wide as most were.
    Some(if size.ws_col == 0 { 80 } else { size.ws_col.into() })
}

/// A shell's number for it: 128+n for signal n.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Ends by the signal that ended CMD, if one did.
pub(crate) fn end_like(status: ExitStatus) {
    if let Some(signal) = status.signal().and_then(Signal::from_raw) {
        signals::end_by(signal);
    }
}

/// Ends by the signal that nobody survives.
pub(crate) fn end_killed() {
    signals::end_by(Signal::KILL)
}

/// Why nobody can mean the tree below this process.
pub(crate) fn refuse_root(pid: u32) -> Option<&'static str> {
    let first = "that is the system's first process, and everything is below it (name a \
                 process below it)";
    (pid == 1).then_some(first)
}
