//! `onejob kill`: the ladder on a job, or on the tree below any process.

use std::{thread, time::Duration};

use onejob::{Job, ProcessId, Result, Signal, stop_tree};

use crate::{
    args::{self, Target},
    exit::{Exit, Failure},
    note::Note,
    output::talk,
};

pub(crate) fn kill(args: &args::Kill) -> Exit {
    let grace = if args.now { Duration::ZERO } else { args.ladder.grace };
    // All are identified before the first is signalled: the numbers mean who has them now.
    let mut found: Vec<_> = args.targets.iter().map(|target| (target, Found::of(target))).collect();
    // A job that is not there is a mistake of whoever asks; a process may just have ended.
    let mistaken =
        found.iter().position(|(target, found)| matches!(target, Target::Job(_)) && found.is_err());
    if let Some((_, Err(error))) = mistaken.map(|at| found.swap_remove(at)) {
        return Failure::from(error).report();
    }
    let ended = |(target, found): &(&Target, Result<Found>)| match found {
        Ok(found) => match found.stop(args.ladder.signal, grace) {
            // It ended by itself, or with another tree that was named.
            Err(error) if error.is_stale() => true,
            result => report(target, result),
        },
        Err(error) => {
            talk(format_args!("{target}: {error}"));
            false
        }
    };
    let all_ended = match &found[..] {
        [one] => ended(one),
        // Side by side, or each would wait for the grace period of those before it.
        several => thread::scope(|scope| {
            let threads: Vec<_> =
                several.iter().map(|one| scope.spawn(move || ended(one))).collect();
            threads.into_iter().all(|thread| thread.join().unwrap_or(false))
        }),
    };
    if all_ended { Exit::Success } else { Exit::Failed }
}

/// What a target means now.
enum Found {
    Job(Box<Job>),
    Tree(ProcessId),
}

impl Found {
    fn of(target: &Target) -> Result<Found> {
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

/// An `onejob run` can be found a moment before its command runs: that is not to escape.
fn stop_job(job: &Job, signal: Signal, grace: Duration) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(10);
    const PAUSES: usize = 500;
    for _ in 0..PAUSES {
        let had_started = Note::on(job).is_none_or(|note| note.pid.is_some());
        job.stop_with(signal, grace)?;
        if had_started || job.wait_over(Some(PAUSE))? {
            break;
        }
    }
    Ok(())
}

fn report(target: &Target, result: Result<()>) -> bool {
    if let Err(error) = &result {
        talk(format_args!("{target}: {error}"));
    }
    result.is_ok()
}
