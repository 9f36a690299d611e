//! The cgroup of a process, and the directory of that cgroup.

use std::{
    ffi::{OsStr, OsString},
    fmt::Display,
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::dir::open_cgroup;
use crate::{
    Error, Result,
    sys::linux::{
        file::read_proc_bytes,
        mounts::{self, Mount},
        nostd::{cgroup::abandoned::is_job_name, syscall},
        process::identity,
    },
};

/// The cgroup of a process.
pub(crate) struct CgroupLocation {
    /// The inode of its directory, which no other cgroup has; `None` before Linux 6.13.
    inode: Option<u64>,
    /// Its path from the root of the cgroup namespace of this process.
    name: OnceLock<OsString>,
    /// That namespace; `None` if it is not needed, because the inode is known.
    namespace: Option<u64>,
}

impl PartialEq for CgroupLocation {
    fn eq(&self, other: &CgroupLocation) -> bool {
        match (self.inode, other.inode) {
            (Some(inode), Some(of_other)) => inode == of_other,
            _ => {
                self.name.get().is_some()
                    && (&self.name, self.namespace) == (&other.name, other.namespace)
            }
        }
    }
}

/// The inode of the cgroup namespace of this process; 0 before Linux 4.6.
fn own_namespace() -> u64 {
    rustix::fs::stat("/proc/self/ns/cgroup").map_or(0, |stat| stat.st_ino)
}

impl CgroupLocation {
    /// The cgroup of this process. If the inode is known, the name is read when it is needed.
    pub(crate) fn current() -> Result<CgroupLocation> {
        let pidfd = identity::pidfd_open(std::process::id());
        let inode = pidfd.ok().and_then(|pidfd| syscall::cgroup_of(pidfd.as_raw_fd()));
        let namespace = inode.is_none().then(own_namespace);
        let location = CgroupLocation { inode, name: OnceLock::new(), namespace };
        if inode.is_none() {
            location.name()?;
        }
        Ok(location)
    }

    fn name_of(process: impl Display) -> Result<OsString> {
        let list = read_proc_bytes(&format!("/proc/{process}/cgroup"))
            .map_err(|e| no_proc(format!("find the cgroup of process {process}"), e))?;
        let name = list.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
        name.map(|name| OsStr::from_bytes(name).to_owned())
            .ok_or_else(|| Error::unsupported("this kernel has no cgroup v2"))
    }

    /// Whether this process is in the initial cgroup namespace, whose inode is fixed in the kernel.
    #[cfg(feature = "systemd")]
    pub(crate) fn is_in_initial_namespace() -> bool {
        const PROC_CGROUP_INIT_INO: u64 = 0xEFFF_FFFB;
        own_namespace() == PROC_CGROUP_INIT_INO
    }

    fn name(&self) -> Result<&OsStr> {
        if let Some(name) = self.name.get() {
            return Ok(name);
        }
        let name = CgroupLocation::name_of("self")?;
        Ok(self.name.get_or_init(|| name))
    }

    /// Whether the cgroup is in a job: a member must not leave its job, not even by way of systemd.
    /// Also if the name cannot be read.
    pub(crate) fn is_in_a_job(&self) -> bool {
        let is_a_job = |part: &[u8]| is_job_name(part);
        self.name().map_or(true, |name| name.as_bytes().split(|byte| *byte == b'/').any(is_a_job))
    }

    /// Its directory in a mounted file system. The usual places are tried first, because the list of
    /// mounts can be long.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        const USUAL: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let is_it = |path: &PathBuf| {
            let inode = |dir| rustix::fs::fstat(dir).ok().map(|stat| stat.st_ino);
            self.inode.is_some() && open_cgroup(path).ok().and_then(inode) == self.inode
        };
        let name = Path::new(self.name()?);
        let below = name.strip_prefix("/").unwrap_or(name);
        let mut usual = USUAL.iter().map(|root| match below.as_os_str().is_empty() {
            true => PathBuf::from(root),
            false => Path::new(root).join(below),
        });
        usual.find(is_it).map_or_else(|| find_mounted(name), Ok)
    }
}

/// The directory of the root of the hierarchy, as far as this process sees it.
pub(crate) fn hierarchy_root() -> Result<PathBuf> {
    find_mounted(Path::new("/"))
}

/// The directory of the cgroup of a process.
pub(crate) fn cgroup_of(process: impl Display) -> Result<PathBuf> {
    find_mounted(Path::new(&CgroupLocation::name_of(process)?))
}

/// The directory of the cgroup with this name, in the mounted file systems.
fn find_mounted(name: &Path) -> Result<PathBuf> {
    let shown = name.display();
    let mounts = mounts::all().map_err(|e| no_proc(format!("find the cgroup {shown}"), e))?;
    let mut cgroup2 = mounts.iter().filter(|mount: &&Mount| mount.is_cgroup2());
    cgroup2.find_map(|mount| mount.locate(name)).ok_or_else(|| {
        Error::unsupported(format!("no mounted cgroup v2 file system shows the cgroup {shown}"))
            .with_hint("mount one: mount -t cgroup2 none /sys/fs/cgroup")
    })
}

fn no_proc(what: String, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::unsupported("/proc is not mounted")
            .with_hint("mount it: mount -t proc proc /proc"),
        _ => Error::os(what, error),
    }
}
