//! Kills every process below a guard: when its owner has died, and for an owner that may not do it itself.

use super::{
    super::{
        kill_tree::KillTree,
        procfs::Proc,
        syscall::{AsFd, POLLIN, PollFd, Result, getpid, pidfd_open, poll},
        tree_walk::{Coverage, Walk},
    },
    memory::Memory,
    state::{Guard, drain_sigchld},
};

impl Guard<'_> {
    /// Kills all descendants of the guard, in rounds until none is left. Returns whether none is: there are
    /// none if `/proc` cannot be used, since there is no Subreaper job then.
    pub(super) fn kill_descendants(&mut self) -> bool {
        // Every descendant has an ancestor that is a child of the guard.
        if self.memory.children.reap() {
            return true;
        }
        let mut pause = 5;
        let (proc, own_pidfd) = loop {
            match Proc::open().and_then(|proc| Ok((proc, pidfd_open(getpid())?))) {
                Ok(both) => break both,
                Err(errno) if errno.is_transient() => poll(&mut [], pause),
                Err(_) => return false,
            };
            pause = (pause * 2).min(1000);
        };
        let Memory { arena, path, met, children, .. } = &mut *self.memory;
        let mut walk = Walk { proc: &proc, arena, path, exclude: 0 };
        let mut kill_tree = KillTree::new(met);
        pause = 5;
        let mut empty_rounds = 0;
        // Zombies that a tracer holds are not waited for.
        while empty_rounds < 2 {
            let met = match kill_tree.round(&mut walk, getpid(), own_pidfd.as_fd()) {
                Ok(round) => {
                    if let Some(last) = &round.last {
                        poll(&mut [PollFd::new(last, POLLIN)], 50);
                    }
                    round.seen > 0 || round.coverage != Coverage::Whole
                }
                Err(_) => true,
            };
            drain_sigchld(&self.sigchld);
            kill_tree.end_priority();
            if children.reap() {
                return true;
            }
            empty_rounds = if met { 0 } else { empty_rounds + 1 };
            poll(&mut [PollFd::maybe(self.sigchld.as_ref(), POLLIN)], pause);
            pause = (pause * 2).min(1000);
        }
        true
    }

    /// One round, for an owner that has given up privileges which the guard still has. Returns how many live
    /// processes it met, and how many of these the guard may not kill either. It does not wait for a process that
    /// cannot die: the owner repeats the request.
    pub(super) fn kill_once(&mut self) -> Result<[u64; 2]> {
        const FOR_ONE_DEATH: i32 = 50;
        let (proc, own_pidfd) = (Proc::open()?, pidfd_open(getpid())?);
        let Memory { arena, path, met, .. } = &mut *self.memory;
        let mut walk = Walk { proc: &proc, arena, path, exclude: 0 };
        met.fill(0);
        let round = KillTree::new(met).round(&mut walk, getpid(), own_pidfd.as_fd())?;
        if let Some(last) = &round.last {
            poll(&mut [PollFd::new(last, POLLIN)], FOR_ONE_DEATH);
        }
        self.reap();
        Ok([round.seen as u64, round.refused as u64])
    }
}
