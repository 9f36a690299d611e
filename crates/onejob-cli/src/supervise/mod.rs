//! Runs CMD in the foreground and ends what it leaves behind: the common part of `run`, `init` and the
//! drop-ins.
//!
//! [`Setup::new`] → the caller creates the job → [`Setup::start`] → [`Supervisor::run`].

mod cleanup;
mod init;
mod timeout;
mod transparent;

use std::{
    ffi::OsString,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use onejob::{Child, Containment, Job};

use crate::{
    args::StopArgs,
    exit::Exit,
    failure::Failure,
    os::{
        self, Lifeline, LifelineProcess, ProcessGroup, ReceivedSignal, SignalFilter, SignalQueue,
        Terminal, WaitEvent, Waitable,
    },
};
pub(crate) use init::{InitMode, init_job, is_success, stop_rewrites};
pub(crate) use timeout::TimeoutMode;

/// What to do with signals, with CMD and with what it leaves behind.
pub(crate) struct Options<'a> {
    pub(crate) command: &'a [OsString],
    pub(crate) process_group: ProcessGroup,
    pub(crate) mode: SignalMode,
    /// The time limit, counted from CMD's start; zero is none.
    pub(crate) timeout: Option<Duration>,
    pub(crate) stop: StopArgs,
    pub(crate) leftovers: LeftoverPolicy,
    pub(crate) lifelines: Vec<Lifeline>,
}

/// What happens to signals while CMD runs, and what the time limit does.
#[derive(Debug)]
pub(crate) enum SignalMode {
    /// As env(1) or nice(1): CMD is in onejob's process group and receives the group's signals from
    /// the sender. At the time limit the whole tree is stopped.
    Transparent,
    /// As an init: every signal is forwarded to CMD, and every orphan is reaped.
    Init(InitMode),
    /// As timeout(1): terminating signals are forwarded; at the time limit, a signal is sent.
    Timeout(TimeoutMode),
}

/// What happens to the processes that CMD leaves behind. After a time limit or a lost lifeline, all of
/// them are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftoverPolicy {
    Stop,
    Wait,
    Keep,
}

/// How CMD and its tree ended.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Outcome {
    /// CMD's exit status; `None` if the tree was stopped before CMD had exited.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) timed_out: bool,
    pub(crate) lifeline_lost: bool,
    /// CMD and its tree were killed because they did not end in time.
    pub(crate) killed: bool,
    /// The tree was stopped.
    stopped: bool,
}

impl Outcome {
    /// Whether the whole tree has to end, whatever the [`LeftoverPolicy`].
    fn is_forced(&self) -> bool {
        self.timed_out || self.lifeline_lost
    }

    /// Whether a process may have been ended before it could restore the terminal's modes.
    fn has_disturbed_terminal(&self) -> bool {
        self.stopped || self.status.is_none_or(|status| status.code().is_none())
    }
}

/// Watches a process as a lifeline.
///
/// # Errors
/// If it cannot be watched, or has exited already.
pub(crate) fn watch_process(process: LifelineProcess) -> Result<Lifeline, Failure> {
    Lifeline::of_process(process).map_err(Failure::new)?.ok_or_else(lost_before_start)
}

/// The failure of a start whose lifeline is lost already.
fn lost_before_start() -> Failure {
    let message = "the other end of the lifeline is closed already, or its process has exited: nothing \
                   was started";
    Failure::new(message).with_exit(Exit::LifelineLost)
}

/// The state before the job is created.
pub(crate) struct Setup<'a> {
    options: Options<'a>,
    terminal: Option<Terminal>,
}

impl<'a> Setup<'a> {
    /// Remembers the state of the terminal and restores the default action of SIGCHLD.
    ///
    /// # Errors
    /// If a lifeline is lost already.
    pub(crate) fn new(options: Options<'a>) -> Result<Setup<'a>, Failure> {
        if options.lifelines.iter().any(Lifeline::is_lost) {
            return Err(lost_before_start());
        }
        let terminal = Terminal::in_foreground();
        os::reset_sigchld();
        Ok(Setup { options, terminal })
    }

    /// Starts CMD as a member of `job`. From here on signals no longer end this process.
    pub(crate) fn start(self, job: Job) -> Result<Supervisor, Failure> {
        let Setup { options, terminal } = self;
        let Options { command, process_group, mut mode, .. } = options;
        let signals = SignalQueue::new(mode.filter())
            .map_err(|e| Failure::os("create a queue for signals", e))?;
        if let SignalMode::Init(init) = &mut mode {
            init.before_start(process_group);
        }
        let child = os::spawn(&job, command, process_group, terminal.is_some())?;
        if let SignalMode::Init(_) = mode {
            init::after_start(command, &child);
        }
        let limit = options.timeout.filter(|limit| !limit.is_zero());
        Ok(Supervisor {
            job: Arc::new(job),
            child,
            signals,
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
            mode,
            outcome: Outcome::default(),
            stop: options.stop,
            leftovers: options.leftovers,
            lifelines: options.lifelines,
            terminal,
        })
    }
}

/// Whether the processes that have left CMD's process group cannot be found.
fn reaches_group_only(job: &Job) -> bool {
    job.guarantees().containment == Containment::Grouped
}

impl SignalMode {
    fn filter(&self) -> SignalFilter {
        match self {
            SignalMode::Transparent => SignalFilter::AllButJobControl,
            SignalMode::Init(_) => SignalFilter::All,
            SignalMode::Timeout(mode) => SignalFilter::Terminating(mode.signal),
        }
    }
}

/// CMD, its job, and the state of the supervision.
pub(crate) struct Supervisor {
    job: Arc<Job>,
    child: Child,
    signals: SignalQueue,
    /// When [`Supervisor::handle_deadline`] is due.
    deadline: Option<Instant>,
    mode: SignalMode,
    outcome: Outcome,
    stop: StopArgs,
    leftovers: LeftoverPolicy,
    lifelines: Vec<Lifeline>,
    terminal: Option<Terminal>,
}

impl Supervisor {
    pub(crate) fn job(&self) -> &Job {
        &self.job
    }

