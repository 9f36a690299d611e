//! `onejob run -d`: a daemon owns the job, and reports to the foreground process how CMD's start went.
//!
//! The time limit and the processes that CMD leaves behind need an owner, so the daemon is an ordinary
//! `onejob run` in a new session.

use std::{
    io::{self, BufRead as _, Write as _},
    path::PathBuf,
};

use onejob::Job;

use crate::{
    exit::Exit,
    failure::{Failure, print},
    log_file,
    os::{self, ReportPipe},
};

/// The last byte of a report. The end of file cannot mark its end: another process may have inherited
/// the pipe (Wine's console does).
const END: u8 = 0;

/// The daemon's report on CMD's start. Without a foreground process it does nothing.
pub(super) struct StartReport(Option<ReportPipe>);

impl StartReport {
    /// For a `run` in the foreground.
    pub(super) fn none() -> StartReport {
        StartReport(None)
    }

    pub(super) fn to(pipe: ReportPipe) -> StartReport {
        StartReport(Some(pipe))
    }

    /// Redirects the standard streams to the job's log file, if this is a daemon. To be called before
    /// CMD is started.
    pub(super) fn open_log(&self, job: &Job) -> Result<Option<PathBuf>, Failure> {
        if self.0.is_none() {
            return Ok(None);
        }
        let unlisted = || Failure::new("cannot detach: the job has no record to find it again by");
        let job = job.name().or(job.id()).ok_or_else(unlisted)?;
        let homeless = || {
            Failure::new("cannot write a log: no directory for it")
                .with_hint("set HOME or XDG_STATE_HOME")
        };
        let failed = |(path, error): (PathBuf, io::Error)| {
            Failure::os(format_args!("write the log {}", path.display()), error)
        };
        let (path, log) = log_file::create(job).ok_or_else(homeless)?.map_err(failed)?;
        os::redirect_stdio(&log).map_err(|e| Failure::os("redirect the output to the log", e))?;
        Ok(Some(path))
    }

    /// CMD has been started: reports the name of the job and its log file.
    pub(super) fn started(&mut self, job: &Job, log: Option<&PathBuf>) {
        let name = job.name().or(job.id()).unwrap_or_default();
        let log = log.map(|log| log.display().to_string()).unwrap_or_default();
        self.send(0, "", "", &format!("{name}\n{log}\n"));
    }

    /// CMD could not be started. Returns whether the foreground process prints the failure.
    pub(super) fn failed(&mut self, failure: &Failure) -> bool {
        let hint = failure.hint().unwrap_or_default();
        self.send(failure.exit().code(), failure.kind(), hint, failure.message())
    }

    fn send(&mut self, status: i32, kind: &str, hint: &str, text: &str) -> bool {
        let Some(mut pipe) = self.0.take() else { return false };
        let report = [format!("{status}\n{kind}\n{hint}\n{text}").as_bytes(), &[END]].concat();
        // If the foreground process has been killed, no reader is left.
        pipe.write_all(&report).is_ok()
    }
}

/// In the foreground process: reads the daemon's report and prints it.
pub(super) fn relay(report: impl io::Read) -> Result<Exit, Failure> {
    let mut bytes = Vec::new();
    io::BufReader::new(report)
        .read_until(END, &mut bytes)
        .map_err(|e| Failure::os("read the daemon's report", e))?;
    let report = String::from_utf8_lossy(bytes.strip_suffix(&[END]).unwrap_or(&bytes));
    let mut parts = report.splitn(4, '\n');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("0"), _, _, Some(text)) => print(text).map(|()| Exit::Success),
        (Some(status), Some(kind), Some(hint), Some(text)) => {
            let exit = status.parse().map_or(Exit::InternalError, Exit::Code);
            let failure = Failure::new(text).with_exit(exit).with_kind(kind.to_owned());
            Err(if hint.is_empty() { failure } else { failure.with_hint(hint) })
        }
        _ => Err(Failure::new("the daemon was killed before it had started the command")),
    }
}
