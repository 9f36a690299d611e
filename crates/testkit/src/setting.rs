//! As whom, and by which mechanism, a job is held together.

use std::fmt;

use crate::skip;

/// A user without a line in the passwd file: nothing may depend on there being one.
const ORDINARY: u32 = 54_321;

/// One column of the matrix of promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Cgroup as root.
    CgroupRoot,
    /// Cgroup in a subtree that belongs to an ordinary user.
    CgroupUser,
    /// Subreaper as an ordinary user, without a writable cgroup.
    SubreaperUser,
    /// Subreaper as root.
    SubreaperRoot,
}

impl Setting {
    /// All of them.
    pub const ALL: [Setting; 4] =
        [Setting::CgroupRoot, Setting::CgroupUser, Setting::SubreaperUser, Setting::SubreaperRoot];

    /// Those that can be had by who runs the tests. Only root can have all four: the others belong
    /// to the leg that runs as root, and are not counted as skipped here.
    pub fn here() -> Vec<Setting> {
        if rustix::process::geteuid().is_root() {
            let writable = crate::cell::cgroup_is_writable();
            if !writable {
                skip("no writable cgroup v2 here: neither the cgroup settings nor the judge");
            }
            return if writable { Self::ALL.to_vec() } else { Vec::new() };
        }
        if !crate::namespace::is_available() {
            skip("no user and PID namespaces for an ordinary user here, hence no judge");
            return Vec::new();
        }
        for other in Self::ALL.iter().filter(|other| **other != Setting::SubreaperUser) {
            eprintln!("SKIPPED: {other} runs as root only");
        }
        vec![Setting::SubreaperUser]
    }

    /// The mechanism's name, as the library and the command spell it.
    pub fn mechanism(self) -> &'static str {
        match self {
            Setting::CgroupRoot | Setting::CgroupUser => "cgroup",
            Setting::SubreaperUser | Setting::SubreaperRoot => "subreaper",
        }
    }

    /// Whether members that changed their user are reached.
    pub fn crosses_setuid(self) -> bool {
        self != Setting::SubreaperUser
    }

    /// Whether the owner is an ordinary user.
    pub fn is_ordinary(self) -> bool {
        matches!(self, Setting::CgroupUser | Setting::SubreaperUser)
    }

    /// The user that the owner becomes; `None` to stay who we are.
    pub fn uid(self) -> Option<u32> {
        (self.is_ordinary() && rustix::process::geteuid().is_root()).then_some(ORDINARY)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.is_ordinary() { "an ordinary user" } else { "root" };
        write!(f, "{} as {who}", self.mechanism())
    }
}
