//! CMD in the foreground, watched until nothing of it is left: what `run`, `init` and the drop-ins
//! have in common.

mod cleanup;
mod manner;

use std::{
    ffi::OsString,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use onejob::{Child, Job, Signal};

use crate::{
    exit::Failure,
    os::{self, Event, Lifeline, Place, Signals, Terminal, Waitable},
    output::talk,
};
pub(crate) use manner::{Forwarding, Limited, Manner};

/// What to do with CMD and what it leaves behind.
pub(crate) struct Plan<'a> {
    pub(crate) command: &'a [OsString],
    /// How CMD stands to our process group.
    pub(crate) place: Place,
    pub(crate) manner: Manner,
    /// When the manner is told that the time is over, counted from CMD's start; zero is never.
    pub(crate) timeout: Option<Duration>,
    /// How what has to go is asked to, and how long it may take.
    pub(crate) signal: Signal,
    pub(crate) grace: Duration,
    pub(crate) rest: Rest,
    pub(crate) lifeline: Option<Lifeline>,
}

/// What becomes of what CMD leaves behind, unless the time is over or the lifeline cut: then all of
/// it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    Stop,
    Wait,
    Leave,
}

/// How a session ended.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// How CMD ended, if we waited for that.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) timed_out: bool,
    /// Whether the lifeline was cut.
    pub(crate) cut: bool,
    /// Whether CMD and its tree were killed because they took too long to end.
    pub(crate) killed: bool,
    /// Whether anything was stopped.
    stopped: bool,
}

impl End {
    /// Whether all of it has to go, whatever was planned for the rest.
    fn is_forced(&self) -> bool {
        self.timed_out || self.cut
    }

    /// Whether somebody may have been kept from tidying up the terminal.
    fn has_disturbed(&self) -> bool {
        self.stopped || self.status.is_none_or(|status| status.code().is_none())
    }
}

/// Whose session it is, told how it comes along.
pub(crate) trait Attendant {
    fn make_job(&mut self) -> Result<Job, Failure>;
    fn has_started(&mut self, _: &Job, _: &Child) {}
    /// Everything is done, or has failed.
    fn has_ended(&mut self, _: &Job, _: Option<&mut End>) {}
}

/// Who only makes the job.
impl<F: FnMut() -> Result<Job, Failure>> Attendant for F {
    fn make_job(&mut self) -> Result<Job, Failure> {
        self()
    }
}

/// Starts CMD into a job, and returns when everything is done.
pub(crate) fn supervise(plan: Plan<'_>, attendant: &mut impl Attendant) -> Result<End, Failure> {
    if plan.lifeline.as_ref().is_some_and(Lifeline::is_cut) {
        talk("the other end of the lifeline is closed already, so nothing is started");
        return Ok(End { cut: true, ..End::default() });
    }
    let terminal = Terminal::held();
    os::keep_statuses();
    let job = attendant.make_job()?;
    // Not before the job is made: until CMD is there to get them, signals may end us as usual.
    let signals =
        Signals::listen(plan.manner.hearing()).map_err(|e| Failure::os("hear signals", e))?;
    let manner = plan.manner;
    let swallowed = manner.make_way(plan.place);
    let child = os::start(&job, plan.command, plan.place, terminal.is_some())?;
    manner.after_start(plan.command, &child);
    attendant.has_started(&job, &child);
    let limit = plan.timeout.filter(|limit| !limit.is_zero());
    let mut session = Session {
        job: Arc::new(job),
        child,
        signals,
        deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
        manner,
        swallowed,
        end: End::default(),
        signal: plan.signal,
        grace: plan.grace,
        lifeline: plan.lifeline,
    };
    let done = session.until_the_end(plan.rest);
    if let Some(terminal) = &terminal {
        terminal.give_back(&session.job, done.is_err() || session.end.has_disturbed());
    }
    let end = if done.is_ok() { Some(&mut session.end) } else { None };
    attendant.has_ended(&session.job, end);
    if plan.rest == Rest::Leave && done.is_ok() && !session.end.is_forced() {
        // No thread was started, so the job is ours alone.
        Arc::into_inner(session.job).map_or(Ok(()), Job::release)?;
    }
    done.map(|()| session.end)
}

/// CMD, its job and who watches over them.
struct Session {
    job: Arc<Job>,
    child: Child,
    signals: Signals,
    /// When the manner is to be told next that something takes too long.
    deadline: Option<Instant>,
    manner: Manner,
    /// Signals that come once because of what we did ourselves.
    swallowed: Vec<Signal>,
    end: End,
    signal: Signal,
    grace: Duration,
    lifeline: Option<Lifeline>,
}

impl Session {
    fn until_the_end(&mut self, rest: Rest) -> Result<(), Failure> {
        self.watch()?;
        let is_forced = self.end.is_forced();
        self.end.stopped |= is_forced;
        if (rest == Rest::Leave && !is_forced) || self.job.is_empty()? {
            return Ok(());
        }
        cleanup::clear(self, rest == Rest::Wait && !is_forced)
    }

    /// Waits until CMD has ended, or has to, and does meanwhile what our manner is.
    fn watch(&mut self) -> Result<(), Failure> {
        loop {
            match self.wait(&self.child, self.deadline)? {
                Event::First => {
                    self.end.status = Some(self.child.wait()?);
                    self.manner.ended(self.end.status);
                    // What came before CMD's end was for CMD. A Ctrl-C that ended it has reached us
                    // too by now, and must not count as one against what is left.
                    self.signals.discard();
                    manner::reap(&self.manner, &self.child);
                    return Ok(());
                }
                Event::Second => {
                    while let Some(received) = self.signals.next() {
                        self.hear(received)?;
                    }
                }
                Event::Cut => {
                    self.end.cut = true;
                    return Ok(());
                }
                Event::Deadline => {
                    self.deadline = None;
                    if self.is_over()? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sleeps until one of the things happens that we care about.
    fn wait(&self, first: &impl Waitable, deadline: Option<Instant>) -> Result<Event, Failure> {
        // It stays cut.
        let lifeline = self.lifeline.as_ref().filter(|_| !self.end.stopped);
        os::wait_for(first, &self.signals, lifeline, deadline)
            .map_err(|e| Failure::os("wait for the command", e))
    }
}
