//! `onejob run -d`: the job goes on in the background, held by an onejob of its own.
//!
//! Somebody must enforce the time limit and stop what CMD leaves behind, so what goes on is an
//! ordinary `onejob run` in another session; it reports here once CMD runs.

use std::{
    io::{self, BufRead as _, Write as _},
    path::PathBuf,
};

use onejob::Job;

use super::run;
use crate::{
    args,
    exit::{Exit, Failure},
    os::{self, Side},
    output::{data, talk},
};

/// Starts the other side, and says which job it holds and where that writes.
pub(crate) fn detach(args: &args::Run) -> Exit {
    match os::split() {
        Ok(Side::Front(report)) => pass_on(report),
        Ok(Side::Back(report)) => run::attend(args, Watcher::Report(report)),
        Err(error) => Failure::os("go into the background", error).report(),
    }
}

/// Ends a report. Its end is not the pipe's, which somebody may have inherited (Wine's console).
const END: u8 = 0;

/// The report: a status, a line's end, and what to say.
fn pass_on(report: impl io::Read) -> Exit {
    let mut text = Vec::new();
    let read = io::BufReader::new(report).read_until(END, &mut text);
    let text = String::from_utf8_lossy(text.strip_suffix(&[END]).unwrap_or(&text));
    match (read, text.split_once('\n')) {
        (Ok(_), Some(("0", said))) => data(said).err().unwrap_or(Exit::Success),
        (Ok(_), Some((status, said))) => {
            talk(said);
            status.parse().map_or(Exit::Ours, Exit::Code)
        }
        (Err(error), _) => Failure::os("hear from the background", error).report(),
        (Ok(_), None) => {
            talk("the onejob in the background was killed before it could start the command");
            Exit::Ours
        }
    }
}

/// Who wants to know how `onejob run` comes along.
pub(crate) enum Watcher {
    /// The terminal sees it.
    Nobody,
    /// The side in front.
    Report(os::Reporter),
}

impl Watcher {
    /// The job is there, CMD is not: from now on what is written goes to the log, if there is to be
    /// one.
    pub(crate) fn job_is_made(&self, job: &Job) -> Result<Option<PathBuf>, Failure> {
        let Watcher::Report(_) = self else { return Ok(None) };
        let hidden = || Failure::new("a detached job that is not listed could not be found again");
        let name = job.name().or(job.id()).ok_or_else(hidden)?;
        let homeless = || Failure::new("there is no place for a log (set HOME or XDG_STATE_HOME)");
        let path = log_of_name(name).ok_or_else(homeless)?;
        let opened = os::make_log(&path).and_then(|log| os::redirect(&log));
        opened.map_err(|e| Failure::os(format_args!("write the log {}", path.display()), e))?;
        Ok(Some(path))
    }

    pub(crate) fn cmd_has_started(&mut self, job: &Job, log: Option<&PathBuf>) {
        let name = job.name().or(job.id()).unwrap_or_default();
        let log = log.map(|log| log.display().to_string()).unwrap_or_default();
        self.tell(0, &format!("{name}\n{log}\n"));
    }

    /// Whether somebody was told; if not, it is to be said here.
    pub(crate) fn has_failed(&mut self, failure: &Failure) -> bool {
        self.tell(failure.exit().code(), failure.message())
    }

    fn tell(&mut self, status: i32, said: &str) -> bool {
        match std::mem::replace(self, Watcher::Nobody) {
            Watcher::Nobody => false,
            // Nobody may be there to read it any more.
            Watcher::Report(mut report) => {
                report.write_all(&[format!("{status}\n{said}").as_bytes(), &[END]].concat()).is_ok()
            }
        }
    }
}

/// The log of a detached job of this name, or with this id.
pub(crate) fn log_of_name(name: &str) -> Option<PathBuf> {
    // It must be a plain file name.
    let is_plain = !name.contains(['/', '\\', ':', '\0']) && !name.starts_with('.');
    Some(os::log_folder().filter(|_| is_plain)?.join(format!("{name}.log")))
}
