//! The state of one guard.

use super::{
    super::syscall::{self, OwnedFd},
    memory::Memory,
    task::{Cgroups, GuardTask, OwnerFds},
};

/// One guard.
pub(super) struct Guard<'a> {
    pub(super) memory: &'a mut Memory,
    pub(super) task: GuardTask<'a>,
    pub(super) owner: OwnerFds,
    pub(super) cgroups: Option<Cgroups<'a>>,
    /// Readable after a child has died or was stopped. A guard without it has no children.
    pub(super) sigchld: Option<OwnedFd>,
    /// A pidfd of the other guard, if there is one.
    pub(super) other: Option<OwnedFd>,
    /// The socket for requests of other processes of the user, once the owner has sent it.
    pub(super) listener: Option<OwnedFd>,
    /// Whether all signals have their default dispositions, so that a child need not set them.
    pub(super) has_default_dispositions: bool,
    /// The pid of the outer guard, until the inner guard has joined the owner's process group.
    pub(super) outer_pid: Option<i32>,
}

impl<'a> Guard<'a> {
    pub(super) fn new(
        memory: &'a mut Memory,
        task: GuardTask<'a>,
        owner: OwnerFds,
        cgroups: Option<Cgroups<'a>>,
        sigchld: Option<OwnedFd>,
        other: Option<OwnedFd>,
    ) -> Guard<'a> {
        Guard {
            memory,
            task,
            owner,
            cgroups,
            sigchld,
            other,
            listener: None,
            has_default_dispositions: false,
            outer_pid: None,
        }
    }

    pub(super) fn reap(&mut self) {
        drain_sigchld(&self.sigchld);
        self.memory.children.reap();
    }

    /// All signals are blocked in a guard, so it does not need other dispositions itself.
    pub(super) fn set_default_dispositions(&mut self) {
        if !self.has_default_dispositions {
            syscall::set_dispositions(0);
            self.has_default_dispositions = true;
        }
    }
}

/// Reads the pending signals, so that the descriptor is readable only after another one.
pub(super) fn drain_sigchld(sigchld: &Option<OwnedFd>) {
    let Some(sigchld) = sigchld else { return };
    const SIGINFO: usize = 128;
    let mut pending = [0_u8; 2 * SIGINFO];
    while syscall::read(sigchld, &mut pending).is_ok_and(|len| len == pending.len()) {}
}
