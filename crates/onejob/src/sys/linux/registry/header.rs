//! What a record says, as text.

use std::{
    collections::BTreeMap,
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
    job::Enclosure,
    name::Name,
    sys::linux::{nostd::procfs::Proc, process::identity},
};

/// The format of a record's text. It changes with whatever an older program would misread; a line that it
/// can do without is no change.
pub(super) const FORMAT: u32 = 1;

/// What a record says besides notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// The format that its text had.
    pub(crate) format: u32,
    pub(crate) id: String,
    pub(crate) name: Option<Name>,
    pub(crate) mechanism: Mechanism,
    pub(crate) around: Enclosure,
    pub(crate) owner: ProcessId,
    pub(crate) guards: Option<[ProcessId; 2]>,
    /// In which the numbers of processes count.
    pub(crate) pid_namespace: u64,
    /// Below which the cgroups of the job lie.
    pub(crate) base: Option<PathBuf>,
    /// Since the Unix epoch.
    pub(crate) started: Duration,
}

impl RecordHeader {
    /// For a job of this process that begins now.
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

    /// One of another format may read back as well: enough to be listed.
    pub(crate) fn parse(id: &str, text: &str) -> Option<RecordHeader> {
        let said: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once(' ')).collect();
        let number = |key: &str| said.get(key)?.parse::<u64>().ok();
        let process = |key: &str| process_of(said.get(key)?);
        Some(RecordHeader {
            format: said.get("format")?.parse().ok()?,
            id: id.to_owned(),
            name: said.get("name").and_then(|name| Name::new(name).ok()),
            mechanism: said.get("mechanism")?.parse().ok()?,
            around: match *said.get("around")? {
                "caller" => Enclosure::Caller,
                _ => Enclosure::None,
            },
            owner: process("owner")?,
            guards: process("inner-guard").zip(process("outer-guard")).map(|(a, b)| [a, b]),
            pid_namespace: number("pid-namespace")?,
            base: said.get("below").and_then(|path| Some(unescape(path)?.into())),
            started: Duration::from_nanos(number("started")?),
        })
    }

    /// The format that a text says it has, whatever else it says.
    pub(super) fn format_of(text: &str) -> Option<u32> {
        text.lines().next()?.strip_prefix("format ")?.parse().ok()
    }

    pub(super) fn entry(self) -> JobEntry {
        JobEntry {
            id: self.id,
            name: self.name.map(|name| name.as_str().to_owned()),
            mechanism: self.mechanism,
            owner: (self.pid_namespace == pid_namespace()).then_some(self.owner),
            started: UNIX_EPOCH.checked_add(self.started),
        }
    }
}

pub(super) fn pid_namespace() -> u64 {
    stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino)
}

/// One line of plain text for any bytes.
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

pub(super) fn unescape(text: &str) -> Option<std::ffi::OsString> {
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
