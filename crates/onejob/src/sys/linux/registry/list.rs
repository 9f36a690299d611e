//! The lists of live and of abandoned jobs.

use std::{sync::Arc, time::Instant};

use super::{
    directory::Registry,
    header::{FORMAT, is_id},
    names::REAP_TIMEOUT,
    record::Record,
};
use crate::{
    AbandonedJob, AbandonedKind, JobEntry, Result,
    sys::linux::{cgroup::abandoned, process::stuck},
};

/// How many of the listed records stay open for [`JobEntry::open`]. The others are opened again, so that a
/// long list does not use up the descriptors.
const KEPT_OPEN: usize = 128;

pub(crate) fn jobs() -> Result<Vec<JobEntry>> {
    let mut entries = Vec::new();
    let deadline = Instant::now() + REAP_TIMEOUT;
    for registry in Registry::all()? {
        let registry = Arc::new(registry);
        let files = registry.files()?;
        let names = registry.remove_orphaned_files(&files);
        for id in files.into_iter().filter(|file| is_id(file.as_bytes())) {
            // A file that is not a record hides no other.
            let mut record = match Record::find_any_format(&registry, &id) {
                Err(error) if !error.is_unsupported() => return Err(error),
                Ok(Some(record)) => record,
                _ => continue,
            };
            let is_own_format = record.header.format == FORMAT;
            let left = deadline.saturating_duration_since(Instant::now());
            let is_live = match is_own_format {
                true => record.owner_alive_or_reaped(left),
                false => record.owner_alive(),
            };
            if !is_live {
                continue;
            }
            let named = match &record.header.name {
                Some(name) if names.get(name) == Some(&id) => Ok(Some(id.clone())),
                // The name can have been claimed meanwhile.
                Some(name) => registry.id_of(name),
                None => Ok(None),
            };
            match named {
                Err(error) if !error.is_unsupported() => return Err(error),
                Ok(Some(found)) if found == id => {}
                _ => record.header.name = None,
            }
            let mut entry = record.header.entry(registry.pid_namespace());
            if is_own_format && entries.len() < KEPT_OPEN {
                entry.keep(record);
            }
            entries.push(entry);
        }
    }
    entries.sort_by_key(|entry| entry.started);
    Ok(entries)
}

/// The remains of jobs: in cgroups, and those that have records.
pub(crate) fn abandoned_jobs() -> Result<Vec<AbandonedJob>> {
    let mut jobs = abandoned::list()?;
    for registry in Registry::all()? {
        let registry = Arc::new(registry);
        for id in registry.ids()? {
            let record = match Record::find_abandoned(&registry, &id) {
                Err(error) if !error.is_unsupported() => return Err(error),
                record => record.ok().flatten(),
            };
            // Another version of onejob ends its own jobs.
            if let Some(record) = record.filter(|record| record.header.format == FORMAT) {
                let members = record.members()?;
                let (place, kind) = (registry.path.join(id), AbandonedKind::Abandoned);
                let stuck = stuck::why(&members);
                jobs.push(AbandonedJob { place, processes: members.len(), kind, stuck });
            }
        }
    }
    Ok(jobs)
}
