//! The children of a guard, and where to report how they ended.

use super::super::{
    protocol::{self, Message},
    syscall::{OwnedFd, reap_any},
};

/// How many there can be at once.
pub(crate) const MAX_CHILDREN: usize = 8192;

/// The pids of the children that requests have started, and the reply sockets of these requests.
pub(crate) struct Children {
    pids: [i32; MAX_CHILDREN],
    replies: [Option<OwnedFd>; MAX_CHILDREN],
    count: usize,
}

impl Children {
    pub(crate) const NONE: Children =
        Children { pids: [0; MAX_CHILDREN], replies: [const { None }; MAX_CHILDREN], count: 0 };

    pub(crate) fn is_full(&self) -> bool {
        self.count >= MAX_CHILDREN
    }

    pub(crate) fn add(&mut self, pid: i32, reply: OwnedFd) {
        let at = self.count;
        if let (Some(pid_slot), Some(reply_slot)) =
            (self.pids.get_mut(at), self.replies.get_mut(at))
        {
            *pid_slot = pid;
            *reply_slot = Some(reply);
            self.count += 1;
        }
    }

    fn remove(&mut self, pid: i32) -> Option<OwnedFd> {
        let at = self.pids.iter().take(self.count).position(|known| *known == pid)?;
        let last = self.count.checked_sub(1)?;
        let (last_pid, last_reply) = (*self.pids.get(last)?, self.replies.get_mut(last)?.take());
        self.count = last;
        if at == last {
            return last_reply;
        }
        *self.pids.get_mut(at)? = last_pid;
        core::mem::replace(self.replies.get_mut(at)?, last_reply)
    }

    /// Reaps every dead child and reports how it ended. Returns whether no child is left.
    pub(crate) fn reap(&mut self) -> bool {
        let mut count = 0;
        let mut statuses = [const { None }; 64];
        // The reports come after all are reaped: a process that receives the report of the last child may then
        // send `SYNC`, and the job must be empty.
        let is_childless = loop {
            let child = match reap_any() {
                Ok(Some(child)) => child,
                Ok(None) => break false,
                Err(_) => break true,
            };
            let Some(reply) = self.remove(child.pid) else { continue };
            match statuses.get_mut(count) {
                Some(slot) => {
                    *slot = Some((reply, child.wait_status()));
                    count += 1;
                }
                None => report_exit(&reply, child.wait_status()),
            }
        };
        for (reply, status) in statuses.iter().flatten() {
            report_exit(reply, *status);
        }
        is_childless
    }
}

fn report_exit(reply: &OwnedFd, status: i32) {
    let mut ended = Message::new(protocol::ENDED);
    ended.numbers = [status as u64, 0];
    let _ = protocol::reply(reply, &ended, &[]);
}
