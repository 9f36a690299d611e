//! The attributes that children of a guard inherit, compared with those of the calling thread.

use std::sync::atomic::{AtomicBool, Ordering};

use super::credentials::{Credentials, Inherited, resource_limits};
use crate::{
    Error, Result,
    sys::linux::{guard::client::Guards, nostd::exec::Limit},
};

/// The attributes of the guards when they were started.
pub(crate) struct GuardBaseline {
    credentials: Credentials,
    pub(super) limits: Vec<Limit>,
    /// Whether the kernel has once let this process examine them.
    is_examinable: AtomicBool,
}

impl GuardBaseline {
    /// Of guards that the calling thread starts.
    pub(crate) fn current() -> Result<GuardBaseline> {
        let (credentials, _) = Credentials::read("thread-self", 0)?;
        let (limits, is_examinable) = (resource_limits(0), AtomicBool::new(false));
        Ok(GuardBaseline { credentials, limits, is_examinable })
    }

    /// Of the guards of another process.
    pub(crate) fn of(guards: &Guards) -> Result<GuardBaseline> {
        if !guards.may_be_examined() {
            return Err(Error::unsupported(
                "the guard of the job cannot start the process: this process may not examine the \
                 guard, which has another user or another Landlock domain",
            )
            .with_hint("create a new job"));
        }
        let pid = guards.inner_pid();
        let (credentials, _) = Credentials::read(&pid.to_string(), pid as i32)?;
        let (limits, is_examinable) = (resource_limits(pid as i32), AtomicBool::new(true));
        Ok(GuardBaseline { credentials, limits, is_examinable })
    }

    /// Whether the calling thread is in the Landlock domain of the guards, which have executed their
    /// program.
    ///
    /// No file shows the Landlock domains of a process. But a process in a domain may examine only
    /// processes in the same domain or in one inside of it (`ptrace(2)`, "access mode checking"), so a
    /// process that could examine its guards once, and cannot any more, has entered another domain. A
    /// process that never could (a set-user-ID program) cannot find that out.
    pub(crate) fn examine(&self, guards: &Guards) -> bool {
        let may = guards.may_be_examined();
        if may {
            self.is_examinable.store(true, Ordering::Relaxed);
        }
        may || !self.is_examinable.load(Ordering::Relaxed)
    }

    /// The attributes that a child must be given to equal a child of the calling thread. From another
    /// session, it is in the session of the guard, in a new process group.
    ///
    /// # Errors
    /// For a difference that no request can remove.
    pub(super) fn check(&self, guards: &Guards, from_another_session: bool) -> Result<Inherited> {
        let (now, mut inherited) = Credentials::read("thread-self", 0)?;
        let difference = now.difference(&self.credentials, from_another_session);
        if let Some(what) = difference {
            return Err(differ(what));
        }
        if from_another_session {
            inherited.group = Some(0);
        }
        inherited.attributes = now.attributes_changed_from(&self.credentials)?;
        match self.examine(guards) {
            true => Ok(inherited),
            false => Err(differ("Landlock domain or security context")),
        }
    }
}

fn differ(what: &str) -> Error {
    Error::unsupported(format!(
        "the guard of the job cannot start the process: this process has another {what} than the guard"
    ))
    .with_hint("create a new job")
}
