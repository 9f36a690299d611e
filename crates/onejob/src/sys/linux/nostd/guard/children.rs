//! The children of a guard that somebody waits for, and where to tell how they ended.

use super::super::{
    protocol::{self, Message},
    syscall::{close, reap_any},
};

/// How many there can be at once.
pub(crate) const MAX_CHILDREN: usize = 8192;

/// Pids, and the reply sockets of those who asked for them.
pub(crate) struct Children {
    pids: [i32; MAX_CHILDREN],
    replies: [i32; MAX_CHILDREN],
    count: usize,
}

impl Children {
    pub(crate) const NONE: Children =
        Children { pids: [0; MAX_CHILDREN], replies: [0; MAX_CHILDREN], count: 0 };

    pub(crate) fn is_full(&self) -> bool {
        self.count >= MAX_CHILDREN
    }

    pub(crate) fn remember(&mut self, pid: i32, reply: i32) {
        let at = self.count;
        if let (Some(pid_slot), Some(reply_slot)) =
            (self.pids.get_mut(at), self.replies.get_mut(at))
        {
            *pid_slot = pid;
            *reply_slot = reply;
            self.count += 1;
        }
    }

    fn forget(&mut self, pid: i32) -> Option<i32> {
        let at = self.pids.iter().take(self.count).position(|known| *known == pid)?;
        let reply = *self.replies.get(at)?;
        self.count -= 1;
        let last = self.count;
        let (last_pid, last_reply) = (*self.pids.get(last)?, *self.replies.get(last)?);
        *self.pids.get_mut(at)? = last_pid;
        *self.replies.get_mut(at)? = last_reply;
        Some(reply)
    }

    /// Reaps everybody who has died, and tells those who asked. Whether no child at all is left.
    pub(crate) fn reap(&mut self) -> bool {
        let mut told = 0;
        let mut statuses = [(0, 0); 64];
        // Statuses are told after all are reaped: whoever knows that the last child has ended may
        // ask whether the job is empty, and it is.
        let childless = loop {
            let ended = match reap_any() {
                Ok(Some(ended)) => ended,
                Ok(None) => break false,
                Err(_) => break true,
            };
            let Some(reply) = self.forget(ended.pid) else { continue };
            match statuses.get_mut(told) {
                Some(slot) => {
                    *slot = (reply, ended.wait_status());
                    told += 1;
                }
                None => report_exit(reply, ended.wait_status()),
            }
        };
        for (reply, status) in statuses.iter().take(told) {
            report_exit(*reply, *status);
        }
        childless
    }
}

fn report_exit(reply: i32, status: i32) {
    let mut ended = Message::new(protocol::ENDED);
    ended.numbers = [status as u64, 0];
    let _ = protocol::answer(reply, &ended, &[]);
    close(reply);
}
