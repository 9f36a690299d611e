//! `onejob logs`: what a detached job has written.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use onejob::Job;

use super::detach;
use crate::{
    args,
    exit::{Exit, Failure},
    note::Note,
    os,
    output::raw_data,
};

pub(crate) fn logs(args: &args::Logs) -> Exit {
    print(args).unwrap_or_else(|failure| failure.report())
}

fn print(args: &args::Logs) -> Result<Exit, Failure> {
    let job = Job::open(&args.job);
    let path = match &job {
        Ok(job) => log_of(job, &args.job)?,
        // The log of a job that has ended is found by its name.
        Err(error) if error.is_not_found() => match detach::log_of_name(&args.job) {
            Some(path) if path.exists() => path,
            _ => return Err(job.err().map_or_else(|| missing(&args.job), Failure::from)),
        },
        Err(_) => return Err(job.err().map_or_else(|| missing(&args.job), Failure::from)),
    };
    let failed = |e: io::Error| Failure::os(format_args!("read the log {}", path.display()), e);
    let mut log = File::open(&path).map_err(failed)?;
    let follow = args.follow.then_some(job.ok()).flatten();
    let Some(job) = follow else {
        return Ok(copy(&mut log).map_err(failed)?.unwrap_or(Exit::Success));
    };
    follow_until_over(job, &path, log)
}

fn missing(job: &str) -> Failure {
    Failure::new(format!("{job} has no log (only a job of run -d has one)"))
}

fn log_of(job: &Job, name: &str) -> Result<PathBuf, Failure> {
    let log = Note::on(job).and_then(|note| note.log);
    log.map(PathBuf::from).ok_or_else(|| missing(name))
}

/// Prints what has come since the last time. An exit if nobody listens any more.
fn copy(log: &mut File) -> io::Result<Option<Exit>> {
    let mut chunk = vec![0; 1 << 16];
    loop {
        match log.read(&mut chunk)? {
            0 => return Ok(None),
            len => {
                if let Err(exit) = raw_data(chunk.get(..len).unwrap_or_default()) {
                    return Ok(Some(exit));
                }
            }
        }
    }
}

/// What comes until the job is over, and what came at its end.
fn follow_until_over(job: Job, path: &Path, mut log: File) -> Result<Exit, Failure> {
    let failed = |e: io::Error| Failure::os(format_args!("follow the log {}", path.display()), e);
    // Watched before the first read, so that nothing comes unseen in between.
    let changes = os::Changes::of(path).map_err(failed)?;
    let (_waiting, over) = os::in_background(move || job.wait_over(None)).map_err(failed)?;
    loop {
        if let Some(exit) = copy(&mut log).map_err(failed)? {
            return Ok(exit);
        }
        match os::wait_for(&over, &changes, None, None).map_err(failed)? {
            os::Event::First => {
                let exit = copy(&mut log).map_err(failed)?;
                return Ok(exit.unwrap_or(Exit::Success));
            }
            _ if changes.forget() => {}
            // Whoever read has seen enough.
            _ => return Ok(Exit::Success),
        }
    }
}
