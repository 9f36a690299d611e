//! Abandoned cgroups: the owner of the job and its guards are gone.
//!
//! An owner locks each of its cgroups. A cgroup that can be locked exclusively is abandoned; pids play
//! no part in it.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::Instant,
};

use rustix::fs::{FlockOperation, flock};

use super::{
    dir::{find_cgroup, has_attribute},
    location::CgroupLocation,
    members::Members,
    names::{NamedCgroup, cgroups_of, own_cgroups},
};
use crate::{
    AbandonedJob, AbandonedKind, Error, Process, Result,
    sys::linux::{
        deadline::milliseconds_until,
        nostd::{
            cgroup::{self as nostd_cgroup, RELEASED, State, abandoned},
            syscall,
        },
        process::stuck,
    },
};

/// The longest time for one abandoned cgroup without waiting, in microseconds.
const ONE_CGROUP: u64 = 20_000;

/// Kills and removes the abandoned cgroups below a job root as far as that takes no waiting. Returns
/// whether some are left.
pub(crate) fn end_without_waiting(job_root: BorrowedFd<'_>, owner_prefix: &str) -> bool {
    // In microseconds.
    const LONGEST: u64 = 500;
    let until = syscall::now() + LONGEST;
    let swept = abandoned::sweep(job_root.into(), owner_prefix.as_bytes(), false, until);
    swept.is_ok_and(|swept| swept.left)
}

/// The same in the scopes beside this one, whose owners and guards were killed together.
#[cfg(feature = "systemd")]
pub(crate) fn end_in_other_scopes(own: &Path) {
    let Some(slice) = own.parent().and_then(|slice| find_cgroup(slice).ok()?) else { return };
    let is_other = |name: &[u8]| {
        name.starts_with(super::names::PREFIX.as_bytes())
            && name.ends_with(b".scope")
            && !own.ends_with(OsStr::from_bytes(name))
    };
    for (_, dir) in own_cgroups(slice.as_fd(), &is_other).unwrap_or_default() {
        if is_abandoned(&dir) {
            // What is left is ended when the next scope is made.
            let until = syscall::now() + ONE_CGROUP;
            let _ = abandoned::sweep(dir.as_fd().into(), b"", false, until);
        }
    }
}

/// Ends the cgroups of a job whose owner and guards are dead, and waits for that until the deadline.
/// Returns whether none is left.
pub(crate) fn end_job(job_root: &Path, id: &str, deadline: Instant) -> bool {
    let job_root = match find_cgroup(job_root) {
        Ok(Some(job_root)) => job_root,
        Ok(None) => return true,
        Err(_) => return false,
    };
    let Ok(cgroups) = cgroups_of(job_root.as_fd(), id) else { return false };
    let mut locked: Vec<_> = cgroups.iter().filter(|(_, dir)| is_abandoned(dir)).collect();
    let in_use = cgroups.len() - locked.len();
    // All are killed before the first wait.
    let until = syscall::now() + ONE_CGROUP;
    locked.retain(|(name, _)| {
        let ended = nostd_cgroup::end_now(job_root.as_fd().into(), name, false, until);
        !matches!(ended, Ok(State::Gone | State::Released))
    });
    let ended = |(name, _): &&NamedCgroup| {
        let left = milliseconds_until(Some(deadline));
        nostd_cgroup::end(job_root.as_fd().into(), name, left) == Ok(true)
    };
    in_use == 0 && locked.iter().all(ended)
}

/// The members of the job with this id.
pub(crate) fn members(job_root: &Path, id: &str) -> Result<Vec<Process>> {
    let failed = |e: io::Error| Error::os(format!("find the cgroups of job {id}"), e);
    let Some(job_root) = find_cgroup(job_root).map_err(failed)? else { return Ok(Vec::new()) };
    let cgroups = cgroups_of(job_root.as_fd(), id).map_err(failed)?;
    Members::of(&cgroups).list()
}

/// The abandoned and the released cgroups of jobs below the cgroup of this process.
pub(crate) fn list() -> Result<Vec<AbandonedJob>> {
    let path = match CgroupLocation::current().and_then(|location| location.path()) {
        // Without cgroups there are none.
        Err(error) if error.is_unsupported() => return Ok(Vec::new()),
        path => path?,
    };
    let failed = |e: io::Error| Error::os(format!("look for cgroups below {}", path.display()), e);
    let Some(parent) = find_cgroup(&path).map_err(failed)? else { return Ok(Vec::new()) };
    let describe = |(name, dir): NamedCgroup| {
        let members = Members(vec![dir.as_fd()]).list()?;
        let (kind, stuck) = match has_attribute(dir.as_fd(), RELEASED).map_err(failed)? {
            true => (AbandonedKind::Released, None),
            false => (AbandonedKind::Abandoned, stuck::why(&members)),
        };
        let place = path.join(OsStr::from_bytes(name.as_bytes()));
        Ok(AbandonedJob { place, processes: members.len(), kind, stuck })
    };
    let mut cgroups = own_cgroups(parent.as_fd(), &abandoned::is_job_name).map_err(failed)?;
    cgroups.retain(|(_, dir)| is_abandoned(dir));
    cgroups.into_iter().map(describe).collect()
}

/// Whether no owner has locked the cgroup. Locks it, as long as the descriptor is open.
fn is_abandoned(dir: impl AsFd) -> bool {
    flock(dir, FlockOperation::NonBlockingLockExclusive).is_ok()
}
