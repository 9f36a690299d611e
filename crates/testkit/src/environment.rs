//! As whom, and by which mechanism, a job is held together.

use std::fmt;

use crate::skip;

/// A user without a line in the passwd file: nothing may depend on there being one.
const ORDINARY_UID: u32 = 54_321;

/// One column of the matrix of promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Cgroup as root.
    CgroupRoot,
    /// Cgroup in a subtree that belongs to an ordinary user.
    CgroupUser,
    /// Subreaper as an ordinary user, without a writable cgroup.
    SubreaperUser,
    /// Subreaper as root.
    SubreaperRoot,
    /// Cgroup as an ordinary user, in a scope that the user's service manager makes. Only where
    /// `ONEJOB_SCOPE` says that there is one, and nowhere else to go.
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

    /// Those that can be had by who runs the tests. Only root can have all four: the others belong
    /// to the leg that runs as root, and are not counted as skipped here.
    pub fn here() -> Vec<Environment> {
        if rustix::process::geteuid().is_root() {
            if crate::sandbox::cgroup_is_writable() {
                if crate::cgroup::can_be_killed() {
                    return Self::ALL.to_vec();
                }
                eprintln!("SKIPPED: without cgroup.kill (Linux 5.14), all but Subreaper");
                return vec![Environment::SubreaperUser, Environment::SubreaperRoot];
            }
            // As in most containers. A namespace is judge enough.
            if crate::namespace::is_available() {
                eprintln!("SKIPPED: without a writable cgroup v2, all but Subreaper as root");
                return vec![Environment::SubreaperRoot];
            }
            skip("neither a writable cgroup v2 here nor namespaces, hence no judge");
            return Vec::new();
        }
        if std::env::var_os("ONEJOB_SCOPE").is_some() {
            return vec![Environment::CgroupScope];
        }
        if !crate::namespace::is_available() {
            skip("no user and PID namespaces for an ordinary user here, hence no judge");
            return Vec::new();
        }
        for other in Self::ALL.iter().filter(|other| **other != Environment::SubreaperUser) {
            eprintln!("SKIPPED: {other} runs as root only");
        }
        vec![Environment::SubreaperUser]
    }

    /// The mechanism's name, as the library and the command spell it.
    pub fn mechanism(self) -> &'static str {
        match self {
            Environment::CgroupRoot | Environment::CgroupUser | Environment::CgroupScope => {
                "cgroup"
            }
            Environment::SubreaperUser | Environment::SubreaperRoot => "subreaper",
        }
    }

    /// Whether members that changed their user are reached.
    pub fn crosses_setuid(self) -> bool {
        self != Environment::SubreaperUser
    }

    /// Whether the owner is an ordinary user.
    pub fn is_ordinary(self) -> bool {
        !matches!(self, Environment::CgroupRoot | Environment::SubreaperRoot)
    }

    /// Whether members can make cgroups, and the cell sees them.
    pub fn has_cgroups(self) -> bool {
        let in_a_namespace = [Environment::SubreaperUser, Environment::CgroupScope].contains(&self);
        !in_a_namespace && crate::sandbox::cgroup_is_writable()
    }

    /// Whether a guard has to be there to start members, and to take them to the job's cgroup.
    pub fn needs_guard(self) -> bool {
        !matches!(self, Environment::CgroupRoot | Environment::CgroupUser)
    }

    /// The user that the owner becomes; `None` to stay who we are.
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
