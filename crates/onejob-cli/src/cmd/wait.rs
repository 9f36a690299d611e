//! `onejob wait`: until jobs have ended, and how.

use onejob::Job;

use crate::{
    args,
    exit::{Exit, Failure},
    note::Note,
    output::talk,
};

pub(crate) fn wait(args: &args::Wait) -> Exit {
    // All are opened before the first wait: one that ends meanwhile is still known.
    let jobs: Result<Vec<Job>, _> = args.jobs.iter().map(|job| Job::open(job)).collect();
    let ends = jobs.map_err(Failure::from).and_then(|jobs| {
        args.jobs.iter().zip(&jobs).map(|(name, job)| end_of(name, job)).collect()
    });
    let ends: Result<Vec<Exit>, Failure> = ends;
    match ends {
        Ok(ends) => ends.last().copied().unwrap_or(Exit::Success),
        Err(failure) => failure.report(),
    }
}

fn end_of(name: &str, job: &Job) -> Result<Exit, Failure> {
    if Note::on(job).is_none() {
        // Somebody's own job, which may live on with nobody in it.
        job.wait()?;
        return Ok(Exit::Success);
    }
    job.wait_over(None)?;
    match Note::on(job).and_then(|note| note.status) {
        Some(status) => Ok(Exit::Code(status)),
        None => {
            talk(format_args!("{name}: its onejob was killed: how its command ended is not known"));
            Ok(Exit::Ours)
        }
    }
}
