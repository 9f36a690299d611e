//! `onejob run`: CMD in the foreground, and nothing of it left behind.

use std::{
    io,
    process::ExitStatus,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use onejob::{Child, Job, Signal, StopReason};

use crate::{
    args,
    detach::{Watcher, detach},
    exit::{Exit, Failure},
    note::Note,
    os::{self, Event, Received, Signals, Terminal, Waitable},
    output::talk,
    stats,
};

pub(crate) fn run(args: &args::Run) -> Exit {
    if args.detach { detach(args) } else { attend(args, Watcher::Nobody) }
}

/// Attends to CMD until nothing of it is left.
pub(crate) fn attend(args: &args::Run, mut watcher: Watcher) -> Exit {
    let started = Instant::now();
    supervise(args, started, &mut watcher).unwrap_or_else(|failure| {
        if watcher.has_failed(&failure) { failure.exit() } else { failure.report() }
    })
}

fn supervise(args: &args::Run, started: Instant, watcher: &mut Watcher) -> Result<Exit, Failure> {
    let terminal = Terminal::held();
    os::keep_statuses();
    let mut note = Note::of(&args.command);
    let job = build(args, &note)?;
    let log = watcher.job_is_made(&job)?;
    // Not before the job is made: until CMD is there to get them, signals may end us as usual.
    let signals = Signals::listen().map_err(|e| Failure::os("hear signals", e))?;
    let child = os::start(&job, &args.command)?;
    note.pid = Some(child.pid());
    note.log = log.as_ref().map(|log| log.display().to_string());
    note.put_on(&job);
    watcher.cmd_has_started(&job, log.as_ref());
    let limit = args.timeout.filter(|limit| !limit.is_zero());
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut session = Session { job: Arc::new(job), child, signals, deadline, args };

    let mut end = session.until_the_end();
    let disturbed = end.as_ref().map_or(true, End::has_disturbed);
    if let Some(terminal) = &terminal {
        terminal.give_back(&session.job, disturbed);
    }
    let mut reason = session.job.reason();
    stats::tell_reason(reason);
    if let Ok(end) = &mut end {
        if end.timed_out && matches!(reason, StopReason::Asked | StopReason::Processes) {
            reason = StopReason::Timeout;
        }
        end.timed_out |= reason == StopReason::CpuTime;
    }
    note.status = end.as_ref().ok().map(|end| end.exit().code());
    note.put_on(&session.job);
    if let Some(form) = args.stats {
        stats::tell(&session.job, form, started, reason);
    }
    if args.keep && matches!(end, Ok(End { timed_out: false, .. })) {
        // No thread was started, so the job is ours alone.
        Arc::into_inner(session.job).map_or(Ok(()), Job::release)?;
    }
    end.map(|end| end.exit())
}

fn build(args: &args::Run, note: &Note) -> Result<Job, Failure> {
    let mut builder = Job::builder().listed().note(note.text());
    if let Some(name) = &args.name {
        builder = builder.name(name);
    }
    if let Some(mechanism) = args.mechanism {
        builder = builder.mechanism(mechanism);
    }
    for requirement in &args.require {
        builder = builder.require(*requirement);
    }
    if args.stats.is_some() {
        builder = builder.account();
    }
    Ok(builder.limits(args.limits.limits()).build()?)
}

/// CMD, its job and who watches over them.
struct Session<'a> {
    job: Arc<Job>,
    child: Child,
    signals: Signals,
    deadline: Option<Instant>,
    args: &'a args::Run,
}

/// How the session ended.
struct End {
    /// How CMD ended, if that was before the time limit.
    status: Option<ExitStatus>,
    timed_out: bool,
    /// Whether anything was stopped.
    stopped: bool,
}

impl End {
    fn exit(&self) -> Exit {
        match self.status {
            Some(status) if !self.timed_out => Exit::Like(status),
            _ => Exit::TimedOut,
        }
    }

    /// Whether somebody may have been kept from tidying up the terminal.
    fn has_disturbed(&self) -> bool {
        self.stopped || self.status.is_none_or(|status| status.code().is_none())
    }
}

impl Session<'_> {
    fn until_the_end(&mut self) -> Result<End, Failure> {
        let status = self.watch()?;
        let timed_out = status.is_none();
        let mut end = End { status, timed_out, stopped: timed_out };
        if (self.args.keep && !timed_out) || self.job.is_empty()? {
            return Ok(end);
        }
        let first = if self.args.wait_all && !timed_out { Step::Wait } else { self.stop() };
        let mut rest = Rest { session: self, threads: Vec::new(), end: &mut end };
        rest.clear(first)?;
        Ok(end)
    }

    fn stop(&self) -> Step {
        Step::Stop(self.args.ladder.signal, self.args.ladder.grace)
    }

    /// Waits for CMD and passes signals on; its status, or nothing if the time is over first.
    fn watch(&mut self) -> Result<Option<ExitStatus>, Failure> {
        loop {
            match wait(&self.child, &self.signals, self.deadline)? {
                Event::First => {
                    let status = self.child.wait()?;
                    // What came before CMD's end was for CMD. A Ctrl-C that ended it has reached us
                    // too by now, and must not count as one against what is left.
                    self.signals.discard();
                    return Ok(Some(status));
                }
                Event::Second => {
                    while let Some(received) = self.signals.next() {
                        self.forward(received);
                    }
                }
                Event::Deadline => return Ok(None),
            }
        }
    }

    fn forward(&self, received: Received) {
        if received.is_for_cmd(&self.job, &self.child)
            && let Err(error) = self.child.signal(received.signal)
        {
            talk(format_args!("{} is not passed on: {error}", received.signal));
        }
    }
}

/// Taking down, or waiting for, what CMD left behind.
struct Rest<'a, 'b> {
    session: &'a Session<'b>,
    threads: Vec<Background>,
    end: &'a mut End,
}

/// Something that blocks until the job is empty.
#[derive(Clone, Copy)]
enum Step {
    Wait,
    Stop(Signal, Duration),
}

impl Step {
    fn carry_out(self, job: &Job) -> onejob::Result<()> {
        match self {
            Step::Wait => job.wait(),
            Step::Stop(signal, grace) => job.stop_with(signal, grace).map(drop),
        }
    }
}

impl Rest<'_, '_> {
    /// Carries out `step`, in a thread so that signals are heard meanwhile: while we wait, the
    /// first one that means an end starts the stop; while we stop, it is the last rung at once.
    fn clear(&mut self, step: Step) -> Result<(), Failure> {
        let mut ended = self.begin(step)?;
        loop {
            let deadline = self.session.deadline.filter(|_| !self.end.stopped);
            let event = match &ended {
                Some(ended) => wait(ended, &self.session.signals, deadline)?,
                None => Event::First,
            };
            match event {
                Event::First => return self.finish(),
                Event::Second if !self.wants_end() => {}
                Event::Second if self.end.stopped => {
                    self.session.job.kill()?;
                    return self.finish();
                }
                event => {
                    self.end.timed_out |= matches!(event, Event::Deadline);
                    ended = self.begin(self.session.stop())?;
                }
            }
        }
    }

    /// Starts a step; what tells of its end, if it is not done yet.
    fn begin(&mut self, step: Step) -> Result<Option<os::Ended>, Failure> {
        self.end.stopped |= matches!(step, Step::Stop(..));
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

fn wait(
    first: &impl Waitable,
    second: &impl Waitable,
    deadline: Option<Instant>,
) -> Result<Event, Failure> {
    os::wait_for(first, second, deadline).map_err(|e| Failure::os("wait for the command", e))
}
