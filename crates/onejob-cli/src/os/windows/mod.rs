//! Windows: console events instead of signals, waitable handles, exit statuses that are numbers.

mod console;
mod daemonize;
mod events;
mod file_watch;
mod init;
mod keys;
mod lifeline;
mod process_info;
mod wait;

pub(crate) use std::env::args_os as args;
use std::{ffi::OsString, process::ExitStatus};

use onejob::{Child, Command, Job, Signal};

pub(crate) use console::Terminal;
pub(crate) use daemonize::{DaemonSide, create_log, daemonize, log_dir, redirect_stdio};
pub(crate) use events::{ReceivedSignal, SignalQueue};
pub(crate) use file_watch::FileWatch;
pub(crate) use init::{
    HAS_DROPINS, become_group_leader, become_subreaper, die_by_sigkill, is_pid_1, reap_orphans,
    release_terminal, set_parent_death_signal, signal_group, signal_own_group,
    signal_unless_in_own_group, stop_self, why_no_init,
};
pub(crate) use keys::Keys;
pub(crate) use lifeline::Lifeline;
pub(crate) use process_info::{
    ancestors, is_frozen, process_info, resident_memory, terminal_height, terminal_width,
};
pub(crate) use wait::{Completion, Waitable, spawn_thread, wait_for};

use crate::os::ProcessGroup;

/// The end of a pipe to which a daemon writes its report.
pub(crate) type ReportPipe = std::io::PipeWriter;

/// Starts CMD. The library runs a batch file with the command processor.
pub(crate) fn spawn(
    job: &Job,
    command: &[OsString],
    _: ProcessGroup,
    _: bool,
) -> onejob::Result<Child> {
    let (program, args) = command.split_first().expect("CMD has at least one word");
    job.spawn(Command::new(program).args(args))
}

/// Does nothing: an exit status is kept as long as a handle is open.
pub(crate) fn reset_sigchld() {}

/// Never: the console delivers no ignored event.
pub(crate) fn was_ignored_or_blocked(_: Signal) -> bool {
    false
}

/// Runs `write`: writing to a console never stops a process.
pub(crate) fn without_tostop(write: impl FnOnce()) {
    write();
}

/// All 32 bits of the status, as a signed number.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_default()
}

/// Returns: an exit status is only a number.
pub(crate) fn die_like(_: ExitStatus) {}

/// Exits with the status of a process that a signal has ended, as in a shell.
pub(crate) fn die_by(signal: onejob::Signal) -> ! {
    std::process::exit(128 + signal.as_raw())
}

/// Why a process must not be stopped.
pub(crate) fn protected_process(pid: u32) -> Option<&'static str> {
    (pid == 4).then_some("refusing to stop PID 4, the system process")
}

/// Never: no limit of a process makes these calls fail.
pub(crate) fn exhausted_limit(_: &std::io::Error) -> Option<&'static str> {
    None
}
