//! Taking down, or waiting for, what CMD left behind.

use std::{io, sync::Arc, thread::JoinHandle, time::Duration};

use onejob::{Job, Signal};

use super::{Session, manner};
use crate::{
    exit::Failure,
    os::{self, Event, Received},
};

/// Until the job is empty: waits for that, or has it stopped.
pub(super) fn clear(session: &mut Session, wait: bool) -> Result<(), Failure> {
    let first = if wait { Step::Wait } else { Step::stop(session) };
    Clearing { session, threads: Vec::new() }.clear(first)
}

struct Clearing<'a> {
    session: &'a mut Session,
    threads: Vec<Background>,
}

/// Something that blocks until the job is empty.
#[derive(Clone, Copy)]
enum Step {
    Wait,
    Stop(Signal, Duration),
}

impl Step {
    fn stop(session: &Session) -> Step {
        Step::Stop(session.signal, session.grace)
    }

    fn carry_out(self, job: &Job) -> onejob::Result<()> {
        match self {
            Step::Wait => job.wait(),
            Step::Stop(signal, grace) => job.stop_with(signal, grace).map(drop),
        }
    }
}

impl Clearing<'_> {
    /// Carries out `step`, in a thread so that signals are heard meanwhile: while we wait, the
    /// first one that means an end starts the stop; while we stop, it is the last rung at once.
    fn clear(&mut self, step: Step) -> Result<(), Failure> {
        let mut ended = self.begin(step)?;
        loop {
            let deadline = self.session.deadline.filter(|_| !self.session.end.stopped);
            let event = match &ended {
                Some(ended) => self.session.wait(ended, deadline)?,
                None => Event::First,
            };
            match event {
                Event::First => return self.finish(),
                Event::Second if !self.wants_end() => {}
                Event::Second if self.session.end.stopped => {
                    self.session.job.kill()?;
                    return self.finish();
                }
                event => {
                    self.session.end.timed_out |= matches!(event, Event::Deadline);
                    self.session.end.cut |= matches!(event, Event::Cut);
                    ended = self.begin(Step::stop(self.session))?;
                }
            }
        }
    }

    /// Starts a step; what tells of its end, if it is not done yet.
    fn begin(&mut self, step: Step) -> Result<Option<os::Ended>, Failure> {
        self.session.end.stopped |= matches!(step, Step::Stop(..));
        match Background::start(&self.session.job, step) {
            Ok((thread, ended)) => {
                self.threads.push(thread);
                Ok(Some(ended))
            }
            // Without another thread nobody hears a signal; the tree comes first.
            Err(_) => Ok(step.carry_out(&self.session.job).map(|()| None)?),
        }
    }

    /// Whether a signal has come that ends a program, and that our starter did not switch off.
    fn wants_end(&self) -> bool {
        const ENDS: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
        let mut wanted = false;
        while let Some(Received { signal, .. }) = self.session.signals.next() {
            wanted |= ENDS.contains(&signal) && !os::is_deaf_to(signal);
        }
        manner::reap(&self.session.manner, &self.session.child);
        wanted
    }

    /// The last step's result. An earlier one ends with it: it waits for the same emptiness.
    fn finish(&mut self) -> Result<(), Failure> {
        let Some(last) = self.threads.pop() else { return Ok(()) };
        // A survivor keeps the earlier ones waiting, for ever perhaps.
        last.result()?;
        self.threads.drain(..).try_for_each(Background::result)
    }
}

/// A step that is carried out in a thread of its own.
struct Background(JoinHandle<onejob::Result<()>>);

impl Background {
    /// Starts it.
    fn start(job: &Arc<Job>, step: Step) -> io::Result<(Background, os::Ended)> {
        let job = Arc::clone(job);
        let carry_out = move || step.carry_out(&job);
        os::in_background(carry_out).map(|(thread, ended)| (Background(thread), ended))
    }

    fn result(self) -> Result<(), Failure> {
        match self.0.join() {
            Ok(result) => Ok(result?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
