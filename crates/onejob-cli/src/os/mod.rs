//! What the command needs from the operating system.
//!
//! Each system provides, with identical names and signatures:
//!
//! | item | purpose |
//! |---|---|
//! | `args()` | the argument vector |
//! | `HAS_DROPINS` | whether onejob can replace tini, dumb-init and timeout |
//! | `spawn(job, command, group, …)` | CMD, with the signal settings that onejob was started with |
//! | `SignalQueue`, `ReceivedSignal` | signals (console events) that are blocked and read one by one |
//! | `signal_group(…)`, `signal_own_group(…)`, `signal_unless_in_own_group(…)` | signals to a process group, or to a process outside of it |
//! | `become_group_leader()`, `release_terminal()`, `stop_self()` | this process's group, terminal and state |
//! | `why_no_init()`, `is_pid_1()`, `become_subreaper()`, `reap_orphans(…)`, `set_parent_death_signal(…)` | the duties of an init |
//! | `Lifeline` | an inherited descriptor or a process; the tree ends when its other end is closed, or it exits |
//! | `reset_sigchld()`, `was_ignored_or_blocked(signal)` | inherited signal settings |
//! | `Terminal` | the terminal's modes and foreground process group |
//! | `Waitable`, `wait_for(…)` | waiting for one of two events, a lifeline, or a deadline |
//! | `spawn_thread(work)`, `Completion` | a thread whose end `wait_for` can wait for |
//! | `without_tostop(write)` | writing to a terminal without being stopped by `stty tostop` |
//! | `exit_code(status)`, `die_like(status)`, `die_by(signal)`, `die_by_sigkill()` | ending as CMD did, or by a signal |
//! | `process_info(process)`, `resident_memory(process)`, `is_frozen(process)`, `ancestors(pid)` | what listings print about a process |
//! | `terminal_width()`, `terminal_height()` | the size of the terminal on standard output |
//! | `Keys` | single keys from the terminal on standard input |
//! | `daemonize()`, `DaemonSide`, `ReportPipe`, `redirect_stdio(log)` | running in the background |
//! | `log_dir()`, `create_log(path)`, `FileWatch` | log files of detached jobs |
//! | `exhausted_limit(error)` | the remedy if a resource limit of this process made a call fail |
//! | `protected_process(pid)` | why a process must not be stopped |
//!
//! Only this module and its children name an operating system.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as system;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as system;

#[cfg(all(unix, not(test)))]
pub(crate) use system::init_process;
pub(crate) use system::{
    Completion, DaemonSide, FileWatch, HAS_DROPINS, Keys, Lifeline, ReceivedSignal, ReportPipe,
    SignalQueue, Terminal, Waitable, ancestors, args, become_group_leader, become_subreaper,
    create_log, daemonize, die_by, die_by_sigkill, die_like, exhausted_limit, exit_code, is_frozen,
    is_pid_1, log_dir, process_info, protected_process, reap_orphans, redirect_stdio,
    release_terminal, reset_sigchld, resident_memory, set_parent_death_signal, signal_group,
    signal_own_group, signal_unless_in_own_group, spawn, spawn_thread, stop_self, terminal_height,
    terminal_width, wait_for, was_ignored_or_blocked, why_no_init, without_tostop,
};

/// What ended a [`wait_for`].
pub(crate) enum WaitEvent {
    First,
    Second,
    /// The other end of a lifeline was closed, or the process that is a lifeline has exited.
    LifelineLost,
    Deadline,
}

/// A process that is a lifeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LifelineProcess {
    /// The process that started onejob.
    Parent,
    Pid(u32),
}

/// CMD's process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessGroup {
    /// onejob's own.
    Inherit,
    /// A new one, with the foreground of the terminal if onejob had it.
    New,
    /// A new one in a new session, with the terminal if it belongs to no other session.
    NewSession,
}

/// Which signals a [`SignalQueue`] receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalFilter {
    /// All that a process can handle, except SIGCHLD and the stop signals of the terminal: those stop
    /// onejob together with the tree.
    AllButJobControl,
    /// All that a process can handle.
    All,
    /// The terminating signals, SIGALRM, and this one.
    Terminating(onejob::Signal),
}

/// A process at one moment, for listings.
pub(crate) struct ProcessInfo {
    pub(crate) user: String,
    pub(crate) cpu: std::time::Duration,
    /// Resident memory in bytes. Shared pages count for each process.
    pub(crate) memory: u64,
    pub(crate) age: std::time::Duration,
    /// Its arguments. On Windows the command line, which each program splits by itself.
    pub(crate) argv: Vec<String>,
    /// Whether it leads a process group but not its session.
    pub(crate) leads_group_only: bool,
}
