//! The cgroup v2 operations that the sandbox and the helpers need, written without onejob.

use std::{
    collections::BTreeSet,
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The directory of the cgroup (v2) of the calling process, if v2 is mounted.
pub fn own() -> Option<PathBuf> {
    of("self")
}

/// The directory of the cgroup of another process.
pub fn of(process: impl Display) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (root, mount) = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(3);
        right.starts_with("cgroup2 ").then(|| Some((fields.next()?, fields.next()?)))?
    })?;
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // A mount can show only a part of the hierarchy.
    let below = if root == "/" { path } else { path.strip_prefix(root)? };
    Some(Path::new(mount).join(below.trim_start_matches('/')))
}

/// Whether cgroup v1 hierarchies are mounted. They hold controllers that v2 then lacks.
pub fn controllers_are_elsewhere() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.contains(" - cgroup ")
}

/// Calls a function with a temporary cgroup below that of this process.
///
/// # Errors
/// If the host has no cgroup v2, or this process may not make a cgroup.
pub fn in_a_fresh_one<T>(look: impl FnOnce(&Path) -> T) -> io::Result<T> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let own = own().ok_or(io::ErrorKind::NotFound)?;
    let probe = own.join(format!("testkit-{}-probe{number}", std::process::id()));
    fs::create_dir(&probe)?;
    let seen = look(&probe);
    fs::remove_dir(&probe)?;
    Ok(seen)
}

/// Whether the kernel has `cgroup.kill`. Returns true if this process may not make a cgroup: the
/// result is not used then.
pub fn can_be_killed() -> bool {
    in_a_fresh_one(|dir| dir.join("cgroup.kill").exists()).unwrap_or(true)
}

/// `dir` and every cgroup below it, children before parents. Without those whose path is longer than
/// the kernel accepts.
pub fn with_descendants(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut next) = (vec![dir.to_owned()], 0);
    while let Some(dir) = found.get(next) {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let below: Vec<_> = entries.filter(is_dir).map(|entry| entry.path()).collect();
        found.extend(below);
        next += 1;
    }
    found.reverse();
    found
}

/// The pids that the kernel lists in `dir` and below.
///
/// One walk can miss a process that moves to a new cgroup. So the walk is repeated, ten times at most, until
/// the cgroups before it and after it are the same.
pub fn pids(dir: &Path) -> Vec<i32> {
    const WALKS: usize = 10;
    let mut found = BTreeSet::new();
    let mut dirs = with_descendants(dir);
    for _ in 0..WALKS {
        let files = dirs.iter().map(|dir| fs::read_to_string(dir.join("cgroup.procs")));
        for text in files.flatten() {
            found.extend(text.lines().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        let now = with_descendants(dir);
        if now == dirs {
            break;
        }
        dirs = now;
    }
    found.into_iter().collect()
}

/// Kills all processes in `dir` or below. Callers repeat this until no process is left.
pub fn kill(dir: &Path) {
    let _ = fs::write(dir.join("cgroup.kill"), "1");
    // On Linux 6.18, cgroup.kill signals the leader thread only: if that thread is dead already, the
    // other threads of the process live on. A signal to the whole process reaches them.
    for pid in pids(dir).into_iter().filter_map(Pid::from_raw) {
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // Listed again while the pidfd is open: the pid still belongs to this process.
        if pids(dir).contains(&pid.as_raw_nonzero().get()) {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
}

/// Removes `dir` and the cgroups below; fails with `EBUSY` while a process is in one of them.
pub fn remove(dir: &Path) -> io::Result<()> {
    with_descendants(dir).iter().try_for_each(|dir| match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}
