//! Cgroups that a guard ends while its owner lives: those that the owner could not end itself, and abandoned ones.
//!
//! A member can be stuck in the kernel, so the guard does not wait for one. It tries again after ever longer
//! pauses, and at once when a cgroup is empty, and serves requests in between.

use super::{
    super::{
        cgroup::{Events, State, abandoned, end_now, name_of},
        syscall::{self, OwnedFd, PollFd},
    },
    task::Cgroups,
};

/// How many cgroups of the owner are retried. If there are more, their members are killed once.
const MAX_OWN: usize = 256;

/// The first and the longest pause between two rounds, in microseconds.
const FIRST_PAUSE: u64 = 10_000;
const LONGEST_PAUSE: u64 = 60_000_000;

/// How long one round takes at most, in microseconds.
const ROUND_TIME: u64 = 20_000;

pub(crate) struct Unfinished {
    /// The number of the job and of its cgroup. The first `count` are used.
    own: [[i32; 2]; MAX_OWN],
    count: usize,
    /// Whether there may be abandoned cgroups.
    abandoned: bool,
    /// The moment of the next round, if a cgroup is left.
    due: u64,
    /// 0 before the first round: the memory of a guard is all zeroes at first.
    pause: u64,
    /// The events of a cgroup that has members.
    events: Option<Events>,
}

impl Unfinished {
    pub(crate) const NONE: Unfinished = Unfinished {
        own: [[0; 2]; MAX_OWN],
        count: 0,
        abandoned: false,
        due: 0,
        pause: 0,
        events: None,
    };

    /// Ends a cgroup of the owner, at the next round.
    pub(crate) fn end(&mut self, cgroups: Cgroups<'_>, cgroup: [i32; 2]) {
        match self.own.get_mut(self.count) {
            Some(slot) => {
                *slot = cgroup;
                self.count += 1;
            }
            None => {
                let name = name_of(cgroups.prefix, cgroup[0], cgroup[1]);
                let _ = end_now(cgroups.base, name.as_c_str(), true, syscall::now() + ROUND_TIME);
            }
        }
        self.start_soon();
    }

    /// Ends the abandoned cgroups, at the next round.
    pub(crate) fn end_abandoned(&mut self) {
        self.abandoned = true;
        self.start_soon();
    }

    /// One more round before the guard exits: if every owner lives only for a short time, no guard would have a
    /// second round, which kills the members that `cgroup.kill` misses.
    pub(crate) fn last_check(&self, cgroups: Option<Cgroups<'_>>) {
        if self.abandoned
            && let Some(Cgroups { base, prefix }) = cgroups
        {
            let _ = abandoned::sweep(base, prefix, true, syscall::now() + ROUND_TIME);
        }
    }

    fn start_soon(&mut self) {
        (self.due, self.pause) = (0, FIRST_PAUSE);
    }

    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        self.events.as_ref().map_or(PollFd::NONE, Events::poll_fd)
    }

    /// To be called after an event.
    pub(crate) fn wake(&mut self) {
        // After an error the cgroup has been removed.
        if self.events.as_ref().is_some_and(|events| events.is(b"populated 0") != Ok(false)) {
            self.start_soon();
        }
    }

    /// Runs a round if it is due. Returns the milliseconds until the next one, or -1 if there is none.
    pub(crate) fn check(&mut self, cgroups: Option<Cgroups<'_>>) -> i32 {
        let Some(cgroups) = cgroups.filter(|_| self.count > 0 || self.abandoned) else { return -1 };
        let now = syscall::now();
        if self.due <= now {
            if self.round(cgroups, now + ROUND_TIME) {
                self.pause = FIRST_PAUSE;
            }
            if self.count == 0 && !self.abandoned {
                self.events = None;
                return -1;
            }
            let pause = self.pause.max(FIRST_PAUSE);
            self.due = syscall::now() + pause;
            self.pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.due.saturating_sub(now).div_ceil(1000) as i32
    }

    /// Returns whether a cgroup was removed.
    fn round(&mut self, Cgroups { base, prefix }: Cgroups<'_>, until: u64) -> bool {
        let again = self.pause > FIRST_PAUSE;
        let (mut kept, mut ended, mut populated) = (0, false, None::<OwnedFd>);
        for at in 0..self.count {
            let Some(cgroup) = self.own.get(at).copied() else { break };
            let name = name_of(prefix, cgroup[0], cgroup[1]);
            match end_now(base, name.as_c_str(), again, until) {
                Ok(State::Gone) => ended = true,
                Ok(State::Released) => {}
                Err(errno) if !errno.is_transient() => {}
                state => {
                    if let Ok(State::Populated(cgroup)) = state {
                        populated = Some(cgroup);
                    }
                    if let Some(slot) = self.own.get_mut(kept) {
                        *slot = cgroup;
                        kept += 1;
                    }
                }
            }
        }
        self.count = kept;
        if self.abandoned {
            let swept = abandoned::sweep(base, prefix, again, until);
            // After a permanent error the cgroups cannot be listed, and so not be ended either.
            let is_retried = swept.as_ref().is_err_and(|errno| errno.is_transient());
            let sweep = swept.unwrap_or_default();
            self.abandoned = sweep.left || is_retried;
            ended |= sweep.ended;
            populated = populated.or(sweep.populated);
        }
        let events = populated.and_then(|cgroup| Events::open(cgroup).ok());
        // The file must have been read before `poll` waits for a change.
        self.events = events.filter(|events| events.is(b"populated 0") == Ok(false));
        ended
    }
}
