//! Finding a job by its name or id, and claiming a name.

use std::{sync::Arc, time::Duration};

use rustix::{fs::symlinkat, io::Errno};

use super::{
    directory::{Registry, link_of},
    header::is_id,
    record::Record,
};
use crate::{Error, Result, name::Name, sys::linux::deadline::KILL_TIMEOUT};

/// How long looking for jobs waits for the end of abandoned ones.
pub(super) const REAP_TIMEOUT: Duration = Duration::from_millis(200);

/// Claims a name for a job whose record exists.
pub(super) fn claim(registry: &Arc<Registry>, name: &Name, id: &str) -> Result<()> {
    const TRIES: usize = 100;
    let link = link_of(name);
    let taken = || {
        Error::name_taken(format!("a live job has the name {name}"))
            .with_hint("use another name, or stop that job first")
    };
    for _ in 0..TRIES {
        match symlinkat(id, &registry.dir, &link) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::os(format!("claim the name {name}"), e)),
        }
        let Some(holder) = registry.id_of(name)? else { continue };
        match Record::find(registry, &holder)? {
            Some(record) if record.owner_alive() => return Err(taken()),
            Some(record) if record.reap_abandoned(KILL_TIMEOUT) => {}
            Some(_) => {
                return Err(taken().with_hint(
                    "its owner is dead, and its last members are being ended: try later",
                ));
            }
            // Its owner was killed after it had removed the record and before it removed the name.
            None => registry.remove_orphaned_name(name),
        }
    }
    Err(taken())
}

/// The live job with this name, or with an id that begins like this.
pub(crate) fn find(job: &Name) -> Result<Record> {
    let mut found = Vec::new();
    for registry in Registry::all()? {
        let registry = Arc::new(registry);
        let by_name = registry.id_of(job)?;
        let ids = match &by_name {
            Some(id) => vec![id.clone()],
            None if is_id(job.as_str().as_bytes()) => vec![job.as_str().to_owned()],
            None => registry.ids()?,
        };
        let matches = |id: &String| by_name.is_some() || id.starts_with(job.as_str());
        for id in ids.into_iter().filter(matches) {
            let record = Record::find(&registry, &id)?;
            let live = record.filter(|record| record.owner_alive_or_reaped(REAP_TIMEOUT));
            match live {
                // A name counts before any id that begins like it.
                Some(record) if by_name.is_some() => return Ok(record),
                live => found.extend(live),
            }
        }
    }
    match found.len() {
        0 => Err(missing(job.as_str())),
        1 => Ok(found.remove(0)),
        _ => Err(Error::invalid(format!("the ids of several jobs begin with {job}"))
            .with_hint("use the name, or more characters of the id")),
    }
}

pub(crate) fn missing(job: &str) -> Error {
    Error::missing(format!("there is no job {job}"))
}
