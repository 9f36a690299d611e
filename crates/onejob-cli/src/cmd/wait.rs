//! `onejob wait`: waits until jobs have ended, and returns the last one's exit status.

use onejob::Job;

use super::find;
use crate::{
    args::{self, Target},
    exit::Exit,
    failure::Failure,
    note::Note,
    output::error,
};

pub(super) fn wait(args: &args::WaitArgs) -> Result<Exit, Failure> {
    // Every job is opened before the first wait: a job that ends meanwhile is still found.
    let jobs = args.jobs.iter().map(find::job).collect::<Result<Vec<_>, _>>()?;
    let mut exit = Exit::Success;
    for (name, job) in args.jobs.iter().zip(&jobs) {
        exit = wait_for_end(name, job)?;
    }
    Ok(exit)
}

fn wait_for_end(name: &Target, job: &Job) -> Result<Exit, Failure> {
    if Note::read(job).is_none() {
        // Not started by `onejob run`: the job may outlive its last member.
        job.wait()?;
        return Ok(Exit::Success);
    }
    job.wait_closed(None)?;
    match Note::read(job).and_then(|note| note.status) {
        Some(status) => Ok(Exit::Code(status)),
        None => {
            error(format_args!("{name}: exit status unknown: the onejob that owned it was killed"));
            Ok(Exit::InternalError)
        }
    }
}
