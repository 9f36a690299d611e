//! `onejob logs`: the output of a detached job.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use onejob::Job;

use super::find;
use crate::{
    args::{self, Target},
    exit::Exit,
    failure::{Failure, print},
    log_file,
    note::Note,
    os::{self, FileWatch, WaitEvent},
};

pub(super) fn logs(args: &args::LogsArgs) -> Result<Exit, Failure> {
    let (job, path) = find_log(&args.job)?;
    let failed = |e: io::Error| Failure::os(format_args!("read the log {}", path.display()), e);
    let mut log = File::open(&path).map_err(failed)?;
    match job.filter(|_| args.follow) {
        Some(job) => follow(job, &path, log)?,
        None => copy(&mut log, &path)?,
    }
    Ok(Exit::Success)
}

/// The job, unless it has ended, and its log file.
fn find_log(target: &Target) -> Result<(Option<Job>, PathBuf), Failure> {
    match find::living_job(target)? {
        Some(job) => {
            let log = Note::read(&job).and_then(|note| note.log);
            let no_log = || {
                Failure::new(format!("the job {target} has no log"))
                    .with_hint("only jobs that were started by `onejob run -d` have one")
            };
            log.map(|log| (Some(job), PathBuf::from(log))).ok_or_else(no_log)
        }
        // The log of a job that has ended is found by the job's name.
        None => match log_file::find(&target.to_string()) {
            Some(path) => Ok((None, path)),
            None => Err(find::no_such_job(target)),
        },
    }
}

/// Prints what has been appended since the last call.
fn copy(log: &mut File, path: &Path) -> Result<(), Failure> {
    let mut chunk = vec![0; 1 << 16];
    loop {
        let read = log.read(&mut chunk);
        let len =
            read.map_err(|e| Failure::os(format_args!("read the log {}", path.display()), e))?;
        match chunk.get(..len) {
            None | Some([]) => return Ok(()),
            Some(bytes) => print(bytes)?,
        }
    }
}

/// Prints the log until the job has ended, or until the reader of standard output has closed it.
fn follow(job: Job, path: &Path, mut log: File) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::os(format_args!("follow the log {}", path.display()), e);
    // Watched before the first read: a later write is noticed.
    let watch = FileWatch::new(path).map_err(failed)?;
    let (_thread, job_ended) = os::spawn_thread(move || job.wait_closed(None)).map_err(failed)?;
    loop {
        copy(&mut log, path)?;
        match os::wait_for(&job_ended, &watch, &[], None).map_err(failed)? {
            WaitEvent::First => return copy(&mut log, path),
            _ if watch.reset() => {}
            _ => return Ok(()),
        }
    }
}
