//! What the command needs from the operating system.
//!
//! Each system provides, with identical names and signatures:
//!
//! | item | what |
//! |---|---|
//! | `args()` | what we were called with, our name first |
//! | `start(job, command, place, …)` | CMD, with the settings that we were started with |
//! | `Signals`, `Received` | what we are asked from outside, held back from its usual effect |
//! | `signal_group(…)`, `signal_own_group(…)`, `signal_if_elsewhere(…)` | signals to more than one, or to one that others do not reach |
//! | `lead_group()`, `leave_terminal()`, `suspend()` | our own place |
//! | `why_no_init()`, `is_first()`, `adopt_orphans()`, `reap_orphans(…)`, `die_with_parent(…)` | being an init |
//! | `Lifeline` | somebody else's descriptor whose other end we watch |
//! | `called_as()` | the name of another program that we are to stand in for |
//! | `keep_statuses()`, `is_deaf_to(signal)` | what we inherited, undone and respected |
//! | `Terminal` | the terminal as we found it |
//! | `Waitable`, `wait_for(…)` | sleeping until one of two things happens, or until a deadline |
//! | `in_background(work)` | a thread whose end can be waited for together with others |
//! | `quietly(write)` | writing a message without being stopped for it |
//! | `code(status)`, `end_like(status)` | ending as CMD did |
//! | `details(process)`, `ancestors(pid)` | what a listing shows of a process, and whose it is |
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
    Changes, Ended, Lifeline, Received, Reporter, Side, Signals, Terminal, Waitable, adopt_orphans,
    ancestors, args, called_as, code, details, die_with_parent, end_killed, end_like,
    in_background, is_deaf_to, is_first, keep_statuses, lead_group, leave_terminal, log_folder,
    make_log, quietly, reap_orphans, redirect, refuse_root, signal_group, signal_if_elsewhere,
    signal_own_group, split, start, suspend, terminal_width, wait_for, why_no_init,
};

/// What [`wait_for`] saw first.
pub(crate) enum Event {
    First,
    Second,
    /// The other end of the lifeline was closed.
    Cut,
    Deadline,
}

/// How CMD stands to our process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In it.
    Beside,
    /// In one of its own, with the foreground of the terminal if that was ours.
    Group,
    /// In a session of its own, with the terminal if nobody else's session has it.
    Session,
}

/// Which signals are held back, to be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// All that a program can do something about, but what is to stop us together with the tree.
    ButStops,
    /// Also that, and the end of a child.
    All,
    /// This one, a timer, and those that ask for an end.
    Ends(onejob::Signal),
}

/// One process at one moment, as a listing shows it.
pub(crate) struct Details {
    pub(crate) user: String,
    pub(crate) cpu: std::time::Duration,
    /// Resident, in bytes; pages shared with others count for each.
    pub(crate) memory: u64,
    pub(crate) age: std::time::Duration,
    pub(crate) command: String,
    /// Whether it leads a process group in a session that it does not lead.
    pub(crate) leads_a_mere_group: bool,
}
