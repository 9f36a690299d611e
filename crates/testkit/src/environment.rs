//! The environments of a test: the user of the owner and the mechanism of the job.

use std::fmt;

use crate::skip;

/// A user without an entry in the passwd file: nothing may depend on such an entry.
const ORDINARY_UID: u32 = 54_321;

/// One column of the matrix of guarantees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Cgroup as root.
    CgroupRoot,
    /// Cgroup in a subtree that is owned by an ordinary user.
    CgroupUser,
    /// Subreaper as an ordinary user, without a writable cgroup.
    SubreaperUser,
    /// Subreaper as root.
    SubreaperRoot,
    /// Cgroup as an ordinary user, in a scope that the user's service manager makes. Only if
    /// `ONEJOB_SCOPE` is set, which means that there is a service manager and no other location.
    CgroupScope,
}

impl Environment {
    /// All of them.
    pub const ALL: [Environment; 4] = [
        Environment::CgroupRoot,
        Environment::CgroupUser,
        Environment::SubreaperUser,
        Environment::SubreaperRoot,
    ];

    /// The environments that are available to the user that runs the tests. Only root has all four:
    /// the others are tested by the CI job that runs as root, and are not counted as skipped here.
    pub fn here() -> Vec<Environment> {
        if rustix::process::geteuid().is_root() {
            if crate::sandbox::cgroup_is_writable() {
                if crate::cgroup::can_be_killed() {
                    return Self::ALL.to_vec();
                }
                eprintln!("SKIPPED: without cgroup.kill (Linux 5.14), all but Subreaper");
                return vec![Environment::SubreaperUser, Environment::SubreaperRoot];
            }
            // As in most containers. A namespace is a sufficient sandbox.
            if crate::namespace::is_available() {
                eprintln!("SKIPPED: without a writable cgroup v2, all but Subreaper as root");
                return vec![Environment::SubreaperRoot];
            }
            skip(
                "neither a writable cgroup v2 here nor namespaces, so the tests cannot list survivors",
            );
            return Vec::new();
        }
        if std::env::var_os("ONEJOB_SCOPE").is_some() {
            return vec![Environment::CgroupScope];
        }
        if !crate::namespace::is_available() {
            skip(
                "no user and PID namespaces for an ordinary user here, so the tests cannot list survivors",
            );
            return Vec::new();
        }
        for other in Self::ALL.iter().filter(|other| **other != Environment::SubreaperUser) {
            eprintln!("SKIPPED: {other} runs as root only");
        }
        vec![Environment::SubreaperUser]
    }

    /// The environments of a mechanism that are available here; prints that the test is skipped if there
    /// are none.
    pub fn of(mechanism: &str) -> Vec<Environment> {
        let mut environments = Environment::here();
        environments.retain(|environment| environment.mechanism() == mechanism);
        if environments.is_empty() {
            eprintln!("SKIPPED: the {mechanism} mechanism is not available to this user here");
        }
        environments
    }

    /// The name of the mechanism in the library and the command.
    pub fn mechanism(self) -> &'static str {
        match self {
            Environment::CgroupRoot | Environment::CgroupUser | Environment::CgroupScope => {
                "cgroup"
            }
            Environment::SubreaperUser | Environment::SubreaperRoot => "subreaper",
        }
    }

    /// Whether members that changed their user can be signalled.
    pub fn crosses_setuid(self) -> bool {
        self != Environment::SubreaperUser
    }

    /// Whether the owner is an ordinary user.
    pub fn is_ordinary(self) -> bool {
        !matches!(self, Environment::CgroupRoot | Environment::SubreaperRoot)
    }

    /// Whether members can make cgroups that are visible to the sandbox.
    pub fn has_cgroups(self) -> bool {
        let in_a_namespace = [Environment::SubreaperUser, Environment::CgroupScope].contains(&self);
        !in_a_namespace && crate::sandbox::cgroup_is_writable()
    }

    /// Whether a guard must run to start members and to move them to the cgroup of the job.
    pub fn needs_guard(self) -> bool {
        !matches!(self, Environment::CgroupRoot | Environment::CgroupUser)
    }

    /// The user id that the owner changes to; `None` if it keeps that of the test.
    pub fn uid(self) -> Option<u32> {
        (self.is_ordinary() && rustix::process::geteuid().is_root()).then_some(ORDINARY_UID)
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.is_ordinary() { "an ordinary user" } else { "root" };
        let place = if *self == Environment::CgroupScope { " in a scope" } else { "" };
        write!(f, "{} as {who}{place}", self.mechanism())
    }
}
