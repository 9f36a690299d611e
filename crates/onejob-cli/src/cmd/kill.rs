//! `onejob kill`: stops jobs, or the process trees below pids.

use std::{thread, time::Duration};

use onejob::{Job, ProcessId, Result, Signal, stop_tree};

use super::find::{self, Found};
use crate::{
    args::{KillArgs, StopArgs, Target},
    exit::Exit,
    failure::Failure,
    note::Note,
};

pub(super) fn kill(args: &KillArgs) -> std::result::Result<Exit, Failure> {
    let grace = if args.now { Duration::ZERO } else { args.stop.grace };
    let stop = StopArgs { grace, ..args.stop };
    // Every target is resolved before the first one is signalled: a pid means the process that has it
    // now. A missing job is an error of the caller; a process may just have exited.
    let found = args.targets.iter().map(|target| Ok((target, Object::new(target)?)));
    let found = found.collect::<std::result::Result<Vec<_>, Failure>>()?;
    let all_ended = match &found[..] {
        [(target, object)] => has_ended(target, object, stop),
        // In parallel: the grace periods do not add up.
        several => thread::scope(|scope| {
            let start = |(target, object)| scope.spawn(move || has_ended(target, object, stop));
            let threads: Vec<_> =
                several.iter().map(|(target, object)| start((*target, object))).collect();
            let all = threads.into_iter().map(|thread| thread.join().unwrap_or(false));
            all.collect::<Vec<_>>().into_iter().all(|ended| ended)
        }),
    };
    Ok(if all_ended { Exit::Success } else { Exit::PartialFailure })
}

/// Stops a target. Prints why it could not be stopped.
fn has_ended(target: &Target, object: &Object, stop: StopArgs) -> bool {
    let failure = match object.stop(stop.signal, stop.grace) {
        Ok(()) => return true,
        Err(failure) => failure,
    };
    failure.about(target).report();
    false
}

/// A resolved target.
enum Object {
    Job(Box<Job>),
    /// The process with this pid, or why it was not found.
    Tree(Result<ProcessId>),
}

impl Object {
    fn new(target: &Target) -> std::result::Result<Object, Failure> {
        Ok(match find::job_or_process(target)? {
            Found::Job(job) => Object::Job(job),
            Found::Process(pid) => Object::Tree(ProcessId::of(pid)),
        })
    }

    fn stop(&self, signal: Signal, grace: Duration) -> std::result::Result<(), Failure> {
        let stopped = match self {
            Object::Job(job) => stop_job(job, signal, grace),
            Object::Tree(Ok(root)) => stop_tree(root, signal, grace).map(drop),
            Object::Tree(Err(error)) => return Err(error.into()),
        };
        match stopped {
            // It has exited, or ended with the tree of another target.
            Err(error) if error.is_stale() => Ok(()),
            stopped => stopped.map_err(Failure::from),
        }
    }
}

/// Stops a job. The job of an `onejob run` is listed shortly before CMD is started: it is stopped again
/// until its owner has ended, so that CMD cannot escape.
fn stop_job(job: &Job, signal: Signal, grace: Duration) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(10);
    const MAX_PAUSES: usize = 500;
    for _ in 0..MAX_PAUSES {
        let was_started = Note::read(job).is_none_or(|note| note.pid.is_some());
        job.stop_with(signal, grace)?;
        if was_started || job.wait_closed(Some(PAUSE))? {
            break;
        }
    }
    Ok(())
}
