//! The note that `onejob run` attaches to its job for the other subcommands.

use std::ffi::OsString;

use onejob::Job;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Default)]
pub(crate) struct Note {
    /// CMD and its arguments; bytes that are not UTF-8 are replaced.
    pub(crate) command: Vec<String>,
    /// CMD's pid, once it has been started.
    pub(crate) pid: Option<u32>,
    /// The log file of a detached job.
    pub(crate) log: Option<String>,
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
        Note { command: words, ..Note::default() }
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
