//! Whether a child of a guard would be what a child of ours would be.

use std::{ffi::CStr, io, os::fd::AsRawFd};

use rustix::fs::{Mode, OFlags};

use super::{
    attributes::{Attributes, Changed},
    local::Inherited,
};
use crate::{
    Error, Result,
    sys::linux::{
        file::read_proc,
        nostd::syscall::{
            self, Errno,
            raw::{nr, syscall},
        },
    },
};

/// What a child has from its parent without being told: a guard's child would have the guard's, as
/// they were when the guard was started.
#[derive(PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Users, groups, capabilities and seccomp, as `/proc/thread-self/status` shows them.
    credentials: String,
    /// As the links in `/proc/thread-self/ns` name them.
    namespaces: String,
    session: i32,
    root: (u64, u64),
    /// Not those of another process.
    secure_bits: Option<usize>,
    attributes: Attributes,
}

impl Credentials {
    /// Ours, and what else a child is to get of ours that stands in the same file.
    pub(crate) fn current() -> Result<(Credentials, Inherited)> {
        Credentials::read("thread-self", 0)
    }

    /// Those of another process.
    pub(crate) fn of(pid: u32) -> Result<Credentials> {
        Credentials::read(&pid.to_string(), pid as i32).map(|(credentials, _)| credentials)
    }

    fn read(entry: &str, pid: i32) -> Result<(Credentials, Inherited)> {
        let failed = |e: io::Error| Error::os(format!("read the credentials in /proc/{entry}"), e);
        const WORDS: [&str; 13] = [
            "Uid",
            "Gid",
            "Groups",
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
            "Seccomp_filters",
            "Speculation_Store_Bypass",
            "SpeculationIndirectBranch",
        ];
        let status = read_proc(&format!("/proc/{entry}/status")).map_err(failed)?;
        let mut credentials = String::with_capacity(512);
        let (mut umask, mut ignored) = (None, None);
        let (mut cpus, mut has_huge_pages) = ("", None);
        for line in status.split_inclusive('\n') {
            let Some((word, value)) = line.split_once(':') else { continue };
            match word {
                "Umask" => umask = u64::from_str_radix(value.trim(), 8).ok(),
                "SigIgn" => ignored = u64::from_str_radix(value.trim(), 16).ok(),
                "Cpus_allowed" => cpus = value,
                "THP_enabled" => has_huge_pages = Some(value.trim() == "1"),
                word if WORDS.contains(&word) => credentials.push_str(line),
                _ => {}
            }
        }
        let (Some(umask), Some(ignored)) = (umask, ignored) else {
            return Err(failed(io::Error::other("/proc shows no Umask or no SigIgn")));
        };
        let inherited = Inherited {
            umask: umask as i32,
            // A group from outside our PID namespace has no number; the guard is in it, too.
            group: Some(syscall::own_group()).filter(|group| *group != 0),
            ignored,
            attributes: Changed::default(),
        };
        const NAMESPACES: [&CStr; 8] = [
            c"cgroup",
            c"ipc",
            c"mnt",
            c"net",
            c"pid_for_children",
            c"time_for_children",
            c"user",
            c"uts",
        ];
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(format!("/proc/{entry}/ns"), flags, Mode::empty());
        let dir = dir.map_err(|e| failed(e.into()))?;
        let mut namespaces = String::with_capacity(256);
        for name in NAMESPACES {
            let mut link = [0; 64];
            let len = match syscall::readlinkat(dir.as_raw_fd(), name, &mut link) {
                // A kernel may not have this one.
                Err(Errno::NOENT) => 0,
                read => read.map_err(|e| failed(e.into()))?,
            };
            namespaces.push_str(&String::from_utf8_lossy(&link[..len]));
            namespaces.push(' ');
        }
        // The calling thread's own is what it calls so.
        let root = if pid == 0 { "/".to_owned() } else { format!("/proc/{entry}/root") };
        let root = rustix::fs::stat(root).map_err(|e| failed(e.into()))?;
        let rights = Credentials {
            credentials,
            namespaces,
            session: syscall::session_of(pid),
            root: (root.st_dev, root.st_ino),
            secure_bits: (pid == 0).then(secure_bits).flatten(),
            attributes: Attributes::read(entry, pid, cpus, has_huge_pages),
        };
        Ok((rights, inherited))
    }

    /// Whether the guard's are still ours. From another session, a child of the guard's is in the
    /// guard's, and in a group of its own there.
    pub(crate) fn check(&self, from_another_session: bool) -> Result<Inherited> {
        let (now, mut inherited) = Credentials::current()?;
        if from_another_session {
            inherited.group = Some(0);
        }
        let changed = if now.credentials != self.credentials {
            "user, groups, capabilities, seccomp filters or speculation control"
        } else if is_other(now.secure_bits, self.secure_bits) {
            "secure bits"
        } else if now.namespaces != self.namespaces {
            "namespaces"
        } else if now.session != self.session && !from_another_session {
            "session"
        } else if now.root != self.root {
            "root directory"
        } else if !now.attributes.can_fork() {
            // As for any child of such a thread.
            let why = io::Error::from_raw_os_error(Errno::AGAIN.0);
            return Err(Error::os("start a process from a thread with a deadline", why));
        } else {
            inherited.attributes = now.attributes.changed_from(&self.attributes);
            return Ok(inherited);
        };
        Err(Credentials::differ(changed))
    }

    /// Why a guard's child would not be what a child of ours would be.
    pub(super) fn differ(what: &str) -> Error {
        Error::unsupported(format!(
            "this process has another {what} than the guard of the job, which would start the child"
        ))
        .with_hint("make a new job")
    }
}

fn is_other<T: PartialEq>(now: Option<T>, before: Option<T>) -> bool {
    now.zip(before).is_some_and(|(now, before)| now != before)
}

/// Of the calling thread (`PR_GET_SECUREBITS(2const)`); `None` where a seccomp filter refuses the call.
fn secure_bits() -> Option<usize> {
    const PR_GET_SECUREBITS: usize = 27;
    // SAFETY: takes no argument.
    unsafe { syscall(nr::PRCTL, [PR_GET_SECUREBITS, 0, 0, 0, 0, 0]) }.ok()
}
