//! The few operations on cgroup v2 that the judge and the actors need, written without onejob.

use std::{
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The directory of the cgroup (v2) that the calling process is in, if v2 is mounted here.
pub fn own() -> Option<PathBuf> {
    of("self")
}

/// The same of another process.
pub fn of(process: impl Display) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (root, mount) = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(3);
        right.starts_with("cgroup2 ").then(|| Some((fields.next()?, fields.next()?)))?
    })?;
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // A mount can show a part of the hierarchy only.
    let below = if root == "/" { path } else { path.strip_prefix(root)? };
    Some(Path::new(mount).join(below.trim_start_matches('/')))
}

/// Whether there are hierarchies of version 1, which hold the controllers that ours then lacks.
pub fn controllers_are_elsewhere() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.contains(" - cgroup ")
}

/// Looks at a cgroup below ours that is there only for this.
///
/// # Errors
/// There is no cgroup v2, or we may not make one.
pub fn in_a_fresh_one<T>(look: impl FnOnce(&Path) -> T) -> io::Result<T> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let own = own().ok_or(io::ErrorKind::NotFound)?;
    let probe = own.join(format!("testcell-{}-probe{number}", std::process::id()));
    fs::create_dir(&probe)?;
    let seen = look(&probe);
    fs::remove_dir(&probe)?;
    Ok(seen)
}

/// Whether the kernel can kill a cgroup as one. Says yes where we may make none, and nobody asks.
pub fn can_be_killed() -> bool {
    in_a_fresh_one(|dir| dir.join("cgroup.kill").exists()).unwrap_or(true)
}

/// `dir` and every cgroup below it, each before those that it is in. Not those whose path is longer than
/// the kernel takes.
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
pub fn pids(dir: &Path) -> Vec<i32> {
    let files =
        with_descendants(dir).into_iter().map(|dir| fs::read_to_string(dir.join("cgroup.procs")));
    files
        .flatten()
        .flat_map(|text| text.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Kills whoever is in `dir` or below. To be repeated until nobody is left.
pub fn kill(dir: &Path) {
    let _ = fs::write(dir.join("cgroup.kill"), "1");
    // Linux 6.18's cgroup.kill signals the leader thread alone: if that one is dead already, the
    // process' other threads live on. A signal to the process as a whole reaches them.
    for pid in pids(dir).into_iter().filter_map(Pid::from_raw) {
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // Listed again while held: the number has not become a stranger's.
        if pids(dir).contains(&pid.as_raw_nonzero().get()) {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
}

/// Removes `dir` and the cgroups below; fails with `EBUSY` while somebody lives there.
pub fn remove(dir: &Path) -> io::Result<()> {
    with_descendants(dir).iter().try_for_each(|dir| match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}
