//! The user's runtime directory: a record for each job that other processes can find.
//!
//! The kernel knows the members, and which processes live. A record holds the rest: the id and the name of
//! the job, its owner and guards, and the place of its cgroups. The owner locks the record as long as it
//! lives. A process that finds a record without a lock ends what is left of the job and removes the record.
//! The names of the files are described in [`registry`](super::nostd::guard::registry).

mod directory;
mod frozen_list;
mod guard_socket;
mod header;
mod list;
mod names;
mod publish;
mod record;
pub(crate) mod version;
mod watch;

use crate::{Error, Result};

pub(crate) use directory::{place, runtime_dir};
pub(crate) use header::RecordHeader;
pub(crate) use list::{abandoned_jobs, jobs};
pub(crate) use names::{find, missing};
pub(crate) use record::Record;
pub(crate) use watch::RecordWatch;

/// How the ids of the jobs of a new owner begin.
pub(crate) fn fresh_owner() -> Result<String> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::os("get a random number", e))?;
    Ok(format!("{:016x}-", u64::from_ne_bytes(random)))
}

#[cfg(test)]
mod tests {
    use std::{env, ffi::OsStr, os::unix::ffi::OsStrExt as _, path::PathBuf, sync::Arc};

    use super::{
        directory::Registry,
        header::{FORMAT, is_id},
        *,
    };
    use crate::{Mechanism, name::Name, spec::Enclosure};

    fn header() -> RecordHeader {
        let mut header = RecordHeader::new(
            "0123456789abcdef-7".into(),
            Mechanism::Cgroup,
            Enclosure::Caller,
            None,
        )
        .unwrap();
        header.name = Some(Name::new("dev").unwrap());
        header.guards = Some([header.owner, header.owner]);
        header.base = Some(OsStr::from_bytes(b"/sys/fs/cg\n roup%\xff").into());
        header
    }

    /// A header reads back as it was written, and a part of one is refused.
    #[test]
    fn header_round_trips_and_a_partial_one_is_none() {
        let header = header();
        let text = header.text();
        assert_eq!(RecordHeader::parse(&header.id, &text), Some(header.clone()));
        assert_eq!(RecordHeader::parse(&header.id, text.split_at(40).0), None);
        assert_eq!(RecordHeader::parse(&header.id, ""), None);
    }

    /// A record of another version is listed while its owner lives, and everything else with it is an error
    /// that says which side is older.
    #[test]
    fn a_record_of_another_format_is_left_alone() {
        let dir = tempdir();
        let registry = Arc::new(Registry::open(&dir).unwrap());
        let header = header();
        for (format, word) in [(FORMAT + 1, "a newer"), (0, "an older")] {
            let text = RecordHeader { format, ..header.clone() }.text();
            let beginning = format!("format {format}\nanything else\n");
            for text in [text, beginning] {
                std::fs::write(dir.join(&header.id), text).unwrap();
                let error = Record::find(&registry, &header.id).err().expect("a refusal");
                assert!(error.is_unsupported() && error.to_string().contains(word), "{error}");
                assert!(error.hint().is_some_and(|hint| hint.contains("version")), "{error}");
            }
        }
        let text = RecordHeader { format: FORMAT + 1, ..header.clone() }.text();
        std::fs::write(dir.join(&header.id), text).unwrap();
        let seen = Record::find_any_format(&registry, &header.id).unwrap().expect("it is there");
        assert_eq!(seen.header.entry(0).mechanism, Mechanism::Cgroup);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_id_is_never_a_path_or_another_file() {
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
        let record = Record::publish(&dir, header(), Some("first"), |_| Ok(())).unwrap();
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
        let record = Record::publish(&dir, header(), None, |_| Ok(())).unwrap();
        std::fs::write(dir.join("0123456789abcdef-7.socket"), "").unwrap();
        std::fs::write(dir.join("0123456789abcdef-8.socket"), "").unwrap();
        rustix::fs::symlinkat("0123456789abcdef-8", &registry.dir, "=gone").unwrap();
        let names = registry.remove_orphaned_files(&registry.files().unwrap());
        assert_eq!(names, [(Name::new("dev").unwrap(), record.id().to_owned())].into());
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
