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
    Ended, Received, Signals, Terminal, Waitable, code, end_like, in_background, is_deaf_to,
    keep_statuses, quietly, refuse_root, start, wait_for,
};

/// What [`wait_for`] saw first.
pub(crate) enum Event {
    First,
    Second,
    Deadline,
}
