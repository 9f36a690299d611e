//! The user's runtime directory: a record for each job that other processes may find.
//!
//! The kernel knows the members, and who lives. A record holds only what it cannot: which job this
//! is, what it is called, who its owner and guards are, and where its cgroups lie. The owner holds
//! a lock on it for as long as it lives; a record without one is nobody's, whoever finds it takes
//! down what is left of the job and removes it. What the files are called says [`floor::records`].
//!
//! [`floor::records`]: crate::sys::linux::floor::records

mod directory;
mod header;
mod record;
pub(crate) mod version;
mod watch;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::{fs::symlinkat, io::Errno};

use crate::{
    AbandonedJob, AbandonedKind, Error, JobEntry, Result,
    name::Name,
    sys::linux::{cgroup::abandoned, deadline::KILL_TIMEOUT, process::stuck},
};
pub(super) use directory::place;
use directory::{Registry, link_of};
pub(super) use header::RecordHeader;
pub(crate) use record::Record;
pub(super) use watch::RecordWatch;

/// How long a look for jobs waits for the end of what dead owners have left.
const LISTING: Duration = Duration::from_millis(200);

/// How the ids of a new owner's jobs begin: nobody else's do.
pub(super) fn fresh_owner() -> Result<String> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::os("get a random number", e))?;
    Ok(format!("{:016x}-", u64::from_ne_bytes(random)))
}

/// What a record is called: an owner's beginning and a number.
fn is_id(text: &[u8]) -> bool {
    let Some((owner, [b'-', number @ ..])) = text.split_at_checked(16) else { return false };
    owner.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && (1..=10).contains(&number.len())
        && number.iter().all(u8::is_ascii_digit)
}

/// Takes a name for a job whose record is there already.
fn claim(registry: &Registry, name: &Name, id: &str) -> Result<()> {
    const TRIES: usize = 100;
    let link = link_of(name);
    let taken = || {
        Error::name_taken(format!("a job named {name} is running already"))
            .with_hint("another name, or stop that one first: onejob kill")
    };
    for _ in 0..TRIES {
        match symlinkat(id, &registry.dir, &link) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::os(format!("take the name {name}"), e)),
        }
        let Some(holder) = registry.id_of(name)? else { continue };
        match registry.record(&holder)? {
            Some(record) if record.owner_alive() => return Err(taken()),
            Some(record) if record.reap_abandoned(KILL_TIMEOUT) => {}
            Some(_) => {
                return Err(
                    taken().with_hint("its owner is dead, and its last processes are being ended")
                );
            }
            // Its owner was killed just before it could take the name back.
            None => registry.sweep_name(name),
        }
    }
    Err(taken())
}

/// The living job that is meant: by its name, or by the beginning of its id.
pub(super) fn find(job: &Name) -> Result<Record> {
    let mut fitting = Vec::new();
    for registry in Registry::all()? {
        let by_name = registry.id_of(job)?;
        let ids = match &by_name {
            Some(id) => vec![id.clone()],
            None if is_id(job.as_str().as_bytes()) => vec![job.as_str().to_owned()],
            None => registry.ids()?,
        };
        let fits = |id: &String| by_name.is_some() || id.starts_with(job.as_str());
        for id in ids.into_iter().filter(fits) {
            let living = registry.record(&id)?;
            let living = living.filter(|record| record.owner_alive_or_reaped(LISTING));
            // A name is one job's, whatever other ids begin with.
            match living {
                Some(record) if by_name.is_some() => return Ok(record),
                living => fitting.extend(living),
            }
        }
    }
    match fitting.len() {
        0 => Err(Error::missing(format!("there is no job {job}"))
            .with_hint("onejob ls lists those that run")),
        1 => Ok(fitting.remove(0)),
        _ => Err(Error::invalid(format!("{job} is the beginning of several ids"))
            .with_hint("more of the id, or the name")),
    }
}

