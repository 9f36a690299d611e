//! `onejob freeze` and `onejob thaw`.

use onejob::Job;

use crate::{
    exit::{Exit, Failure},
    output::talk,
};

pub(crate) fn freeze(jobs: &[String]) -> Exit {
    each(jobs, Job::freeze)
}

pub(crate) fn thaw(jobs: &[String]) -> Exit {
    each(jobs, Job::thaw)
}

fn each(names: &[String], act: impl Fn(&Job) -> onejob::Result<()>) -> Exit {
    // All are found before the first is touched.
    let jobs: Result<Vec<Job>, _> = names.iter().map(|name| Job::open(name)).collect();
    let jobs = match jobs {
        Ok(jobs) => jobs,
        Err(error) => return Failure::from(error).report(),
    };
    let done = |(name, job): (&String, &Job)| match act(job) {
        Ok(()) => true,
        Err(error) => {
            talk(format_args!("{name}: {error}"));
            false
        }
    };
    let results: Vec<bool> = names.iter().zip(&jobs).map(done).collect();
    if results.into_iter().all(|done| done) { Exit::Success } else { Exit::Failed }
}
