//! Unix: signalfd, terminals with a foreground process group, exit statuses with signals.

mod daemonize;
mod entry;
mod file_watch;
mod init;
mod keys;
mod lifeline;
mod memory;
mod process_info;
mod signals;
mod spawn;
mod terminal;
mod wait;

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use onejob::Signal;

pub(crate) use daemonize::{DaemonSide, create_log, daemonize, log_dir, redirect_stdio};
pub(crate) use entry::args;
#[cfg(not(test))]
pub(crate) use entry::init_process;
pub(crate) use file_watch::FileWatch;
pub(crate) use init::{
    HAS_DROPINS, become_subreaper, is_pid_1, reap_orphans, set_parent_death_signal, why_no_init,
};
pub(crate) use keys::Keys;
pub(crate) use lifeline::Lifeline;
pub(crate) use process_info::{ancestors, is_frozen, process_info, resident_memory};
pub(crate) use signals::{
    ReceivedSignal, SignalQueue, become_group_leader, die_by, reset_sigchld, signal_group,
    signal_own_group, signal_unless_in_own_group, stop_self, was_ignored_or_blocked,
};
pub(crate) use spawn::spawn;
pub(crate) use terminal::{Terminal, release_terminal};
pub(crate) use wait::{Completion, Waitable, spawn_thread, wait_for};

/// Runs `write` with SIGTTOU blocked: `stty tostop` does not stop this process for it.
pub(crate) fn without_tostop(write: impl FnOnce()) {
    signals::while_blocked(Signal::TTOU, write);
}

/// The end of a pipe to which a daemon writes its report.
pub(crate) type ReportPipe = std::io::PipeWriter;

/// The width of the terminal on standard output; `None` if standard output is not a terminal.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    // A terminal without a known size reports 0.
    Some(if size.ws_col == 0 { 80 } else { size.ws_col.into() })
}

/// The height of the terminal on standard output; `None` if it is unknown.
pub(crate) fn terminal_height() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0).then_some(size.ws_row.into())
}

/// The exit code as in a shell: 128+n for signal n.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Ends this process by the signal that ended CMD. Returns if CMD exited.
pub(crate) fn die_like(status: ExitStatus) {
    if let Some(signal) = status.signal().and_then(Signal::from_raw) {
        signals::die_by(signal);
    }
}

pub(crate) fn die_by_sigkill() {
    signals::die_by(Signal::KILL)
}

/// Why a process must not be stopped.
pub(crate) fn protected_process(pid: u32) -> Option<&'static str> {
    (pid == 1).then_some("refusing to stop PID 1, the ancestor of every process")
}

/// The remedy if a resource limit of this process made a call fail.
pub(crate) fn exhausted_limit(error: &std::io::Error) -> Option<&'static str> {
    (error.raw_os_error() == Some(libc::EMFILE))
        .then_some("raise the limit of open files (RLIMIT_NOFILE, ulimit -n)")
}