pub(crate) fn jobs() -> Result<Vec<JobEntry>> {
    let mut entries = Vec::new();
    let deadline = Instant::now() + LISTING;
    for registry in Registry::all()? {
        let files = registry.files()?;
        registry.sweep(&files);
        for id in files.into_iter().filter(|file| is_id(file.as_bytes())) {
            // One that is not ours to believe hides no other.
            let mut record = match registry.record_of_any_format(&id) {
                Err(error) if !error.is_unsupported() => return Err(error),
                Ok(Some(record)) => record,
                _ => continue,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let is_living = match record.header.format {
                header::FORMAT => record.owner_alive_or_reaped(left),
                _ => record.owner_alive(),
            };
            if !is_living {
                continue;
            }
            let leads_to = record.header.name.as_ref().map(|name| registry.id_of(name)).transpose();
            match leads_to {
                Err(error) if !error.is_unsupported() => return Err(error),
                Ok(Some(Some(found))) if found == id => {}
                _ => record.header.name = None,
            }
            entries.push(record.header.entry());
        }
    }
    entries.sort_by_key(|entry| entry.started);
    Ok(entries)
}

/// What is left of jobs: in cgroups, and of those that have records.
pub(crate) fn abandoned_jobs() -> Result<Vec<AbandonedJob>> {
    let mut leftovers = abandoned::list()?;
    for registry in Registry::all()? {
        for id in registry.ids()? {
            let record = match registry.record(&id) {
                Err(error) if !error.is_unsupported() => return Err(error),
                record => record.ok().flatten(),
            };
            if let Some(record) = record.filter(|record| !record.owner_alive()) {
                let members = record.members()?;
                let (place, kind) = (registry.path.join(id), AbandonedKind::Abandoned);
                let stuck = stuck::why(&members);
                leftovers.push(AbandonedJob { place, processes: members.len(), kind, stuck });
            }
        }
    }
    Ok(leftovers)
}

/// Where this process' records go: made by the first of them.
pub(crate) fn runtime_dir() -> Result<PathBuf> {
    let path = place();
    match Registry::open(&path) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use std::{env, os::unix::ffi::OsStrExt as _, path::PathBuf};

    use super::*;
    use crate::{Mechanism, job::Enclosure};

    fn card() -> RecordHeader {
        let mut card = RecordHeader::new(
            "0123456789abcdef-7".into(),
            Mechanism::Cgroup,
            Enclosure::Caller,
            None,
        )
        .unwrap();
        card.name = Some(Name::new("dev").unwrap());
        card.guards = Some([card.owner, card.owner]);
        card.base = Some(OsStr::from_bytes(b"/sys/fs/cg\n roup%\xff").into());
        card
    }

    /// A card reads back as it was written and half a one is none.
    #[test]
    fn header_round_trips_and_a_partial_one_is_none() {
        let card = card();
        let text = card.text();
        assert_eq!(RecordHeader::parse(&card.id, &text), Some(card.clone()));
        assert_eq!(RecordHeader::parse(&card.id, text.split_at(40).0), None);
        assert_eq!(RecordHeader::parse(&card.id, ""), None);
    }

    /// A record of another version is listed while its owner lives, and everything else with it is an error
    /// that says which side is older.
    #[test]
    fn a_record_of_another_format_is_left_alone() {
        let dir = tempdir();
        let registry = Registry::open(&dir).unwrap();
        let card = card();
        for (format, word) in [(header::FORMAT + 1, "a newer"), (0, "an older")] {
            let text = RecordHeader { format, ..card.clone() }.text();
            let beginning = format!("format {format}\nanything else\n");
            for text in [text, beginning] {
                std::fs::write(dir.join(&card.id), text).unwrap();
                let error = registry.record(&card.id).err().expect("a refusal");
                assert!(error.is_unsupported() && error.to_string().contains(word), "{error}");
                assert!(error.hint().is_some_and(|hint| hint.contains("version")), "{error}");
            }
        }
        let text = RecordHeader { format: header::FORMAT + 1, ..card.clone() }.text();
        std::fs::write(dir.join(&card.id), text).unwrap();
        let seen = registry.record_of_any_format(&card.id).unwrap().expect("it is there");
        assert_eq!(seen.header.entry().mechanism, Mechanism::Cgroup);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_id_is_never_a_path_or_another_file_of_ours() {
        assert!(is_id(b"0123456789abcdef-1") && is_id(b"0123456789abcdef-4294967295"));
        for bad in ["", "-", "0123456789abcdef", "0123456789abcdef-", "0123456789abcdeF-1"] {
            assert!(!is_id(bad.as_bytes()), "{bad}");
        }
        for bad in ["0123456789abcdef-1.new", "0123456789abcdef-1/x", "../3456789abcdef-1"] {
            assert!(!is_id(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn the_last_whole_note_counts() {
        let dir = tempdir();
        let record = Record::publish(&dir, card(), Some("first"), |_| Ok(())).unwrap();
        record.set_note("second\nline %").unwrap();
        rustix::io::write(&record.file, b"note thi").unwrap();
        assert_eq!(record.note().unwrap().as_deref(), Some("second\nline %"));
        record.remove();
        assert!(record.is_over());
        std::fs::remove_dir(&dir).unwrap();
    }

    /// A list removes names and files whose record does not exist, and no others.
    #[test]
    fn names_without_a_record_are_swept() {
        let dir = tempdir();
        let registry = Registry::open(&dir).unwrap();
        let record = Record::publish(&dir, card(), None, |_| Ok(())).unwrap();
        std::fs::write(dir.join("0123456789abcdef-7.socket"), "").unwrap();
        std::fs::write(dir.join("0123456789abcdef-8.socket"), "").unwrap();
        symlinkat("0123456789abcdef-8", &registry.dir, "=gone").unwrap();
        registry.sweep(&registry.files().unwrap());
        let mut files = registry.files().unwrap();
        files.retain(|file| file != "." && file != "..");
        files.sort();
        assert_eq!(files, ["0123456789abcdef-7", "0123456789abcdef-7.socket", "=dev"]);
        record.remove();
        std::fs::remove_dir_all(&dir).unwrap();
    }

    fn tempdir() -> PathBuf {
        let dir = env::temp_dir().join(format!("onejob-registry-{}", fresh_owner().unwrap()));
        Registry::create(&dir).unwrap();
        dir
    }
}
