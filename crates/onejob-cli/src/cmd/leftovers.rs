//! Jobs without an owner, as `onejob doctor` and `onejob ls` show them.

use onejob::{AbandonedJob, AbandonedKind};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct LeftoverRow {
    place: String,
    members: usize,
    kind: &'static str,
    /// The processes that cannot end although they are killed, and why.
    stuck: Option<String>,
}

impl LeftoverRow {
    pub(super) fn new(leftover: &AbandonedJob) -> LeftoverRow {
        LeftoverRow {
            place: leftover.place.display().to_string(),
            members: leftover.processes,
            kind: match leftover.kind {
                AbandonedKind::Released => "released",
                _ => "abandoned",
            },
            stuck: leftover.stuck.clone(),
        }
    }

    /// A line of text.
    pub(super) fn describe(&self) -> String {
        let LeftoverRow { place, members, kind, stuck } = self;
        let state = match (*kind, stuck) {
            ("released", _) => "was released: its members live on".to_owned(),
            (_, Some(stuck)) => format!("was abandoned, and cannot be removed yet: {stuck}"),
            _ => "was abandoned: the next job in this cgroup removes it".to_owned(),
        };
        format!("{place} ({members} processes) {state}.\n")
    }
}
