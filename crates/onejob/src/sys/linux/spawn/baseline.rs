//! What the children of a guard inherit from it, compared with what children of the caller would.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    credentials::Credentials,
    local::{self, Inherited},
};
use crate::{
    Error, Result,
    sys::linux::{guard::client::Guards, nostd::exec::Limit},
};

/// The state of the guards when they were started.
pub(crate) struct GuardBaseline {
    credentials: Credentials,
    pub(crate) limits: Vec<Limit>,
    /// Whether the kernel has once let this process examine them.
    is_examinable: AtomicBool,
}

impl GuardBaseline {
    /// Of guards that the calling thread starts.
    pub(crate) fn current() -> Result<GuardBaseline> {
        let credentials = Credentials::current()?.0;
        let is_examinable = AtomicBool::new(false);
        Ok(GuardBaseline { credentials, limits: local::limits(), is_examinable })
    }

    /// Of the guards of another process.
    pub(crate) fn of(guards: &Guards) -> Result<GuardBaseline> {
        if !guards.may_be_examined() {
            return Err(Error::unsupported(
                "this process may not examine the guard of the job, which would start the child: it \
                 is another user's, or in another Landlock domain",
            )
            .with_hint("make a new job"));
        }
        let inner = guards.inner_pid();
        let (credentials, limits) = (Credentials::of(inner)?, local::limits_of(inner as i32));
        Ok(GuardBaseline { credentials, limits, is_examinable: AtomicBool::new(true) })
    }

    /// Examines the guards, which have executed their program.
    ///
    /// No file shows the Landlock domains of a process. But a process in a domain may examine only
    /// processes in the same domain or in one inside of it (`ptrace(2)`, "access mode checking"), so a
    /// process that could examine its guards once, and cannot any more, has entered another domain. One
    /// that never could (a set-user-ID program) cannot find that out.
    pub(crate) fn examine(&self, guards: &Guards) -> bool {
        let may = guards.may_be_examined();
        if may {
            self.is_examinable.store(true, Ordering::Relaxed);
        }
        may || !self.is_examinable.load(Ordering::Relaxed)
    }

    /// What a child must be given to be like a child of the calling thread.
    ///
    /// # Errors
    /// For a difference that a child cannot be given.
    pub(crate) fn check(&self, guards: &Guards, from_another_session: bool) -> Result<Inherited> {
        let inherited = self.credentials.check(from_another_session)?;
        match self.examine(guards) {
            true => Ok(inherited),
            false => Err(Credentials::differ("Landlock domain or security context")),
        }
    }
}
