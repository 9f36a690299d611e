//! `onejob logs`: the output of a detached job.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use onejob::Job;

use crate::{
    args,
    exit::Exit,
    failure::{Failure, print},
    log_file,
    note::Note,
    os::{self, FileWatch, WaitEvent},
};

pub(super) fn logs(args: &args::LogsArgs) -> Result<Exit, Failure> {
    let (job, path) = find(&args.job)?;
    let failed = |e: io::Error| Failure::os(format_args!("read the log {}", path.display()), e);
    let mut log = File::open(&path).map_err(failed)?;
    match job.filter(|_| args.follow) {
        Some(job) => follow(job, &path, log)?,
        None => copy(&mut log, &path)?,
    }
    Ok(Exit::Success)
}

/// The job, unless it has ended, and its log file.
fn find(name: &str) -> Result<(Option<Job>, PathBuf), Failure> {
    match Job::open(name) {
        Ok(job) => {
            let log = Note::read(&job).and_then(|note| note.log);
            let no_log = || {
                Failure::new(format!("the job {name} has no log"))
                    .with_hint("only jobs started by onejob run -d have one")
            };
            log.map(|log| (Some(job), PathBuf::from(log))).ok_or_else(no_log)
        }
        // The log of a job that has ended is found by the job's name.
        Err(error) if error.is_not_found() => match log_file::path(name) {
            Some(path) if path.exists() => Ok((None, path)),
            _ => Err(error.into()),
        },
        Err(error) => Err(error.into()),
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
        match os::wait_for(&job_ended, &watch, None, None).map_err(failed)? {
            WaitEvent::First => return copy(&mut log, path),
            _ if watch.reset() => {}
            _ => return Ok(()),
        }
    }
}
