//! Where else jobs can be made, if not below our own cgroup or not with the controllers that are
//! wanted: a leaf of our own, the root of the hierarchy, or a scope of systemd's.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustix::fs::{Access, AtFlags, Mode, OFlags};

use super::{
    location::{self, CgroupLocation},
    members,
    root::{self, read_text, write_text},
};
use crate::{
    Error, Resources, Result,
    sys::linux::{
        guard::client::Guards,
        nostd::{cgroup::abandoned::is_a_jobs, procfs::entries, syscall},
    },
};

/// A directory below which jobs can be made.
pub(crate) struct ParentCgroup {
    pub(crate) path: PathBuf,
    pub(crate) dir: OwnedFd,
}

impl ParentCgroup {
    /// Our own cgroup, if we may use it.
    pub(crate) fn current(place: &CgroupLocation) -> Result<ParentCgroup> {
        let path = place.path()?;
        Ok(ParentCgroup { dir: root::usable(&path)?, path })
    }

    /// Which limits jobs made here can have.
    ///
    /// A cgroup with members hands no controllers down ("no internal processes"), but for the root
    /// of the hierarchy, which shows no `cgroup.type`. So elsewhere it is what somebody has enabled
    /// before.
    pub(crate) fn limits(&self) -> Resources {
        limits_below(self.dir.as_fd())
    }

    /// Whether jobs made here can have these limits.
    pub(crate) fn provides(&self, wanted: Resources) -> bool {
        wanted.without(Resources::CPU_TIME).is_empty() || self.limits().contains(wanted)
    }

