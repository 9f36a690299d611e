//! `onejob freeze` and `onejob thaw`.

use onejob::Job;

use super::find;
use crate::{args::Target, exit::Exit, failure::Failure};

pub(super) fn freeze(jobs: &[Target]) -> Result<Exit, Failure> {
    for_each(jobs, Job::freeze)
}

pub(super) fn thaw(jobs: &[Target]) -> Result<Exit, Failure> {
    for_each(jobs, Job::thaw)
}

fn for_each(names: &[Target], act: impl Fn(&Job) -> onejob::Result<()>) -> Result<Exit, Failure> {
    // Every job is opened before the first one is changed.
    let jobs = names.iter().map(find::job).collect::<Result<Vec<_>, _>>()?;
    let mut exit = Exit::Success;
    for (name, job) in names.iter().zip(&jobs) {
        if let Err(error) = act(job) {
            Failure::from(error).about(name).report();
            exit = Exit::PartialFailure;
        }
    }
    Ok(exit)
}
