//! CPU time in all: the guard that starts processes also watches what cgroups have used, since the
//! kernel counts but has no such limit.
//!
//! Nobody is asked how things stand more often than matters: as long as a cgroup cannot have used up
//! what is left, with every CPU at work, there is nothing to see. The last twentieth of a budget is
//! looked at whole, so the end comes at most that much late.

use super::super::{
    cgroup::{self, Events, walk::is_gone},
    procfs::number,
    protocol::{self, Message},
    syscall::{self, CStr, Errno, POLLIN, PollFd, Result, close},
};

/// How many cgroups can have a budget at once.
const MAX_LIMITS: usize = 512;

/// Microseconds between the first two looks at members that are being killed, and the longest pause: one
/// can be stuck in the kernel. Each pause is twice the one before.
const FIRST_PAUSE: u64 = 50_000;
const LONGEST_PAUSE: u64 = 60_000_000;

/// Microseconds until a failed look is repeated.
const AFTER_ERROR: u64 = 1_000_000;

#[derive(Clone, Copy)]
struct CpuTimeLimit {
    /// Its directory.
    cgroup: i32,
    /// Where the owner listens; when that is closed, nobody is interested any more.
    owner: i32,
    /// In microseconds.
    most: u64,
    /// How many CPUs its members can use at once.
    cpus: u64,
    /// When to look next, in microseconds.
    due: u64,
    over: bool,
    /// The pause after the next look at members that are being killed, in microseconds.
    pause: u64,
}

pub(crate) struct CpuTimeLimits {
    all: [CpuTimeLimit; MAX_LIMITS],
    count: usize,
}

impl CpuTimeLimits {
    pub(crate) const NONE: CpuTimeLimits = CpuTimeLimits {
        all: [CpuTimeLimit { cgroup: 0, owner: 0, most: 0, cpus: 0, due: 0, over: false, pause: 0 };
            MAX_LIMITS],
        count: 0,
    };

    /// Watches a cgroup from now on. The descriptors are ours then.
    pub(crate) fn add(&mut self, cgroup: i32, owner: i32, most: u64, cpus: u64) -> Result<()> {
        if self.count == MAX_LIMITS {
            self.forget(|budget| budget.is_abandoned());
        }
        let slot = self.all.get_mut(self.count).ok_or(Errno::AGAIN)?;
        *slot = CpuTimeLimit {
            cgroup,
            owner,
            most,
            cpus: cpus.max(1),
            due: 0,
            over: false,
            pause: FIRST_PAUSE,
        };
        self.count += 1;
        Ok(())
    }

    /// Looks at whoever is due; the milliseconds until the next one is, or -1 for never.
    pub(crate) fn look(&mut self) -> i32 {
        if self.count == 0 {
            return -1;
        }
        let now = syscall::now();
        let due = self.all.iter_mut().take(self.count).filter(|budget| budget.due <= now);
        due.for_each(|budget| budget.look(now));
        self.forget(|budget| budget.due == u64::MAX);
        let first = self.all.iter().take(self.count).map(|budget| budget.due).min();
        match first {
            Some(first) => (first.saturating_sub(now) / 1000 + 1).min(3_600_000) as i32,
            None => -1,
        }
    }

    fn forget(&mut self, is_past: impl Fn(&CpuTimeLimit) -> bool) {
        let mut kept = 0;
        for at in 0..self.count {
            let Some(budget) = self.all.get(at).copied() else { break };
            if is_past(&budget) {
                close(budget.cgroup);
                close(budget.owner);
            } else if let Some(slot) = self.all.get_mut(kept) {
                *slot = budget;
                kept += 1;
            }
        }
        self.count = kept;
    }
}

impl CpuTimeLimit {
    /// Kills if it is over, and sets the moment of the next look; `u64::MAX` if there is none.
    fn look(&mut self, now: u64) {
        self.due = match self.used() {
            _ if !self.over && self.is_abandoned() => u64::MAX,
            Ok(used) if used < self.most && !self.over => {
                let left = (self.most - used).max(self.most / 20);
                // Rather too late by a millisecond than a thousand looks.
                now.saturating_add(left.checked_div(self.cpus).unwrap_or(0).max(1000))
            }
            Ok(_) => self.end(now),
            // Removed.
            Err(errno) if is_gone(errno) => u64::MAX,
            // Without a descriptor, say: the limit holds all the same.
            Err(_) => now.saturating_add(AFTER_ERROR),
        };
    }

    fn end(&mut self, now: u64) -> u64 {
        if !self.over {
            self.over = true;
            let _ = protocol::answer(self.owner, &Message::new(protocol::CPU_TIME_EXHAUSTED), &[]);
        } else {
            // Whom the first kill has overlooked.
            cgroup::kill_listed(self.cgroup);
        }
        // Whether that has succeeded shows by its being empty.
        let _ = cgroup::kill(self.cgroup);
        match Events::open(self.cgroup).and_then(|events| events.is(b"populated 0")) {
            Ok(true) => u64::MAX,
            Err(errno) if is_gone(errno) => u64::MAX,
            Ok(false) | Err(_) => {
                let pause = self.pause;
                self.pause = (pause * 2).min(LONGEST_PAUSE);
                now.saturating_add(pause)
            }
        }
    }

    fn used(&self) -> Result<u64> {
        const FILE: &CStr = c"cpu.stat";
        let file = syscall::openat(self.cgroup, FILE, 0)?;
        let mut text = [0_u8; 256];
        let len = syscall::read(file.raw(), &mut text)?;
        let text = text.get(..len).unwrap_or(&[]);
        let line = text.split(|byte| *byte == b'\n').find_map(|l| l.strip_prefix(b"usage_usec "));
        line.and_then(number).ok_or(Errno::INVAL)
    }

    /// Whether the owner has closed its end.
    fn is_abandoned(&self) -> bool {
        syscall::poll(&mut [PollFd::new(self.owner, POLLIN)], 0) > 0
    }
}
