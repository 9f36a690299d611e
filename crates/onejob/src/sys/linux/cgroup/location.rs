//! Where a process is in the hierarchy, and where that is mounted.

use std::{
    fmt::Display,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::root::open_base;
use crate::{
    Error, Result,
    sys::linux::{file::read_proc, nostd::syscall, process::identity},
};

/// The cgroup of a process.
pub(crate) struct CgroupLocation {
    /// What tells it from every other cgroup, where the kernel says that (Linux 6.13): the inode of its
    /// directory.
    number: Option<u64>,
    /// As the process names it: a path that counts from the root of a cgroup namespace, …
    name: OnceLock<String>,
    /// … of this one. Not read where there is a number.
    namespace: Option<u64>,
}

impl PartialEq for CgroupLocation {
    fn eq(&self, other: &CgroupLocation) -> bool {
        match (self.number, other.number) {
            (Some(ours), Some(its)) => ours == its,
            _ => {
                self.name.get().is_some()
                    && (&self.name, self.namespace) == (&other.name, other.namespace)
            }
        }
    }
}

/// The inode of our cgroup namespace; 0 before there were any.
fn own_namespace() -> u64 {
    rustix::fs::stat("/proc/self/ns/cgroup").map_or(0, |stat| stat.st_ino)
}

impl CgroupLocation {
    /// Where this process is. Its name is read when it is asked for, if the number is known.
    pub(crate) fn current() -> Result<CgroupLocation> {
        let pidfd = identity::pidfd_open(std::process::id());
        let number = pidfd.ok().and_then(|pidfd| syscall::cgroup_of(pidfd.as_raw_fd()));
        let namespace = number.is_none().then(own_namespace);
        let place = CgroupLocation { number, name: OnceLock::new(), namespace };
        if number.is_none() {
            place.name()?;
        }
        Ok(place)
    }

    fn name_of(process: impl Display) -> Result<String> {
        let cgroups = read_proc(&format!("/proc/{process}/cgroup"))
            .map_err(|e| no_proc(format!("find the cgroup of process {process}"), e))?;
        let name = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
        name.map(str::to_owned).ok_or_else(|| Error::unsupported("this kernel has no cgroup v2"))
    }

    /// The one that the system was started with: the kernel gave it this number for good.
    #[cfg(feature = "systemd")]
    pub(crate) fn is_in_initial_namespace() -> bool {
        const FIRST: u64 = 0xEFFF_FFFB;
        own_namespace() == FIRST
    }

    pub(crate) fn name(&self) -> Result<&str> {
        if let Some(name) = self.name.get() {
            return Ok(name);
        }
        let name = CgroupLocation::name_of("self")?;
        Ok(self.name.get_or_init(|| name))
    }

    /// Its directory in a mounted file system: in the usual place, if it is there, for a list of mounts
    /// can be long.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        const USUAL: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let is_it = |path: &PathBuf| {
            let inode = |dir| rustix::fs::fstat(dir).ok().map(|stat| stat.st_ino);
            self.number.is_some() && open_base(path).ok().and_then(inode) == self.number
        };
        let name = self.name()?;
        let below = name.trim_start_matches('/');
        let mut usual = USUAL.iter().map(|root| match below {
            "" => PathBuf::from(root),
            _ => Path::new(root).join(below),
        });
        usual.find(is_it).map_or_else(|| mounted(name), Ok)
    }
}

/// The directory of the root of the hierarchy, as far as we see it.
pub(crate) fn root() -> Result<PathBuf> {
    mounted("/")
}

/// The directory of a cgroup of this name.
fn mounted(name: &str) -> Result<PathBuf> {
    let mounts = read_proc("/proc/self/mountinfo")
        .map_err(|e| no_proc(format!("find the cgroup {name}"), e))?;
    locate(Path::new(name), &mounts).ok_or_else(|| {
        Error::unsupported(format!("no cgroup v2 file system that shows {name} is mounted"))
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

/// The directory of the cgroup a process is in.
pub(crate) fn cgroup_of(process: impl Display) -> Result<PathBuf> {
    mounted(&CgroupLocation::name_of(process)?)
}

/// The place of a cgroup in the mounted file systems (`proc_pid_mountinfo(5)`).
pub(crate) fn locate(own: &Path, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        if kind.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = place.split(' ').skip(3);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        let below = own.strip_prefix(&root).ok()?;
        Some(if below.as_os_str().is_empty() {
            point.into()
        } else {
            Path::new(&point).join(below)
        })
    })
}

/// Spaces and the like stand there as octal numbers.
fn unescape(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 30 0:23 / /sys/fs/cgroup ro - tmpfs tmpfs ro
26 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
27 25 0:25 / /sys/fs/cgroup/uni\\040fied rw shared:9 - cgroup2 cgroup2 rw
";

    #[test]
    fn our_cgroup_is_found_below_its_mount() {
        let at = |own: &str| locate(Path::new(own), MOUNTS);
        assert_eq!(at("/"), Some("/sys/fs/cgroup/uni fied".into()));
        assert_eq!(at("/a/b"), Some("/sys/fs/cgroup/uni fied/a/b".into()));
    }

    #[test]
    fn a_bind_mount_of_a_part_shows_only_that_part() {
        let mounts = "27 25 0:25 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(locate(Path::new("/docker/x/y"), mounts), Some("/sys/fs/cgroup/y".into()));
        assert_eq!(locate(Path::new("/other"), mounts), None);
    }
}
