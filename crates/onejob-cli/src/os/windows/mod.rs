//! Windows: console events instead of signals, handles to wait for, statuses that are numbers.

mod console;
mod daemonize;
mod events;
mod file_watch;
mod init;
mod process_info;
mod wait;

pub(crate) use std::env::args_os as args;
use std::{ffi::OsString, process::ExitStatus};

use onejob::{Child, Command, Job, Signal};

pub(crate) use console::Terminal;
pub(crate) use daemonize::{Side, log_folder, make_log, redirect, split};
pub(crate) use events::{Received, Signals};
pub(crate) use file_watch::Changes;
pub(crate) use init::{
    Lifeline, adopt_orphans, called_as, die_with_parent, end_killed, is_first, lead_group,
    leave_terminal, reap_orphans, signal_group, signal_if_elsewhere, signal_own_group, suspend,
    why_no_init,
};
pub(crate) use process_info::{ancestors, details, terminal_width};
pub(crate) use wait::{Ended, Waitable, in_background, wait_for};

use crate::{exit::Failure, os::Place};

/// Where what must be told in front is written.
pub(crate) type Reporter = std::io::PipeWriter;

/// Starts CMD. A batch file is handed to the command processor by the library.
pub(crate) fn start(job: &Job, command: &[OsString], _: Place, _: bool) -> Result<Child, Failure> {
    let (program, args) = command.split_first().expect("the definition of CMD requires a value");
    Ok(job.spawn(Command::new(program).args(args))?)
}

/// Nobody can take a status away here.
pub(crate) fn keep_statuses() {}

/// Which console events we hear has been decided by the console: what is ignored does not come.
pub(crate) fn is_deaf_to(_: Signal) -> bool {
    false
}

/// Writing to a console never stops a process.
pub(crate) fn quietly(write: impl FnOnce()) {
    write();
}

/// All 32 bits of it, as a signed number.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_default()
}

/// A status is a number and nothing more.
pub(crate) fn end_like(_: ExitStatus) {}

/// Why nobody can mean the tree below this process.
pub(crate) fn refuse_root(pid: u32) -> Option<&'static str> {
    (pid == 4).then_some("that is the system itself (name a process of a program)")
}