    pub(crate) fn child(&self) -> &Child {
        &self.child
    }

    /// Supervises CMD until the job can be closed, and closes it.
    pub(crate) fn run(mut self) -> Result<Outcome, Failure> {
        let outcome = self.supervise()?;
        self.close()?;
        Ok(outcome)
    }

    /// Waits until CMD has exited or has to end, then ends what it left behind, and restores the
    /// terminal.
    pub(crate) fn supervise(&mut self) -> Result<Outcome, Failure> {
        let done = self.wait_for_command().and_then(|()| self.clean_up());
        if let Some(terminal) = &self.terminal {
            let with_modes = done.is_err() || self.outcome.has_disturbed_terminal();
            terminal.restore(&self.job, with_modes);
        }
        done.map(|()| self.outcome)
    }

    /// Releases the job if its remaining members are to live on; otherwise dropping it kills them.
    pub(crate) fn close(self) -> Result<(), Failure> {
        if self.leftovers == LeftoverPolicy::Keep && !self.outcome.is_forced() {
            // No other thread was started, so this is the only reference.
            Arc::into_inner(self.job).map_or(Ok(()), Job::release)?;
        }
        Ok(())
    }

    fn clean_up(&mut self) -> Result<(), Failure> {
        let is_forced = self.outcome.is_forced();
        self.outcome.stopped |= is_forced;
        if (self.leftovers == LeftoverPolicy::Keep && !is_forced) || self.job.is_empty()? {
            return Ok(());
        }
        if reaches_group_only(&self.job) {
            let _ = os::signal_group(&self.child, self.stop.signal);
            return Ok(());
        }
        cleanup::clean_up(self, self.leftovers == LeftoverPolicy::Wait && !is_forced)
    }

    /// Waits until CMD has exited, or until the whole tree has to end. Handles signals meanwhile.
    fn wait_for_command(&mut self) -> Result<(), Failure> {
        loop {
            match self.wait(&self.child, self.deadline)? {
                WaitEvent::First => {
                    let status = self.child.wait()?;
                    self.outcome.status = Some(status);
                    // Signals that came before CMD's exit were meant for CMD. A Ctrl-C that ended
                    // CMD is in the queue by now, and must not count against its leftovers.
                    self.signals.discard();
                    if let SignalMode::Init(mode) = &self.mode {
                        mode.after_exit(status, &self.child);
                    }
                    return Ok(());
                }
                WaitEvent::Second => {
                    while let Some(received) = self.signals.next() {
                        self.handle_signal(received)?;
                    }
                }
                WaitEvent::LifelineLost => {
                    self.outcome.lifeline_lost = true;
                    return Ok(());
                }
                WaitEvent::Deadline => {
                    self.deadline = None;
                    if self.handle_deadline()? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn handle_signal(&mut self, received: ReceivedSignal) -> Result<(), Failure> {
        let kill_after = match &mut self.mode {
            SignalMode::Transparent => {
                transparent::handle_signal(received, &self.job, &self.child);
                None
            }
            SignalMode::Init(mode) => {
                let kill_after = mode.handle_signal(received, &self.child);
                // The first terminating signal sets the deadline.
                kill_after.filter(|_| self.deadline.is_none())
            }
            SignalMode::Timeout(mode) => {
                mode.handle_signal(received, &self.job, &self.child, &mut self.outcome)?
            }
        };
        self.set_deadline(kill_after);
        Ok(())
    }

    /// Handles an expired deadline. Returns whether the whole tree is to be stopped now.
    fn handle_deadline(&mut self) -> Result<bool, Failure> {
        match &mut self.mode {
            SignalMode::Transparent => {
                self.outcome.timed_out = true;
                return Ok(true);
            }
            SignalMode::Init(_) => {
                self.outcome.killed = true;
                self.job.kill()?;
            }
            SignalMode::Timeout(mode) => {
                let kill_after = mode.handle_timeout(&self.job, &self.child, &mut self.outcome)?;
                self.set_deadline(kill_after);
            }
        }
        Ok(false)
    }

    fn set_deadline(&mut self, after: Option<Duration>) {
        if let Some(after) = after {
            self.deadline = Instant::now().checked_add(after);
        }
    }

    /// Sleeps until `event` is ready, a signal arrives, a lifeline is lost or the deadline expires.
    fn wait(&self, event: &impl Waitable, deadline: Option<Instant>) -> Result<WaitEvent, Failure> {
        // A lost lifeline stays ready: while the tree is being stopped it would end every wait.
        let lifelines = if self.outcome.stopped { &[][..] } else { &self.lifelines };
        os::wait_for(event, &self.signals, lifelines, deadline)
            .map_err(|e| Failure::os("wait for the command", e))
    }
}
