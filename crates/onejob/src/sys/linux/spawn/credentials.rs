//! The attributes that a process inherits from its parent: a child of a guard has those of the guard.

use std::{ffi::CStr, io, os::fd::AsRawFd};

use rustix::fs::{Mode, OFlags};

use super::attributes::{Attributes, Changed};
use crate::{
    Error, Result,
    sys::linux::{
        file::read_proc,
        nostd::{
            exec::Limit,
            syscall::{
                self, Errno,
                raw::{nr, syscall},
            },
        },
    },
};

/// Attributes in which a child must equal a child of this process, and which no request can set.
pub(super) struct Credentials {
    /// Users, groups, capabilities and seccomp, as `/proc/thread-self/status` shows them.
    credentials: String,
    /// The targets of the links in `/proc/thread-self/ns`.
    namespaces: String,
    session: i32,
    root: (u64, u64),
    /// `None` for another process.
    secure_bits: Option<usize>,
    attributes: Attributes,
}

/// The attributes of a child of this process that a child of a guard gets by its request.
pub(super) struct Inherited {
    pub(super) umask: i32,
    /// The process group to join; 0 for a new one.
    pub(super) group: Option<i32>,
    /// The signals that this process ignores, signal 1 in the lowest bit.
    pub(super) ignored: u64,
    /// Scheduling and memory settings in which this process differs from the guard.
    pub(super) attributes: Changed,
}

impl Credentials {
    /// Those of the process called `entry` in `/proc`, with the number `pid` (0: the calling thread); and
    /// what else of the same file a child inherits.
    pub(super) fn read(entry: &str, pid: i32) -> Result<(Credentials, Inherited)> {
        let failed = |e: io::Error| Error::os(format!("read the credentials in /proc/{entry}"), e);
        let status = read_proc(&format!("/proc/{entry}/status")).map_err(failed)?;
        let status = Status::parse(&status).map_err(failed)?;
        let inherited = Inherited {
            umask: status.umask,
            // A group from outside of this PID namespace has no number; the guard is in it, too.
            group: Some(syscall::own_group()).filter(|group| *group != 0),
            ignored: status.ignored,
            attributes: Changed::default(),
        };
        // `/` is the root directory of the calling thread.
        let root = if pid == 0 { "/".to_owned() } else { format!("/proc/{entry}/root") };
        let root = rustix::fs::stat(root).map_err(|e| failed(e.into()))?;
        let credentials = Credentials {
            namespaces: namespaces(entry).map_err(failed)?,
            session: syscall::session_of(pid),
            root: (root.st_dev, root.st_ino),
            secure_bits: (pid == 0).then(secure_bits).flatten(),
            attributes: Attributes::read(entry, pid, status.cpus, status.has_huge_pages),
            credentials: status.credentials,
        };
        Ok((credentials, inherited))
    }

    /// The name of a credential in which this differs from the guard. The session does not count for a
    /// process from another session.
    pub(super) fn difference(
        &self,
        guard: &Credentials,
        from_another_session: bool,
    ) -> Option<&'static str> {
        let secure_bits = self.secure_bits.zip(guard.secure_bits);
        let differences = [
            (
                self.credentials != guard.credentials,
                "user, groups, capabilities, seccomp filters or speculation control",
            ),
            (secure_bits.is_some_and(|(now, guard)| now != guard), "secure bits"),
            (self.namespaces != guard.namespaces, "namespaces"),
            (self.session != guard.session && !from_another_session, "session"),
            (self.root != guard.root, "root directory"),
        ];
        differences.into_iter().find_map(|(differs, what)| differs.then_some(what))
    }

    /// The scheduling and memory settings that a child of the guard must be given.
    pub(super) fn attributes_changed_from(&self, guard: &Credentials) -> Result<Changed> {
        if !self.attributes.can_fork() {
            let again = io::Error::from_raw_os_error(Errno::AGAIN.0);
            return Err(Error::os("start a process from a SCHED_DEADLINE thread", again));
        }
        Ok(self.attributes.changed_from(&guard.attributes))
    }
}

/// The lines of `/proc/PID/status` that matter here.
struct Status<'a> {
    credentials: String,
    umask: i32,
    ignored: u64,
    cpus: &'a str,
    has_huge_pages: Option<bool>,
}

impl Status<'_> {
    fn parse(status: &str) -> io::Result<Status<'_>> {
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
        let mut credentials = String::with_capacity(512);
        let (mut umask, mut ignored) = (None, None);
        let (mut cpus, mut has_huge_pages) = ("", None);
        for line in status.split_inclusive('\n') {
            let Some((word, value)) = line.split_once(':') else { continue };
            match word {
                "Umask" => umask = i32::from_str_radix(value.trim(), 8).ok(),
                "SigIgn" => ignored = u64::from_str_radix(value.trim(), 16).ok(),
                "Cpus_allowed" => cpus = value,
                "THP_enabled" => has_huge_pages = Some(value.trim() == "1"),
                word if WORDS.contains(&word) => credentials.push_str(line),
                _ => {}
            }
        }
        let (Some(umask), Some(ignored)) = (umask, ignored) else {
            return Err(io::Error::other("the file has no line Umask or no line SigIgn"));
        };
        Ok(Status { credentials, umask, ignored, cpus, has_huge_pages })
    }
}

/// The namespaces of the children of a process, by the targets of their links.
fn namespaces(entry: &str) -> io::Result<String> {
    const NAMES: [&CStr; 8] = [
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
    let dir = rustix::fs::open(format!("/proc/{entry}/ns"), flags, Mode::empty())?;
    let mut all = String::with_capacity(256);
    for name in NAMES {
        let mut link = [0; 64];
        let len = match syscall::readlinkat(dir.as_raw_fd(), name, &mut link) {
            // A kernel can be built without some of them.
            Err(Errno::NOENT) => 0,
            read => read?,
        };
        all.push_str(&String::from_utf8_lossy(&link[..len]));
        all.push(' ');
    }
    Ok(all)
}

/// Of the calling thread (`PR_GET_SECUREBITS(2const)`); `None` where a seccomp filter refuses the call.
fn secure_bits() -> Option<usize> {
    const PR_GET_SECUREBITS: usize = 27;
    // SAFETY: this prctl takes no argument and writes no memory.
    unsafe { syscall(nr::PRCTL, [PR_GET_SECUREBITS, 0, 0, 0, 0, 0]) }.ok()
}

/// The resource limits of a process (0: this one) that can be read.
pub(super) fn resource_limits(pid: i32) -> Vec<Limit> {
    let read = |resource| {
        let values = syscall::get_rlimit(pid, resource).ok()?;
        Some(Limit { resource, values })
    };
    (0..16).filter_map(read).collect()
}
