//! Limits of the total CPU time of cgroups. The kernel counts it but has no such limit, so the inner guard checks it.
//!
//! The guard checks a cgroup only when it can have reached the limit, with every CPU in use since the last check,
//! but not earlier than after a twentieth of the limit. So a cgroup exceeds its limit by at most that much.

use super::super::{
    cgroup::{self, Events, walk::is_gone},
    procfs::number,
    protocol::{self, Message},
    syscall::{self, AsFd, Errno, OwnedFd, POLLIN, PollFd, Result},
};

/// How many cgroups can have a limit at once.
const MAX_LIMITS: usize = 512;

/// The first and the longest pause between two kills of members that have reached the limit, in microseconds: a
/// member can be stuck in the kernel. Each pause is twice the one before.
const FIRST_PAUSE: u64 = 50_000;
const LONGEST_PAUSE: u64 = 60_000_000;

/// Microseconds until a failed check is repeated.
const RETRY_INTERVAL: u64 = 1_000_000;

struct CpuTimeLimit {
    cgroup: OwnedFd,
    /// The reply socket. The owner closes its end to remove the limit.
    owner: OwnedFd,
    /// In microseconds.
    limit: u64,
    /// How many CPUs its members can use at once.
    cpus: u64,
    /// The moment of the next check; `u64::MAX` if there is none.
    due: u64,
    /// The pause after the next kill, in microseconds; 0 before the limit is reached.
    pause: u64,
}

pub(crate) struct CpuTimeLimits {
    /// The first `count` are used.
    all: [Option<CpuTimeLimit>; MAX_LIMITS],
    count: usize,
}

impl CpuTimeLimits {
    pub(crate) const NONE: CpuTimeLimits =
        CpuTimeLimits { all: [const { None }; MAX_LIMITS], count: 0 };

    /// Fails with `Errno::AGAIN` if there is no room for another limit.
    pub(crate) fn reserve(&mut self) -> Result<()> {
        if self.count == MAX_LIMITS {
            self.remove(CpuTimeLimit::is_abandoned);
        }
        if self.count < MAX_LIMITS { Ok(()) } else { Err(Errno::AGAIN) }
    }

    /// Limits a cgroup from now on. To be called after [`reserve`](CpuTimeLimits::reserve).
    pub(crate) fn add(&mut self, cgroup: OwnedFd, owner: OwnedFd, limit: u64, cpus: u64) {
        if let Some(slot) = self.all.get_mut(self.count) {
            let cpus = cpus.max(1);
            *slot = Some(CpuTimeLimit { cgroup, owner, limit, cpus, due: 0, pause: 0 });
            self.count += 1;
        }
    }

    /// Checks the cgroups that are due. Returns the milliseconds until the next check, or -1 if there is none.
    pub(crate) fn check(&mut self) -> i32 {
        if self.count == 0 {
            return -1;
        }
        let now = syscall::now();
        let used = self.all.iter_mut().take(self.count).flatten();
        used.filter(|limit| limit.due <= now).for_each(|limit| limit.check(now));
        self.remove(|limit| limit.due == u64::MAX);
        let first = self.all.iter().take(self.count).flatten().map(|limit| limit.due).min();
        match first {
            Some(first) => (first.saturating_sub(now) / 1000 + 1).min(3_600_000) as i32,
            None => -1,
        }
    }

    fn remove(&mut self, is_past: impl Fn(&CpuTimeLimit) -> bool) {
        let mut kept = 0;
        for at in 0..self.count {
            let limit = self.all.get_mut(at).and_then(Option::take);
            if let Some(limit) = limit.filter(|limit| !is_past(limit))
                && let Some(slot) = self.all.get_mut(kept)
            {
                *slot = Some(limit);
                kept += 1;
            }
        }
        self.count = kept;
    }
}

impl CpuTimeLimit {
    /// Kills the members if they have reached the limit, and sets the moment of the next check.
    fn check(&mut self, now: u64) {
        self.due = match self.used() {
            _ if !self.is_exhausted() && self.is_abandoned() => u64::MAX,
            Ok(used) if used < self.limit && !self.is_exhausted() => {
                let left = (self.limit - used).max(self.limit / 20);
                // At least a millisecond, so that there are not a thousand checks at the end.
                now.saturating_add(left.checked_div(self.cpus).unwrap_or(0).max(1000))
            }
            Ok(_) => self.end(now),
            Err(errno) if is_gone(errno) => u64::MAX,
            // For example, there is no free descriptor now.
            Err(_) => now.saturating_add(RETRY_INTERVAL),
        };
    }

    fn is_exhausted(&self) -> bool {
        self.pause > 0
    }

    /// Returns the moment of the next check.
    fn end(&mut self, now: u64) -> u64 {
        if !self.is_exhausted() {
            self.pause = FIRST_PAUSE;
            let _ = protocol::reply(&self.owner, &Message::new(protocol::CPU_TIME_EXHAUSTED), &[]);
        } else {
            cgroup::kill_listed(self.cgroup.as_fd());
        }
        // The next check shows whether this has succeeded.
        let _ = cgroup::kill(&self.cgroup);
        match Events::open(&self.cgroup).and_then(|events| events.is(b"populated 0")) {
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
        let file = syscall::openat(&self.cgroup, c"cpu.stat", 0)?;
        let mut text = [0_u8; 256];
        let len = syscall::read(file, &mut text)?;
        let text = text.get(..len).unwrap_or(&[]);
        let line = text.split(|byte| *byte == b'\n').find_map(|l| l.strip_prefix(b"usage_usec "));
        line.and_then(number).ok_or(Errno::INVAL)
    }

    /// Whether the owner has closed its end.
    fn is_abandoned(&self) -> bool {
        syscall::poll(&mut [PollFd::new(&self.owner, POLLIN)], 0) > 0
    }
}
