//! What the command needs from the operating system.
//!
//! Each system provides, with identical names and signatures:
//!
//! | item | what |
//! |---|---|
//! | `start(job, command)` | CMD, with the settings that we were started with |
//! | `Signals`, `Received` | what we are asked from outside, held back from its usual effect |
//! | `keep_statuses()`, `is_deaf_to(signal)` | what we inherited, undone and respected |
//! | `Terminal` | the terminal as we found it |
//! | `Waitable`, `wait_for(…)` | sleeping until one of two things happens, or until a deadline |
//! | `in_background(work)` | a thread whose end can be waited for together with others |
//! | `quietly(write)` | writing a message without being stopped for it |
//! | `code(status)`, `end_like(status)` | ending as CMD did |
//! | `Details`, `details(process)`, `ancestors(pid)` | what a listing shows of a process, and whose it is |
//! | `terminal_width()` | the width of the terminal that standard output goes to |
//! | `split()`, `Side`, `Reporter`, `redirect(log)` | going into the background |
//! | `log_folder()`, `make_log(path)`, `Changes` | the logs of what is there |
//! | `refuse_root(pid)` | why nobody can mean this process |
//!
//! Operating systems are named here and below, and nowhere else in the command.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as system;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as system;

pub(crate) use system::{
    Changes, Details, Ended, Received, Reporter, Side, Signals, Terminal, Waitable, ancestors,
    code, details, end_like, in_background, is_deaf_to, keep_statuses, log_folder, make_log,
    quietly, redirect, refuse_root, split, start, terminal_width, wait_for,
};

/// What [`wait_for`] saw first.
pub(crate) enum Event {
    First,
    Second,
    Deadline,
}
