//! Whether a child of a guard would be what a child of ours would be.

use std::io;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::{floor::call, read_proc, spawn::Inherited};
use crate::{Error, Result};

/// What a child has from its parent without being told: a guard's child would have the guard's, as
/// they were when the guard was started.
#[derive(PartialEq, Eq)]
pub(super) struct Rights {
    /// Users, groups, capabilities and seccomp, as `/proc/thread-self/status` shows them.
    credentials: Vec<String>,
    namespaces: Vec<(&'static str, u64)>,
    session: i32,
    root: (u64, u64),
}

impl Rights {
    /// Ours, and what else a child is to get of ours that stands in the same file.
    pub(super) fn current() -> Result<(Rights, Inherited)> {
        Rights::read("thread-self", 0)
    }

    /// Those of another process.
    pub(super) fn of(pid: u32) -> Result<Rights> {
        Rights::read(&pid.to_string(), pid as i32).map(|(rights, _)| rights)
    }

    fn read(entry: &str, pid: i32) -> Result<(Rights, Inherited)> {
        let failed = |e: io::Error| Error::os(format!("read the credentials in /proc/{entry}"), e);
        const WORDS: [&str; 11] = [
            "Uid:",
            "Gid:",
            "Groups:",
            "CapInh:",
            "CapPrm:",
            "CapEff:",
            "CapBnd:",
            "CapAmb:",
            "NoNewPrivs:",
            "Seccomp:",
            "Seccomp_filters:",
        ];
        let status = read_proc(&format!("/proc/{entry}/status")).map_err(failed)?;
        let kept = status.lines().filter(|line| WORDS.iter().any(|word| line.starts_with(word)));
        let number = |word: &str, radix: u32| {
            let value = status.lines().find_map(|line| line.strip_prefix(word));
            let value = value.and_then(|value| u64::from_str_radix(value.trim(), radix).ok());
            value.ok_or_else(|| failed(io::Error::other(format!("/proc shows no {word}"))))
        };
        let inherited = Inherited {
            umask: number("Umask:", 8)? as i32,
            // A group from outside our PID namespace has no number; the guard is in it, too.
            group: Some(call::own_group()).filter(|group| *group != 0),
            ignored: number("SigIgn:", 16)?,
        };
        const NAMESPACES: [&str; 8] =
            ["cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts"];
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(format!("/proc/{entry}/ns"), flags, Mode::empty());
        let dir = dir.map_err(|e| failed(e.into()))?;
        let namespace = |name: &'static str| {
            let stat = rustix::fs::statat(&dir, name, AtFlags::empty());
            (name, stat.map_or(0, |stat| stat.st_ino))
        };
        let root = rustix::fs::stat(format!("/proc/{entry}/root")).map_err(|e| failed(e.into()))?;
        let rights = Rights {
            credentials: kept.map(str::to_owned).collect(),
            namespaces: NAMESPACES.into_iter().map(namespace).collect(),
            session: call::session_of(pid),
            root: (root.st_dev, root.st_ino),
        };
        Ok((rights, inherited))
    }

    /// Whether the guard's are still ours. From another session, a child of the guard's is in the
    /// guard's, and in a group of its own there.
    pub(super) fn check(&self, from_another_session: bool) -> Result<Inherited> {
        let (now, mut inherited) = Rights::current()?;
        if from_another_session {
            inherited.group = Some(0);
        }
        let changed = if now.credentials != self.credentials {
            "user, groups, capabilities or seccomp filters"
        } else if now.namespaces != self.namespaces {
            "namespaces"
        } else if now.session != self.session && !from_another_session {
            "session"
        } else if now.root != self.root {
            "root directory"
        } else {
            return Ok(inherited);
        };
        Err(Error::unsupported(format!(
            "this process has another {changed} than the guard of the job, which would start the child"
        ))
        .hint("make a new job"))
    }
}
