//! Signals, orphans and messages of an init.

use std::{ffi::OsString, process::ExitStatus, time::Duration};

use onejob::{Child, Job, Mechanism, OwnerDeath, Signal};

use crate::{
    failure::Failure,
    os::{self, ProcessGroup, ReceivedSignal},
    output::{info, warn},
};

/// How an init forwards signals.
#[derive(Debug, Default)]
pub(crate) struct InitMode {
    /// To CMD's process group instead of CMD alone.
    pub(crate) to_group: bool,
    /// Signals that are forwarded as another signal, or not at all. The last match counts.
    pub(crate) rewrites: Vec<(Signal, Option<Signal>)>,
    /// The time between a terminating signal and SIGKILL for CMD; `None` is no limit.
    pub(crate) kill_after: Option<Duration>,
    /// Whether onejob stops together with CMD.
    pub(crate) stops_with_child: bool,
    /// Whether reaping an orphan prints a warning.
    pub(crate) warns_of_orphans: bool,
    /// Signals that arrive once because this process has released the terminal.
    pub(crate) expected: Vec<Signal>,
}

impl InitMode {
    /// Releases the terminal if CMD gets a session of its own.
    pub(super) fn before_start(&mut self, process_group: ProcessGroup) {
        if process_group == ProcessGroup::NewSession {
            self.expected = os::release_terminal();
        }
    }

    pub(super) fn after_exit(&self, status: ExitStatus, child: &Child) {
        info(2, format_args!("the command has ended: {status}"));
        self.reap(child);
    }

    /// Reaps re-parented children.
    pub(super) fn reap(&self, child: &Child) {
        os::reap_orphans(child.pid(), |pid| match self.warns_of_orphans {
            true => warn(format_args!("reaped orphan process {pid}")),
            false => info(3, format_args!("reaped process {pid}")),
        });
    }

    /// Handles a signal while CMD runs. Returns the time until CMD has to be killed, if the signal is
    /// a terminating one.
    pub(super) fn handle_signal(
        &mut self,
        received: ReceivedSignal,
        child: &Child,
    ) -> Option<Duration> {
        if received.signal == Signal::CHLD {
            self.reap(child);
            return None;
        }
        if received.is_own() {
            return None;
        }
        if self.expected.contains(&received.signal) {
            self.expected.retain(|signal| *signal != received.signal);
            return None;
        }
        self.forward(received.signal, child)
    }

    fn forward(&self, received: Signal, child: &Child) -> Option<Duration> {
        const TERMINATING: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::TERM];
        const STOPPING: [Signal; 3] = [Signal::TSTP, Signal::TTIN, Signal::TTOU];
        let rewrite = self.rewrites.iter().rev().find(|(from, _)| *from == received);
        match rewrite.map_or(Some(received), |(_, to)| *to) {
            Some(signal) => {
                info(3, format_args!("forwarding {received} as {signal}"));
                let sent = match self.to_group {
                    true => os::signal_group(child, signal),
                    false => child.signal(signal),
                };
                if let Err(error) = sent {
                    warn(format_args!("failed to forward {signal}: {error}"));
                }
            }
            None => info(3, format_args!("{received} is not forwarded")),
        }
        if self.stops_with_child && STOPPING.contains(&received) {
            os::stop_self();
        }
        self.kill_after.filter(|_| TERMINATING.contains(&received))
    }
}

/// Leaves the working directory: it is not needed to find CMD any more, and would keep its file system
/// from being unmounted.
pub(super) fn after_start(command: &[OsString], child: &Child) {
    let program = command.first().map(OsString::as_os_str).unwrap_or_default();
    info(2, format_args!("started {program:?} as process {}", child.pid()));
    let _ = std::env::set_current_dir("/");
}

/// Whether an exit status is one of those that are to be a 0.
pub(crate) fn is_success(code: i32, success: &[u8]) -> bool {
    success.iter().any(|one| i32::from(*one) == code)
}

/// The rewrites for a CMD in a session of its own (`session`): SIGSTOP instead of the stop signals of the
/// terminal. The process group is orphaned, and the kernel discards their default action there.
pub(crate) fn stop_rewrites(session: bool) -> Vec<(Signal, Option<Signal>)> {
    let stops = [Signal::TSTP, Signal::TTIN, Signal::TTOU];
    stops.into_iter().filter(|_| session).map(|from| (from, Some(Signal::STOP))).collect()
}

/// Creates the job of an init.
///
/// As PID 1, without cgroup or guards: every orphan of the PID namespace is re-parented to this process,
/// and the kernel ends the namespace with it. Below another init, this process becomes a subreaper, and
/// the job is the one of `new`.
pub(crate) fn init_job(
    mechanism: Option<Mechanism>,
    new: impl FnOnce() -> onejob::Result<Job>,
) -> Result<Job, Failure> {
    let builder = Job::builder();
    let job = match mechanism {
        None if os::is_pid_1() => builder.require(OwnerDeath::Kernel).enclose()?,
        None => new()?,
        Some(mechanism) => builder.mechanism(mechanism).build()?,
    };
    // After the guards have been started: they must not become children of this process.
    os::become_subreaper().map_err(|e| Failure::os("become a subreaper", e))?;
    Ok(job)
}
