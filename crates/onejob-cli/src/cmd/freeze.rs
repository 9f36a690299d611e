//! `onejob freeze` and `onejob thaw`.

use onejob::Job;

use crate::{exit::Exit, failure::Failure};

pub(super) fn freeze(jobs: &[String]) -> Result<Exit, Failure> {
    for_each(jobs, Job::freeze)
}

pub(super) fn thaw(jobs: &[String]) -> Result<Exit, Failure> {
    for_each(jobs, Job::thaw)
}

fn for_each(names: &[String], act: impl Fn(&Job) -> onejob::Result<()>) -> Result<Exit, Failure> {
    // Every job is opened before the first one is changed.
    let jobs = names.iter().map(|name| Job::open(name)).collect::<onejob::Result<Vec<_>>>()?;
    let mut exit = Exit::Success;
    for (name, job) in names.iter().zip(&jobs) {
        if let Err(error) = act(job) {
            Failure::from(error).about(name).report();
            exit = Exit::PartialFailure;
        }
    }
    Ok(exit)
}
