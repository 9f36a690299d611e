//! What `onejob run` notes on its job for the other verbs.

use std::ffi::OsString;

use onejob::Job;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Default)]
pub(crate) struct Note {
    /// CMD and its arguments, as far as they are text.
    pub(crate) command: Vec<String>,
    /// CMD's number, once it has been started.
    pub(crate) pid: Option<u32>,
    /// Where a detached job writes.
    pub(crate) log: Option<String>,
    /// What `onejob run` ends with.
    pub(crate) status: Option<i32>,
}

impl Note {
    pub(crate) fn of(command: &[OsString]) -> Note {
        // To be shown, not to be run: a record is small, and a command line can have megabytes.
        const MOST: usize = 4096;
        let mut left = MOST;
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

    /// The note on a job, if it is one of an `onejob run`.
    pub(crate) fn on(job: &Job) -> Option<Note> {
        serde_json::from_str(&job.note().ok()??).ok()
    }

    /// Where the job is not listed there is nobody to tell.
    pub(crate) fn put_on(&self, job: &Job) {
        if job.id().is_some() {
            let _ = job.set_note(&self.text());
        }
    }

    pub(crate) fn text(&self) -> String {
        // Strings and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}