    /// Our own cgroup, once we have moved from it to a leaf below, with guards that we have already:
    /// allowed if it was handed over to us, and nobody else is there.
    pub(crate) fn move_self_to_leaf(
        self,
        wanted: Resources,
        guards: &[Arc<Guards>],
    ) -> Result<ParentCgroup> {
        const LEAF: &str = "leaf.onejob";
        let shown = self.path.display().to_string();
        if !is_delegated(self.dir.as_fd(), &self.path) {
            return Err(Error::unsupported(format!(
                "our cgroup {shown} was not handed over to us"
            )));
        }
        let all = read_text(self.dir.as_fd(), "cgroup.controllers").unwrap_or_default();
        let lacking = wanted.without(super::controllers::resources(&all).with(Resources::CPU_TIME));
        if !lacking.is_empty() || is_root(self.dir.as_fd()) {
            return Err(Error::unsupported(format!("a leaf below {shown} would not help")));
        }
        let guards: Vec<_> = guards.iter().flat_map(|guards| guards.live_ids()).collect();
        let is_ours =
            |pid: u32| pid == std::process::id() || guards.iter().any(|guard| guard.pid == pid);
        let listed = read_text(self.dir.as_fd(), "cgroup.procs")
            .map_err(|e| Error::os(format!("list the members of our cgroup {shown}"), e))?;
        let listed: Vec<u32> =
            listed.split_whitespace().map(|pid| pid.parse().unwrap_or(0)).collect();
        if !listed.iter().all(|pid| is_ours(*pid)) {
            return Err(Error::unsupported(format!("others are in our cgroup {shown}, too"))
                .with_hint("a process that is alone in its cgroup can make room for itself"));
        }
        let moved = || -> io::Result<()> {
            match rustix::fs::mkdirat(&self.dir, LEAF, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            let leaf = rustix::fs::openat(&self.dir, LEAF, flags, Mode::empty())?;
            for guard in guards.iter().filter(|guard| listed.contains(&guard.pid)) {
                // One that has died meanwhile is not needed there.
                let _ = members::adopt(leaf.as_fd(), guard);
            }
            write_text(leaf.as_fd(), "cgroup.procs", "0")
        };
        moved().map_err(|e| Error::os(format!("move this process to a leaf below {shown}"), e))?;
        Ok(self)
    }

    /// The root of the hierarchy: there members are no hindrance. For root, where no service manager
    /// thinks it its own.
    pub(crate) fn root() -> Result<ParentCgroup> {
        if !rustix::process::geteuid().is_root() || Path::new("/run/systemd/system").exists() {
            return Err(Error::unsupported("the root of the hierarchy is not ours"));
        }
        let root = location::root()?;
        Ok(ParentCgroup { dir: root::usable(&root)?, path: root })
    }
}

/// Whether it is the root of what we see (a container's), or its service manager says so
/// (systemd.resource-control(5), "Delegate=").
fn is_delegated(dir: BorrowedFd<'_>, path: &Path) -> bool {
    let said = |name: &str| {
        let mut value = [0_u8; 8];
        rustix::fs::fgetxattr(dir, name, &mut value).is_ok_and(|len| value[..len] == *b"1")
    };
    let is_cgroup = |above: &Path| above.join("cgroup.procs").try_exists();
    let is_top = path.parent().is_none_or(|above| matches!(is_cgroup(above), Ok(false)));
    is_top || said("user.delegate") || said("trusted.delegate")
}

/// The root of the whole hierarchy.
fn is_root(dir: BorrowedFd<'_>) -> bool {
    let looked = rustix::fs::accessat(dir, "cgroup.type", Access::EXISTS, AtFlags::empty());
    matches!(looked, Err(rustix::io::Errno::NOENT))
}

/// Whether cgroups here can be killed as one, without which no kill of a job in a cgroup would be
/// atomic. The root of the hierarchy never has the file: any cgroup below it tells, or the release.
pub(crate) fn has_kill(dir: BorrowedFd<'_>) -> bool {
    // It is asked once: there may be many below.
    static BELOW_ROOT: OnceLock<bool> = OnceLock::new();
    let told = || a_mount_option_says(dir).unwrap_or_else(|| syscall::is_release(5, 14));
    has(dir, "cgroup.kill") || is_root(dir) && *BELOW_ROOT.get_or_init(told)
}

fn has(dir: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::accessat(dir, name, Access::EXISTS, AtFlags::empty()).is_ok()
}

/// Whether there is `cgroup.kill` below the root; `None` if nobody can tell.
fn a_mount_option_says(root: BorrowedFd<'_>) -> Option<bool> {
    let mut names = Vec::new();
    let listing = syscall::openat(root.as_raw_fd(), c".", syscall::O_DIRECTORY).ok()?;
    entries(&listing, &mut |name, is_dir| {
        // A few will do: not all of them are being removed.
        if is_dir && names.len() < 16 && !name.to_bytes().starts_with(b".") {
            names.push(name.to_owned());
        }
    })
    .ok()?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    names.iter().find_map(|name| {
        let dir = rustix::fs::openat(root, name, flags, Mode::empty()).ok()?;
        let kill = has(dir.as_fd(), "cgroup.kill");
        // One that is being removed has no files any more, and tells nothing.
        (kill || has(dir.as_fd(), "cgroup.procs")).then_some(kill)
    })
}

/// Whether our own cgroup says that nobody's can be killed as one.
pub(crate) fn missing_cgroup_kill(place: &CgroupLocation) -> bool {
    let own = place.path().ok().and_then(|path| root::open_base(&path).ok());
    own.is_some_and(|own| !has_kill(own.as_fd()))
}

/// Whether our own cgroup holds threads of processes that are accounted above it: no other cgroup is
/// below the same limits.
pub(crate) fn is_threaded(place: &CgroupLocation) -> bool {
    let own = place.path().ok().and_then(|path| root::open_base(&path).ok());
    let kind = own.and_then(|own| read_text(own.as_fd(), "cgroup.type").ok());
    kind.is_some_and(|kind| kind.contains("threaded"))
}

/// Whether controllers can be handed down from here. With members the kernel lets `cpu` and `pids` be
/// enabled all the same, which makes the cgroup a threaded one, below which there can be no jobs.
pub(crate) fn is_free(dir: BorrowedFd<'_>) -> bool {
    is_root(dir) || read_text(dir, "cgroup.procs").is_ok_and(|procs| procs.trim().is_empty())
}

/// See [`Ground::limits`].
pub(crate) fn limits_below(dir: BorrowedFd<'_>) -> Resources {
    let control = "cgroup.subtree_control";
    let is_ours = rustix::fs::accessat(dir, control, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    let file = if is_ours && is_free(dir) { "cgroup.controllers" } else { control };
    let controllers = read_text(dir, file).unwrap_or_default();
    super::controllers::resources(&controllers).with(Resources::CPU_TIME)
}

/// Whether we are a member of somebody's job: who is may not leave it, not even by way of systemd.
pub(crate) fn is_in_a_job(place: &CgroupLocation) -> bool {
    // Where that cannot be read, nothing is left.
    place.name().map_or(true, |name| name.split('/').any(|part| is_a_jobs(part.as_bytes())))
}
