//! The header of a record, as text.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::{
        fd::AsFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::stat;

use crate::{
    JobEntry, Mechanism, ProcessId, Result,
    name::Name,
    spec::Enclosure,
    sys::linux::{nostd::procfs::Proc, process::identity},
};

/// The version of the format. It changes if an older program would misread the text; a line that it can
/// ignore is not a change.
pub(super) const FORMAT: u32 = 1;

/// The contents of a record except the notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// The version of the format of its text.
    pub(crate) format: u32,
    pub(crate) id: String,
    pub(crate) name: Option<Name>,
    pub(crate) mechanism: Mechanism,
    pub(crate) around: Enclosure,
    pub(crate) owner: ProcessId,
    pub(crate) guards: Option<[ProcessId; 2]>,
    /// The PID namespace of the pids.
    pub(crate) pid_namespace: u64,
    /// The job root, if the job is in cgroups.
    pub(crate) base: Option<PathBuf>,
    /// Since the Unix epoch.
    pub(crate) started: Duration,
}

impl RecordHeader {
    /// For a job that this process makes now.
    pub(crate) fn new(
        id: String,
        mechanism: Mechanism,
        around: Enclosure,
        proc: Option<&Proc>,
    ) -> Result<RecordHeader> {
        let caller = identity::caller()?;
        Ok(RecordHeader {
            format: FORMAT,
            id,
            name: None,
            mechanism,
            around,
            owner: identity::of_pidfd(std::process::id(), caller.as_fd(), proc),
            guards: None,
            pid_namespace: pid_namespace(),
            base: None,
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        })
    }

    pub(crate) fn text(&self) -> String {
        let around = if self.around == Enclosure::Caller { "caller" } else { "others" };
        let mut text = format!(
            "format {}\nmechanism {}\naround {around}\nowner {}\npid-namespace {}\nstarted {}\n",
            self.format,
            self.mechanism,
            text_of(&self.owner),
            self.pid_namespace,
            self.started.as_nanos(),
        );
        if let Some(guards) = &self.guards {
            text += &guards_text(guards);
        }
        if let Some(base) = &self.base {
            text += &format!("below {}\n", escape(base.as_os_str().as_bytes()));
        }
        if let Some(name) = &self.name {
            text += &format!("name {name}\n");
        }
        text
    }

    /// A header of another version is parsed as far as a list needs it.
    pub(crate) fn parse(id: &str, text: &str) -> Option<RecordHeader> {
        let lines: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once(' ')).collect();
        let number = |key: &str| lines.get(key)?.parse::<u64>().ok();
        let process = |key: &str| process_of(lines.get(key)?);
        Some(RecordHeader {
            format: lines.get("format")?.parse().ok()?,
            id: id.to_owned(),
            name: lines.get("name").and_then(|name| Name::new(name).ok()),
            mechanism: lines.get("mechanism")?.parse().ok()?,
            around: match *lines.get("around")? {
                "caller" => Enclosure::Caller,
                _ => Enclosure::None,
            },
            owner: process("owner")?,
            guards: process("inner-guard").zip(process("outer-guard")).map(|(a, b)| [a, b]),
            pid_namespace: number("pid-namespace")?,
            base: lines.get("below").and_then(|path| Some(unescape(path)?.into())),
            started: Duration::from_nanos(number("started")?),
        })
    }

    /// The version of the format of a text.
    pub(super) fn format_of(text: &str) -> Option<u32> {
        text.lines().next()?.strip_prefix("format ")?.parse().ok()
    }

    /// The entry of a list, for a process in this PID namespace.
    pub(super) fn entry(&self, pid_namespace: u64) -> JobEntry {
        let mut entry = JobEntry::new(self.id.clone(), self.mechanism);
        entry.name = self.name.as_ref().map(|name| name.as_str().to_owned());
        entry.owner = (self.pid_namespace == pid_namespace).then_some(self.owner);
        entry.started = UNIX_EPOCH.checked_add(self.started);
        entry
    }
}

/// Whether a file name is an id: the digits of an owner, a dash and a number.
pub(super) fn is_id(text: &[u8]) -> bool {
    let Some((owner, [b'-', number @ ..])) = text.split_at_checked(16) else { return false };
    owner.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && (1..=10).contains(&number.len())
        && number.iter().all(u8::is_ascii_digit)
}

/// The inode of the PID namespace of this process.
pub(super) fn pid_namespace() -> u64 {
    stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino)
}

/// Any bytes as one line of plain text.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'%' | ..b' ' | b'\x7f'.. => text += &format!("%{byte:02x}"),
            plain => text.push(char::from(*plain)),
        }
    }
    text
}

pub(super) fn unescape(text: &str) -> Option<OsString> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    Some(OsStringExt::from_vec(bytes))
}

pub(super) fn guards_text([inner, outer]: &[ProcessId; 2]) -> String {
    format!("inner-guard {}\nouter-guard {}\n", text_of(inner), text_of(outer))
}

/// A process in one line.
pub(super) fn text_of(id: &ProcessId) -> String {
    format!("{} {} {} {}", id.pid, id.start, id.boot, id.inode)
}

pub(super) fn process_of(line: &str) -> Option<ProcessId> {
    let mut words = line.split(' ');
    Some(ProcessId {
        pid: words.next()?.parse().ok()?,
        start: words.next()?.parse().ok()?,
        boot: words.next()?.parse().ok()?,
        inode: words.next()?.parse().ok()?,
    })
}
