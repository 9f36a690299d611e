//! Ends abandoned cgroups: their owner and its guards were killed together.
//!
//! An owner keeps a lock on each of its cgroups. A cgroup is abandoned if this lock is free. That does not
//! depend on pids, so it is right across PID namespaces, too.

use super::{
    super::{
        procfs::entries,
        syscall::{
            self, BorrowedFd, CStr, O_DIRECTORY, OwnedFd, Result, is_own, openat,
            try_flock_exclusive,
        },
    },
    State, end_now,
    walk::open,
};

/// The name of every cgroup of a job begins with this. Then follow the digits of the owner, a dash and numbers.
pub(crate) const PREFIX: &str = "onejob-";

/// How many digits the name of an owner has.
const OWNER_DIGITS: usize = 16;

/// Whether a name is that of a job's cgroup. A systemd unit may have a name that begins with `onejob-`, too.
pub(crate) fn is_job_name(name: &[u8]) -> bool {
    let Some((owner, number)) =
        name.strip_prefix(PREFIX.as_bytes()).and_then(|rest| rest.split_at_checked(OWNER_DIGITS))
    else {
        return false;
    };
    let Some(number) = number.strip_prefix(b"-") else { return false };
    let has_digit = number.first().is_some_and(u8::is_ascii_digit);
    let is_number = number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    owner.iter().all(u8::is_ascii_hexdigit) && has_digit && is_number
}

/// The result of [`sweep`].
#[derive(Default)]
pub(crate) struct Sweep {
    /// Whether a cgroup was removed.
    pub(crate) ended: bool,
    /// Whether an abandoned cgroup is left.
    pub(crate) left: bool,
    /// An abandoned cgroup that has members.
    pub(crate) populated: Option<OwnedFd>,
}

/// Kills the members of abandoned cgroups below `base` and removes the empty ones, without waiting for a
/// process. Ignores cgroups of the owner `own`. After the moment `until` it leaves the rest, but always handles
/// one. `again`: whether their members may have been killed before.
pub(crate) fn sweep(base: BorrowedFd<'_>, own: &[u8], again: bool, until: u64) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    let mut is_late = false;
    let dir = openat(base, c".", O_DIRECTORY)?;
    entries(&dir, &mut |name: &CStr, is_dir| {
        let text = name.to_bytes();
        if is_late && sweep.left {
            return;
        }
        if !is_dir || !is_job_name(text) || (!own.is_empty() && text.starts_with(own)) {
            return;
        }
        // The lock also keeps two processes from sweeping the same cgroup at once.
        let Some(_locked) = locked(base, name) else { return };
        if is_late {
            sweep.left = true;
            return;
        }
        match end_now(base, name, again, until) {
            Ok(State::Gone) => sweep.ended = true,
            Ok(State::Populated(cgroup)) => {
                sweep.left = true;
                sweep.populated = Some(cgroup);
            }
            Ok(State::Busy) => sweep.left = true,
            Err(errno) if errno.is_transient() => sweep.left = true,
            // Released, or this process is not permitted to end it.
            Ok(State::Released) | Err(_) => {}
        }
        is_late = syscall::now() >= until;
    })?;
    Ok(sweep)
}

/// Opens and locks a cgroup, if it belongs to this user and its lock is free.
fn locked(base: BorrowedFd<'_>, name: &CStr) -> Option<OwnedFd> {
    let cgroup = open(base, name).ok()?;
    (is_own(&cgroup) && try_flock_exclusive(&cgroup).is_ok()).then_some(cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_job_cgroups_match() {
        for name in ["onejob-0123456789abcdef-1", "onejob-0123456789abcdef-12.3"] {
            assert!(is_job_name(name.as_bytes()), "{name}");
        }
        for name in [
            "onejob-tests.service",
            "onejob-0123456789abcdef.scope",
            "onejob-0123456789abcdef-1.service",
            "onejob-0123456789abcdef-",
            "onejob-0123456789abcdeg-1",
            "onejob-1",
            "user.slice",
            "",
        ] {
            assert!(!is_job_name(name.as_bytes()), "{name}");
        }
    }
}
