//! Which job or process a word of the command line means.

use onejob::{Job, JobEntry};

use crate::{
    args::Target,
    failure::{Failure, JOBS_HINT},
    os,
};

/// The object of a subcommand.
pub(super) enum Found {
    Job(Box<Job>),
    /// The pid of a process.
    Process(u32),
}

/// The fewest characters of an id that mean its job. Fewer could be the name of a job that has ended, and the
/// beginning of another job's id by chance.
const MIN_ID: usize = 6;

/// The job or process that a word means.
pub(super) fn job_or_process(target: &Target) -> Result<Found, Failure> {
    match target {
        Target::Pid(pid) => Ok(Found::Process(*pid)),
        Target::Number(number) => match job_of_name(&number.to_string()) {
            Ok(Some(_)) => Err(Failure::new(format!("{number} is a pid and the name of a job"))
                .with_hint(format!("write pid:{number} for the process, ={number} for the job"))),
            // Where no job can be found, none can be meant.
            Ok(None) | Err(_) => Ok(Found::Process(*number)),
        },
        Target::Name(_) | Target::Word(_) => job(target).map(Box::new).map(Found::Job),
    }
}

/// The job that a word means.
pub(super) fn job(target: &Target) -> Result<Job, Failure> {
    living_job(target)?.ok_or_else(|| no_such_job(target))
}

/// The failure if a word means no job.
pub(super) fn no_such_job(target: &Target) -> Failure {
    Failure::new(format!("there is no job {target}")).with_hint(JOBS_HINT).with_kind("not_found")
}

/// The same as [`job`]; `None` if there is no such job.
pub(super) fn living_job(target: &Target) -> Result<Option<Job>, Failure> {
    match target {
        Target::Name(name) => Ok(job_of_name(name)?),
        Target::Word(word) => job_of_word(word),
        Target::Number(number) => match job_of_name(&number.to_string())? {
            None => Err(not_a_job(*number)),
            job => Ok(job),
        },
        Target::Pid(pid) => Err(not_a_job(*pid)),
    }
}

fn job_of_name(name: &str) -> onejob::Result<Option<Job>> {
    match Job::open(name) {
        // Otherwise it was found by the beginning of its id.
        Ok(job) => Ok(Some(job).filter(|job| job.name() == Some(name))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) if error.is_invalid_input() && is_id_prefix(name) => Ok(None),
        Err(error) => Err(error),
    }
}

fn job_of_word(word: &str) -> Result<Option<Job>, Failure> {
    if word.len() < MIN_ID || !is_id_prefix(word) {
        return Ok(job_of_name(word)?);
    }
    let job = match Job::open(word) {
        Ok(job) => job,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let is_other = |entry: &JobEntry| entry.id.starts_with(word) && Some(&*entry.id) != job.id();
    match onejob::jobs()?.find(is_other) {
        Some(other) => Err(Failure::new(format!(
            "{word} is the name of a job and the beginning of another job's id"
        ))
        .with_hint(format!("write ={word} for the name, {} for the other job", other.id))),
        None => Ok(Some(job)),
    }
}

/// The entry of a job in the list of jobs.
pub(super) fn entry_of(job: &Job) -> Result<Option<JobEntry>, Failure> {
    Ok(onejob::jobs()?.find(|entry| Some(entry.id.as_str()) == job.id()))
}

fn is_id_prefix(word: &str) -> bool {
    let (owner, number) = word.split_once('-').unwrap_or((word, ""));
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    !owner.is_empty()
        && owner.bytes().all(is_hex)
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The failure for a pid in the place of a job. Names the job of the process.
fn not_a_job(pid: u32) -> Failure {
    let is_member = |entry: &JobEntry| {
        let pids = entry.open().and_then(|job| job.pids()).unwrap_or_default();
        pids.contains(&pid)
    };
    let job = onejob::jobs().ok().and_then(|mut jobs| jobs.find(is_member));
    Failure::new(format!("{pid} is a pid, not a job")).with_hint(match job {
        Some(entry) => {
            let name = entry.name.unwrap_or(entry.id);
            let verb = os::args().nth(1).unwrap_or_default();
            let verb = verb.to_string_lossy();
            format!("the process is a member of the job {name}: `onejob {verb} {name}`")
        }
        None => format!("{JOBS_HINT}; a job with a name of digits is ={pid}"),
    })
}
