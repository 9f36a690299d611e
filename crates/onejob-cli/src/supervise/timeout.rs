//! Signals and the time limit of timeout(1).

use std::time::Duration;

use onejob::{Child, Job, Signal};

use super::Outcome;
use crate::{
    failure::Failure,
    os::{self, ReceivedSignal},
    output,
};

/// What the time limit does.
#[derive(Debug)]
pub(crate) struct TimeoutMode {
    /// Sent at the time limit.
    pub(crate) signal: Signal,
    /// The time between the first signal and SIGKILL. Taken by the first signal.
    pub(crate) kill_after: Option<Duration>,
    /// CMD stays in onejob's process group, and signals are sent to CMD alone.
    pub(crate) foreground: bool,
    pub(crate) verbose: bool,
    /// CMD's name in messages.
    pub(crate) program: String,
}

impl TimeoutMode {
    /// Forwards a terminating signal; SIGALRM is a time limit that another process has set. Returns
    /// the time until the next signal is due, if it changes.
    pub(super) fn handle_signal(
        &mut self,
        received: ReceivedSignal,
        job: &Job,
        child: &Child,
        outcome: &mut Outcome,
    ) -> Result<Option<Duration>, Failure> {
        match received.signal {
            _ if received.is_own() => Ok(None),
            Signal::ALRM => self.handle_timeout(job, child, outcome),
            signal => self.send(signal, job, child, outcome),
        }
    }

    /// Signals the whole tree at the time limit. Returns the time until SIGKILL is due.
    pub(super) fn handle_timeout(
        &mut self,
        job: &Job,
        child: &Child,
        outcome: &mut Outcome,
    ) -> Result<Option<Duration>, Failure> {
        outcome.timed_out = true;
        self.send(self.signal, job, child, outcome)
    }

    fn send(
        &mut self,
        signal: Signal,
        job: &Job,
        child: &Child,
        outcome: &mut Outcome,
    ) -> Result<Option<Duration>, Failure> {
        let kill_after = self.kill_after.take();
        if kill_after.is_some() {
            self.signal = Signal::KILL;
        }
        if self.verbose {
            let name = signal.to_string();
            let name = name.strip_prefix("SIG").unwrap_or(&name);
            output::error(format_args!("sending signal {name} to command '{}'", self.program));
        }
        let reaches_group_only = super::reaches_group_only(job);
        if signal == Signal::KILL {
            outcome.killed = true;
            match reaches_group_only {
                false => _ = job.kill()?,
                true => self.send_to_group(signal, child)?,
            }
            return Ok(kill_after);
        }
        let cont = (signal != Signal::CONT).then_some(Signal::CONT);
        for signal in [Some(signal), cont].into_iter().flatten() {
            // A member that has changed its user ID may be out of reach until the kill.
            let _ = match outcome.timed_out && !reaches_group_only {
                true => job.signal(signal).map(drop),
                false => self.send_to_group(signal, child),
            };
        }
        Ok(kill_after)
    }

    /// Sends a signal to CMD, and to the process group of onejob unless CMD is in the foreground.
    fn send_to_group(&self, signal: Signal, child: &Child) -> onejob::Result<()> {
        if self.foreground {
            return child.signal(signal);
        }
        // CMD may have moved to a group of its own. It comes first: SIGKILL ends this process, too.
        let sent = os::signal_unless_in_own_group(child, signal);
        os::signal_own_group(signal);
        sent
    }
}
