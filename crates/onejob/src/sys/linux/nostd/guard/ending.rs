//! The end of a guard: it ends the owner's cgroups, kills every process below itself, and exits.

use super::{
    super::{
        cgroup,
        protocol::{self, Message},
        syscall::{SIGCONT, exit, pidfd_send_signal},
    },
    registry,
    state::Guard,
};

/// The exit status of a guard that has ended everything, …
pub(super) const FINISHED: i32 = 0;

/// … of one that could not start, which the owner knows, …
pub(super) const ABORTED: i32 = 1;

/// … of one that could not end or find every process, …
const FAILED: i32 = 2;

/// … and of one that the owner has released: it leaves the members alone.
pub(super) const RELEASED: i32 = 3;

impl Guard<'_> {
    /// Ends everything, then exits: a guard waits for a member that cannot die.
    pub(super) fn finish(&mut self) -> ! {
        let released = match self.cgroups {
            None => Ok(false),
            Some(cgroups) => cgroup::end_all(cgroups.base, cgroups.prefix),
        };
        // If a job was released, the processes below this guard may be members of it.
        let is_empty = released == Ok(true) || self.kill_descendants();
        if released.is_err() || !is_empty {
            self.exit(FAILED);
        }
        // An owner that lives and sees that both guards have exited knows from this message that they have ended
        // everything. It removes its records itself, unless it dies before.
        let _ = protocol::send(self.owner.socket, &Message::new(protocol::DONE), &[]);
        if !self.task.registry.is_empty() {
            // This comes last: without a record a job is over.
            let _ = registry::remove(self.task.registry, self.task.records.to_bytes());
        }
        self.exit(FINISHED)
    }

    /// Exits. Continues the other guard, which does not exit while it is stopped.
    pub(super) fn exit(&mut self, status: i32) -> ! {
        if let Some(other) = &self.other {
            let _ = pidfd_send_signal(other, SIGCONT);
        }
        self.memory.unfinished.last_check(self.cgroups);
        exit(status)
    }
}
