//! The names of cgroups of jobs, and how the cgroups of a job are found by their names.
//!
//! A cgroup is named `onejob-OWNER-JOB`: the random part of its owner and the number of the job. A
//! job gets another cgroup after a kill; `.NUMBER` is appended to the names of these.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, XattrFlags, fsetxattr},
    io::Errno,
};

use super::dir::{each_child, has_attribute, open_child};
use crate::sys::linux::nostd::cgroup::{self as nostd_cgroup, abandoned};

pub(crate) const PREFIX: &str = abandoned::PREFIX;

/// An extended attribute of the first cgroup of a job: the job has other cgroups.
const FOLLOWED: &CStr = c"user.onejob.followed";

/// An open cgroup and its name below the job root.
pub(crate) type NamedCgroup = (CString, OwnedFd);

/// The name of the cgroup with this number of a job.
pub(crate) fn name_of(owner_prefix: &str, job: u32, number: u32) -> CString {
    let name = nostd_cgroup::name_of(owner_prefix.as_bytes(), job as i32, number as i32);
    name.as_c_str().to_owned()
}

/// Marks the first cgroup of a job, if it still exists, as not its only one.
pub(crate) fn mark_followed(
    job_root: BorrowedFd<'_>,
    owner_prefix: &str,
    job: u32,
) -> rustix::io::Result<()> {
    match open_child(job_root, &name_of(owner_prefix, job, 0)) {
        Ok(first) => fsetxattr(&first, FOLLOWED, b"", XattrFlags::empty()),
        Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

/// The cgroups of the job with this id, the latest last.
pub(crate) fn cgroups_of(job_root: BorrowedFd<'_>, id: &str) -> io::Result<Vec<NamedCgroup>> {
    let first = format!("{PREFIX}{id}");
    // Most jobs have one cgroup, which is found without listing the cgroups of all jobs.
    let only = CString::new(&*first).map_or(Ok(None), |first| own_cgroup(job_root, first))?;
    if let Some((name, dir)) = only
        && !has_attribute(dir.as_fd(), FOLLOWED)?
    {
        return Ok(vec![(name, dir)]);
    }
    let mut cgroups = own_cgroups(job_root, &|name| {
        let rest = name.strip_prefix(first.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
    })?;
    cgroups.sort_by_key(|(name, _)| (name.as_bytes().len(), name.clone()));
    Ok(cgroups)
}

/// The cgroups of this user below another one whose names match.
pub(crate) fn own_cgroups(
    parent: BorrowedFd<'_>,
    matches: &dyn Fn(&[u8]) -> bool,
) -> io::Result<Vec<NamedCgroup>> {
    let mut names = Vec::new();
    each_child(parent, &mut |name| {
        if matches(name.to_bytes()) {
            names.push(name.to_owned());
        }
    })?;
    names.into_iter().filter_map(|name| own_cgroup(parent, name).transpose()).collect()
}

/// The cgroup with this name, if it exists and belongs to this user.
fn own_cgroup(parent: BorrowedFd<'_>, name: CString) -> io::Result<Option<NamedCgroup>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let me = rustix::process::geteuid().as_raw();
    let dir = match rustix::fs::openat(parent, &name, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        // The cgroup of another user, most likely.
        Err(e @ Errno::ACCESS) => {
            let stat = rustix::fs::statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            return if stat.st_uid == me { Err(e.into()) } else { Ok(None) };
        }
        Err(e) => return Err(e.into()),
    };
    Ok((rustix::fs::fstat(&dir)?.st_uid == me).then_some((name, dir)))
}
