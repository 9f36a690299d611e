//! `onejob kill`: stops jobs, or the process trees below pids.

use std::{thread, time::Duration};

use onejob::{Job, ProcessId, Result, Signal, stop_tree};

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
    // now.
    let mut found: Vec<_> =
        args.targets.iter().map(|target| (target, Found::new(target))).collect();
    // A missing job is an error of the caller; a process may just have exited.
    let missing_job =
        found.iter().position(|(target, found)| matches!(target, Target::Job(_)) && found.is_err());
    if let Some((_, Err(error))) = missing_job.map(|at| found.swap_remove(at)) {
        return Err(error.into());
    }
    let all_ended = match &found[..] {
        [(target, found)] => has_ended(target, found, stop),
        // In parallel: the grace periods do not add up.
        several => thread::scope(|scope| {
            let start = |(target, found)| scope.spawn(move || has_ended(target, found, stop));
            let threads: Vec<_> =
                several.iter().map(|(target, found)| start((*target, found))).collect();
            let all = threads.into_iter().map(|thread| thread.join().unwrap_or(false));
            all.collect::<Vec<_>>().into_iter().all(|ended| ended)
        }),
    };
    Ok(if all_ended { Exit::Success } else { Exit::PartialFailure })
}

/// Stops a target. Prints why it could not be stopped.
fn has_ended(target: &Target, found: &Result<Found>, stop: StopArgs) -> bool {
    let failure = match found {
        Ok(found) => match found.stop(stop.signal, stop.grace) {
            Ok(()) => return true,
            // It has exited, or ended with the tree of another target.
            Err(error) if error.is_stale() => return true,
            Err(error) => Failure::from(error),
        },
        Err(error) => Failure::from(error),
    };
    failure.about(target).report();
    false
}

/// A resolved target.
enum Found {
    Job(Box<Job>),
    Tree(ProcessId),
}

impl Found {
    fn new(target: &Target) -> Result<Found> {
        match target {
            Target::Job(name) => Job::open(name).map(Box::new).map(Found::Job),
            Target::Pid(pid) => ProcessId::of(*pid).map(Found::Tree),
        }
    }

    fn stop(&self, signal: Signal, grace: Duration) -> Result<()> {
        match self {
            Found::Job(job) => stop_job(job, signal, grace),
            Found::Tree(root) => stop_tree(root, signal, grace).map(drop),
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
