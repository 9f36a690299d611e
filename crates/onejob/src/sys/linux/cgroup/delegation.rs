//! The parent cgroup below which jobs are made: the cgroup of this process, that cgroup after this
//! process has moved to a leaf, or the root of the hierarchy.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustix::{
    fs::{Access, AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{
    adopt::adopt,
    controllers,
    dir::{
        each_child, find_cgroup, has_file, is_hierarchy_root, open_child, read_text, write_text,
    },
    location::{self, CgroupLocation},
};
use crate::{
    Error, Resources, Result,
    sys::linux::{guard::client::Guards, nostd::syscall},
};

/// A cgroup below which this process can make cgroups and move processes into them.
pub(crate) struct ParentCgroup {
    pub(crate) path: PathBuf,
    pub(crate) dir: OwnedFd,
}

impl ParentCgroup {
    /// The cgroup of this process.
    pub(crate) fn current(location: &CgroupLocation) -> Result<ParentCgroup> {
        ParentCgroup::open(location.path()?)
    }

    /// The root of the hierarchy, where members do not prevent controllers. Only for root, on a host
    /// without systemd, which manages the root itself.
    pub(crate) fn hierarchy_root() -> Result<ParentCgroup> {
        if !rustix::process::geteuid().is_root() || Path::new("/run/systemd/system").exists() {
            return Err(Error::unsupported(
                "only root can use the root of the cgroup hierarchy, and only without systemd",
            ));
        }
        ParentCgroup::open(location::hierarchy_root()?)
    }

    /// Opens a cgroup if this process can make cgroups below it and move processes into them.
    pub(crate) fn open(path: PathBuf) -> Result<ParentCgroup> {
        let shown = path.display();
        let refused = |why: &str, hint: &str| {
            Err(Error::unsupported(format!("the cgroup {shown} {why}")).with_hint(hint.to_owned()))
        };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|e| Error::os(format!("open the cgroup {shown}"), e))?;
        // First, because without it no other cgroup can be used either.
        if !has_cgroup_kill(dir.as_fd()) {
            return refused("has no cgroup.kill", "cgroup.kill needs Linux 5.14");
        }
        // To move a process into a child, cgroup.procs of the parent must be writable, too.
        for name in [".", "cgroup.procs"] {
            match rustix::fs::accessat(&dir, name, Access::WRITE_OK, AtFlags::EACCESS) {
                Ok(()) => {}
                Err(Errno::ROFS) => {
                    return refused(
                        "is mounted read-only",
                        "let the container write to its cgroup",
                    );
                }
                Err(Errno::NOENT) => {
                    return refused(
                        "is hidden: another file system is mounted over it",
                        "mount one: mount -t cgroup2 none /sys/fs/cgroup",
                    );
                }
                Err(_) => {
                    return refused(
                        "is not writable",
                        "run as root or in a delegated cgroup, for example with \
                         systemd-run --user --scope -p Delegate=yes",
                    );
                }
            }
        }
        let kind = match read_text(dir.as_fd(), "cgroup.type") {
            // The root of the hierarchy has no such file.
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            kind => {
                kind.map_err(|e| Error::os(format!("read the type of the cgroup {shown}"), e))?
            }
        };
        if !matches!(kind.trim(), "" | "domain") {
            return refused(
                "is threaded and cannot have children with processes",
                "use another cgroup",
            );
        }
        Ok(ParentCgroup { path, dir })
    }

    /// The limits that jobs made here can have.
    pub(crate) fn limits(&self) -> Resources {
        possible_limits(self.dir.as_fd())
    }

    /// Whether jobs made here can have these limits.
    pub(crate) fn provides(&self, wanted: Resources) -> bool {
        wanted.without(Resources::CPU_TIME).is_empty() || self.limits().contains(wanted)
    }

    /// Moves this process and its guards to a leaf below, so that controllers can be enabled here. The
    /// cgroup must be delegated and must not have other members.
    pub(crate) fn move_self_to_leaf(
        self,
        wanted: Resources,
        guards: &[Arc<Guards>],
    ) -> Result<ParentCgroup> {
        let shown = self.path.display().to_string();
        if !is_delegated(self.dir.as_fd(), &self.path) {
            return Err(Error::unsupported(format!(
                "the cgroup {shown} is not delegated to this process"
            )));
        }
        let all = read_text(self.dir.as_fd(), "cgroup.controllers").unwrap_or_default();
        let missing = wanted.without(controllers::resources(&all).with(Resources::CPU_TIME));
        if !missing.is_empty() || is_hierarchy_root(self.dir.as_fd()) {
            return Err(Error::unsupported(format!(
                "a leaf below {shown} would have no more controllers"
            )));
        }
        let guards: Vec<_> = guards.iter().flat_map(|guards| guards.live_ids()).collect();
        let is_own =
            |pid: u32| pid == std::process::id() || guards.iter().any(|guard| guard.pid == pid);
        let members = read_text(self.dir.as_fd(), "cgroup.procs")
            .map_err(|e| Error::os(format!("list the members of the cgroup {shown}"), e))?;
        let members: Vec<u32> =
            members.split_whitespace().map(|pid| pid.parse().unwrap_or(0)).collect();
        if !members.iter().all(|pid| is_own(*pid)) {
            return Err(Error::unsupported(format!("the cgroup {shown} has other members"))
                .with_hint("run this process alone in its cgroup"));
        }
        let moved = || -> io::Result<()> {
            const LEAF: &std::ffi::CStr = c"leaf.onejob";
            match rustix::fs::mkdirat(&self.dir, LEAF, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let leaf = open_child(self.dir.as_fd(), LEAF)?;
            for guard in guards.iter().filter(|guard| members.contains(&guard.pid)) {
                // A guard that has died meanwhile need not be moved.
                let _ = adopt(leaf.as_fd(), guard);
            }
            write_text(leaf.as_fd(), "cgroup.procs", "0")
        };
        moved().map_err(|e| Error::os(format!("move this process to a leaf below {shown}"), e))?;
        Ok(self)
    }
}

/// Whether it is the topmost cgroup that is visible (a container's), or the service manager has
/// delegated it (systemd.resource-control(5), "Delegate=").
fn is_delegated(dir: BorrowedFd<'_>, path: &Path) -> bool {
    let is_set = |name: &str| {
        let mut value = [0_u8; 8];
        rustix::fs::fgetxattr(dir, name, &mut value).is_ok_and(|len| value[..len] == *b"1")
    };
    let is_cgroup = |above: &Path| above.join("cgroup.procs").try_exists();
    let is_top = path.parent().is_none_or(|above| matches!(is_cgroup(above), Ok(false)));
    is_top || is_set("user.delegate") || is_set("trusted.delegate")
}

/// Whether cgroups have `cgroup.kill`, without which the kill of a job would not be atomic. The root of
/// the hierarchy never has the file: there a cgroup below decides, or the version of the kernel.
fn has_cgroup_kill(dir: BorrowedFd<'_>) -> bool {
    // Determined once, because there can be many cgroups below the root.
    static BELOW_ROOT: OnceLock<bool> = OnceLock::new();
    let found = || child_has_cgroup_kill(dir).unwrap_or_else(|| syscall::is_release(5, 14));
    has_file(dir, "cgroup.kill") || is_hierarchy_root(dir) && *BELOW_ROOT.get_or_init(found)
}

/// Whether a cgroup below the root has `cgroup.kill`; `None` if there is no cgroup to look at.
fn child_has_cgroup_kill(root: BorrowedFd<'_>) -> Option<bool> {
    let mut names = Vec::new();
    each_child(root, &mut |name| {
        // A few are enough: not all of them are being removed.
        if names.len() < 16 && !name.to_bytes().starts_with(b".") {
            names.push(name.to_owned());
        }
    })
    .ok()?;
    names.iter().find_map(|name| {
        let dir = open_child(root, name).ok()?;
        let has_kill = has_file(dir.as_fd(), "cgroup.kill");
        // A cgroup that is being removed has no files.
        (has_kill || has_file(dir.as_fd(), "cgroup.procs")).then_some(has_kill)
    })
}

/// Whether the cgroup of this process shows that no cgroup of this kernel has `cgroup.kill`.
pub(crate) fn lacks_cgroup_kill(location: &CgroupLocation) -> bool {
    open_current(location).is_some_and(|own| !has_cgroup_kill(own.as_fd()))
}

/// Whether the cgroup of this process holds threads of processes that are accounted above it. No other
/// cgroup has the same limits then.
pub(crate) fn is_threaded(location: &CgroupLocation) -> bool {
    let own = open_current(location);
    let kind = own.and_then(|own| read_text(own.as_fd(), "cgroup.type").ok());
    kind.is_some_and(|kind| kind.contains("threaded"))
}

fn open_current(location: &CgroupLocation) -> Option<OwnedFd> {
    location.path().ok().and_then(|path| find_cgroup(&path).ok()?)
}

/// Whether controllers can be enabled below this cgroup. With members the kernel enables `cpu` and
/// `pids` all the same, but makes the cgroup a threaded one, below which there can be no jobs.
pub(crate) fn has_no_members(dir: BorrowedFd<'_>) -> bool {
    is_hierarchy_root(dir)
        || read_text(dir, "cgroup.procs").is_ok_and(|procs| procs.trim().is_empty())
}

/// The limits that cgroups below this one can have, now or after controllers were enabled.
///
/// A cgroup with members cannot enable controllers ("no internal processes"), except the root of the
/// hierarchy. So in any other one only the controllers that are enabled already count.
pub(crate) fn possible_limits(dir: BorrowedFd<'_>) -> Resources {
    let control = "cgroup.subtree_control";
    let is_writable =
        rustix::fs::accessat(dir, control, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    match is_writable && has_no_members(dir) {
        true => controllers::limits_in(dir, "cgroup.controllers"),
        false => controllers::enabled_limits(dir),
    }
}
