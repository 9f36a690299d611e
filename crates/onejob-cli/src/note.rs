//! The note that `onejob run` attaches to its job for the other subcommands.

use std::{
    env,
    ffi::OsString,
    time::{Duration, SystemTime},
};

use onejob::Job;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
pub(crate) struct Note {
    /// CMD and its arguments; bytes that are not UTF-8 are replaced.
    pub(crate) argv: Vec<String>,
    /// CMD's pid, once it has been started.
    pub(crate) pid: Option<u32>,
    /// The log file of a detached job.
    pub(crate) log: Option<String>,
    /// The directory in which CMD was started.
    pub(crate) cwd: Option<String>,
    /// Whether the processes that CMD leaves behind are stopped when it exits.
    pub(crate) ends_with_command: bool,
    /// When the time limit expires, in milliseconds since 1970.
    pub(crate) stops_at: Option<u64>,
    /// The exit status of `onejob run`.
    pub(crate) status: Option<i32>,
}

impl Note {
    pub(crate) fn new(command: &[OsString]) -> Note {
        // The command is shown, not executed: a record is small, an argument vector can have
        // megabytes.
        const MAX_BYTES: usize = 4096;
        let mut left = MAX_BYTES;
        let mut words = Vec::new();
        for word in command {
            let word = word.to_string_lossy();
            let ends = word.char_indices().map(|(at, c)| at + c.len_utf8());
            let end = ends.take_while(|end| *end <= left).last().unwrap_or(0);
            words.push(word[..end].to_owned());
            left -= end;
            if end < word.len() || left == 0 {
                words.push("…".to_owned());
                break;
            }
        }
        Note { argv: words, cwd: directory(), ..Note::default() }
    }

    /// Notes when the job ends: with CMD, or when its time limit expires.
    pub(crate) fn set_end(&mut self, with_command: bool, limit: Option<Duration>) {
        self.ends_with_command = with_command;
        let end = limit.filter(|limit| !limit.is_zero()).and_then(|limit| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
            u64::try_from(since.checked_add(limit)?.as_millis()).ok()
        });
        self.stops_at = end;
    }

    /// The note of a job; `None` if `onejob run` did not start it.
    pub(crate) fn read(job: &Job) -> Option<Note> {
        serde_json::from_str(&job.note().ok()??).ok()
    }

    /// Attaches it to a job. A job that is not listed has no record to attach it to.
    pub(crate) fn attach(&self, job: &Job) {
        if job.id().is_some() {
            let _ = job.set_note(&self.to_json());
        }
    }

    pub(crate) fn to_json(&self) -> String {
        // Strings and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The current directory, unless its path is very long: a record is small.
fn directory() -> Option<String> {
    const MAX_BYTES: usize = 4096;
    let path = env::current_dir().ok()?;
    Some(path.to_string_lossy().into_owned()).filter(|path| path.len() <= MAX_BYTES)
}
