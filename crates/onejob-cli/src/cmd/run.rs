//! `onejob run`: CMD in the foreground, and nothing of it left behind.

use std::{path::PathBuf, time::Instant};

use onejob::{Child, Job, StopReason};

use crate::{
    args,
    exit::{Exit, Failure},
    note::Note,
    os::{Lifeline, Place},
    supervise::{Attendant, End, Manner, Plan, Rest, supervise},
};

use super::{
    detach::{Watcher, detach},
    stats,
};

pub(crate) fn run(args: &args::Run) -> Exit {
    if args.detach { detach(args) } else { attend(args, Watcher::Nobody) }
}

/// Attends to CMD until nothing of it is left.
pub(crate) fn attend(args: &args::Run, watcher: Watcher) -> Exit {
    let note = Note::of(&args.command);
    let mut run = Run { args, started: Instant::now(), watcher, note, log: None };
    run.attend().unwrap_or_else(|failure| {
        if run.watcher.has_failed(&failure) { failure.exit() } else { failure.report() }
    })
}

struct Run<'a> {
    args: &'a args::Run,
    started: Instant,
    watcher: Watcher,
    note: Note,
    log: Option<PathBuf>,
}

impl Run<'_> {
    fn attend(&mut self) -> Result<Exit, Failure> {
        let args = self.args;
        let plan = Plan {
            command: &args.command,
            place: Place::Beside,
            manner: Manner::Transparent,
            timeout: args.timeout,
            signal: args.ladder.signal,
            grace: args.ladder.grace,
            rest: match (args.keep, args.wait_all) {
                (true, _) => Rest::Leave,
                (_, true) => Rest::Wait,
                _ => Rest::Stop,
            },
            // Before anything of ours is opened: the number is to be the caller's.
            lifeline: args.lifeline.map(Lifeline::hold).transpose().map_err(Failure::new)?,
        };
        supervise(plan, self).map(|end| exit(&end))
    }

    fn build(&self) -> Result<Job, Failure> {
        let args = self.args;
        let mut builder = Job::builder().listed().note(self.note.text());
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
}

impl Attendant for Run<'_> {
    fn make_job(&mut self) -> Result<Job, Failure> {
        let job = self.build()?;
        self.log = self.watcher.job_is_made(&job)?;
        Ok(job)
    }

    fn has_started(&mut self, job: &Job, child: &Child) {
        self.note.pid = Some(child.pid());
        self.note.log = self.log.as_ref().map(|log| log.display().to_string());
        self.note.put_on(job);
        self.watcher.cmd_has_started(job, self.log.as_ref());
    }

    fn has_ended(&mut self, job: &Job, end: Option<&mut End>) {
        let mut reason = job.reason();
        stats::tell_reason(reason);
        if let Some(end) = end {
            if end.timed_out && matches!(reason, StopReason::Asked | StopReason::Processes) {
                reason = StopReason::Timeout;
            }
            end.timed_out |= reason == StopReason::CpuTime;
            self.note.status = Some(exit(end).code());
        }
        self.note.put_on(job);
        if let Some(form) = self.args.stats {
            stats::tell(job, form, self.started, reason);
        }
    }
}

fn exit(end: &End) -> Exit {
    match end.status {
        _ if end.timed_out => Exit::TimedOut,
        _ if end.cut => Exit::Cut,
        Some(status) => Exit::Like(status),
        None => Exit::Ours,
    }
}
