//! Cgroups below a base that no process holds: their owners and guards were killed together.
//!
//! The proof is the lock that an owner keeps on each of its cgroups, and never a number, so it also holds
//! between PID namespaces.

use super::{
    super::{
        procfs::entries,
        syscall::{self, CStr, Fd, O_DIRECTORY, Result, is_own, openat, try_flock_exclusive},
    },
    State, end_now,
    walk::open,
};

/// What the name of every job's cgroup begins with. Then come the owner's digits, a dash and numbers.
pub(crate) const PREFIX: &str = "onejob-";

/// How many digits an owner has.
const OWNER: usize = 16;

/// Whether a cgroup of this name is a job's, or was: prefix, owner, number, and which one of it. A
/// unit may be called `onejob-something`, too.
pub(crate) fn is_a_jobs(name: &[u8]) -> bool {
    let Some((owner, number)) =
        name.strip_prefix(PREFIX.as_bytes()).and_then(|rest| rest.split_at_checked(OWNER))
    else {
        return false;
    };
    let Some(number) = number.strip_prefix(b"-") else { return false };
    let has_digit = number.first().is_some_and(u8::is_ascii_digit);
    let is_number = number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    owner.iter().all(u8::is_ascii_hexdigit) && has_digit && is_number
}

/// What one look at the abandoned cgroups has found.
#[derive(Default)]
pub(crate) struct Sweep {
    /// Whether one was removed.
    pub(crate) ended: bool,
    /// Whether one is still there that is to be ended.
    pub(crate) left: bool,
    /// One that has members.
    pub(crate) populated: Option<Fd>,
}

/// Kills and removes what is abandoned below a base, without waiting for any process. Cgroups of the
/// owner `own` are left out. At the moment `until` the rest is left, but one is always dealt with. `again`
/// if this is not the first look.
pub(crate) fn sweep(base: i32, own: &[u8], again: bool, until: u64) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    let mut is_late = false;
    let dir = openat(base, c".", O_DIRECTORY)?;
    entries(&dir, &mut |name: &CStr, is_dir| {
        let text = name.to_bytes();
        if is_late && sweep.left {
            return;
        }
        if !is_dir || !is_a_jobs(text) || (!own.is_empty() && text.starts_with(own)) {
            return;
        }
        // Locked as long as it is worked on: two that sweep do not meet.
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
            // Released, or not ours to end.
            Ok(State::Released) | Err(_) => {}
        }
        is_late = syscall::now() >= until;
    })?;
    Ok(sweep)
}

/// A cgroup of this user that no other process holds, locked.
fn locked(base: i32, name: &CStr) -> Option<Fd> {
    let cgroup = open(base, name).ok()?;
    (is_own(cgroup.raw()) && try_flock_exclusive(cgroup.raw()).is_ok()).then_some(cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cgroups_of_jobs_are_taken_for_such() {
        for name in ["onejob-0123456789abcdef-1", "onejob-0123456789abcdef-12.3"] {
            assert!(is_a_jobs(name.as_bytes()), "{name}");
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
            assert!(!is_a_jobs(name.as_bytes()), "{name}");
        }
    }
}
