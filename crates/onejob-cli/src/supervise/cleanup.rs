//! Ends the processes that CMD left behind, or waits for them.

use std::{io, sync::Arc, thread::JoinHandle, time::Duration};

use onejob::{Job, Signal};

use super::{SignalMode, Supervisor};
use crate::{
    failure::Failure,
    os::{self, ReceivedSignal, WaitEvent},
};

/// Returns when the job is empty: waits for that, or stops the job.
pub(super) fn clean_up(supervisor: &mut Supervisor, wait: bool) -> Result<(), Failure> {
    let first = if wait { Step::Wait } else { Step::stop(supervisor) };
    Cleanup { supervisor, threads: Vec::new() }.run(first)
}

struct Cleanup<'a> {
    supervisor: &'a mut Supervisor,
    threads: Vec<StepThread>,
}

/// A call that blocks until the job is empty.
#[derive(Clone, Copy)]
enum Step {
    Wait,
    Stop(Signal, Duration),
}

impl Step {
    fn stop(supervisor: &Supervisor) -> Step {
        Step::Stop(supervisor.stop.signal, supervisor.stop.grace)
    }

    fn execute(self, job: &Job) -> onejob::Result<()> {
        match self {
            Step::Wait => job.wait(),
            Step::Stop(signal, grace) => job.stop_with(signal, grace).map(drop),
        }
    }
}

impl Cleanup<'_> {
    /// Executes `step` in a thread, so that this thread can handle signals. While the step waits, a
    /// terminating signal, the time limit or a lost lifeline starts the stop; while the job is being
    /// stopped, a terminating signal kills it at once.
    fn run(&mut self, step: Step) -> Result<(), Failure> {
        let mut completion = self.start(step)?;
        loop {
            let deadline = self.supervisor.deadline.filter(|_| !self.supervisor.outcome.stopped);
            let event = match &completion {
                Some(completion) => self.supervisor.wait(completion, deadline)?,
                None => WaitEvent::First,
            };
            match event {
                WaitEvent::First => return self.finish(),
                WaitEvent::Second if !self.has_terminating_signal() => {}
                WaitEvent::Second if self.supervisor.outcome.stopped => {
                    self.supervisor.job.kill()?;
                    return self.finish();
                }
                event => {
                    let outcome = &mut self.supervisor.outcome;
                    outcome.timed_out |= matches!(event, WaitEvent::Deadline);
                    outcome.lifeline_lost |= matches!(event, WaitEvent::LifelineLost);
                    completion = self.start(Step::stop(self.supervisor))?;
                }
            }
        }
    }

    /// Starts a step. Returns what becomes ready at its end, or `None` if it is done already.
    fn start(&mut self, step: Step) -> Result<Option<os::Completion>, Failure> {
        self.supervisor.outcome.stopped |= matches!(step, Step::Stop(..));
        match StepThread::spawn(&self.supervisor.job, step) {
            Ok((thread, completion)) => {
                self.threads.push(thread);
                Ok(Some(completion))
            }
            // Without another thread signals have to wait until the step is done.
            Err(_) => Ok(step.execute(&self.supervisor.job).map(|()| None)?),
        }
    }

    /// Whether a terminating signal has arrived that was not ignored or blocked when onejob started.
    fn has_terminating_signal(&self) -> bool {
        const TERMINATING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
        let mut found = false;
        while let Some(ReceivedSignal { signal, .. }) = self.supervisor.signals.next() {
            found |= TERMINATING.contains(&signal) && !os::was_ignored_or_blocked(signal);
        }
        if let SignalMode::Init(mode) = &self.supervisor.mode {
            mode.reap(&self.supervisor.child);
        }
        found
    }

    /// Joins the threads. The last step's result counts first: after a failed stop, an earlier wait
    /// may never return.
    fn finish(&mut self) -> Result<(), Failure> {
        let Some(last) = self.threads.pop() else { return Ok(()) };
        last.join()?;
        self.threads.drain(..).try_for_each(StepThread::join)
    }
}

/// A step that runs in a thread of its own.
struct StepThread(JoinHandle<onejob::Result<()>>);

impl StepThread {
    fn spawn(job: &Arc<Job>, step: Step) -> io::Result<(StepThread, os::Completion)> {
        let job = Arc::clone(job);
        let execute = move || step.execute(&job);
        os::spawn_thread(execute).map(|(thread, completion)| (StepThread(thread), completion))
    }

    fn join(self) -> Result<(), Failure> {
        match self.0.join() {
            Ok(result) => Ok(result?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
