//! Cgroups that a guard ends while its owner lives: those that the owner could not end itself, and those
//! that dead owners have abandoned.
//!
//! A member can be stuck in the kernel, so the guard never waits for one: it looks again ever less often,
//! and at once when one is empty. Between two looks it does what it is there for.

use super::super::{
    cgroup::{Events, State, abandoned, end_now, name_of},
    syscall::{self, Fd, PollFd},
};

/// How many cgroups of the owner are remembered. More are killed once.
const MAX_OWN: usize = 256;

/// The pauses between two looks, in microseconds.
const FIRST_PAUSE: u64 = 10_000;
const LONGEST_PAUSE: u64 = 60_000_000;

/// How long one look takes at most, in microseconds.
const LOOK: u64 = 20_000;

pub(crate) struct Unfinished {
    /// The job's number, and which one of its cgroups.
    own: [[i32; 2]; MAX_OWN],
    count: usize,
    abandoned: bool,
    /// The moment of the next look, if anything is left.
    due: u64,
    /// 0 until the first look: the memory of a guard begins as zeroes.
    pause: u64,
    /// Tells when one of them is empty.
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

    /// Has a cgroup of the owner ended.
    pub(crate) fn end(&mut self, base: i32, prefix: &[u8], cgroup: [i32; 2]) {
        match self.own.get_mut(self.count) {
            Some(place) => {
                *place = cgroup;
                self.count += 1;
            }
            None => {
                let name = name_of(prefix, cgroup[0], cgroup[1]);
                let _ = end_now(base, name.as_c_str(), true, syscall::now() + LOOK);
            }
        }
        self.look_soon();
    }

    /// Has what is abandoned ended.
    pub(crate) fn end_abandoned(&mut self) {
        self.abandoned = true;
        self.look_soon();
    }

    /// Before the guard leaves: where every job is short no other look would reach the members that
    /// `cgroup.kill` overlooks.
    pub(crate) fn last_look(&self, base: i32, prefix: &[u8]) {
        if self.abandoned {
            let _ = abandoned::sweep(base, prefix, true, syscall::now() + LOOK);
        }
    }

    fn look_soon(&mut self) {
        (self.due, self.pause) = (0, FIRST_PAUSE);
    }

    pub(crate) fn poll_fd(&self) -> PollFd {
        self.events.as_ref().map_or(PollFd::new(-1, 0), Events::poll_fd)
    }

    /// After the events have fired.
    pub(crate) fn wake(&mut self) {
        // An error says that it was removed.
        if self.events.as_ref().is_some_and(|events| events.is(b"populated 0") != Ok(false)) {
            self.look_soon();
        }
    }

    /// Looks if that is due; the milliseconds until the next look, or -1 for none.
    pub(crate) fn look(&mut self, base: i32, prefix: &[u8]) -> i32 {
        if self.count == 0 && !self.abandoned {
            return -1;
        }
        let now = syscall::now();
        if self.due <= now {
            if self.round(base, prefix, now + LOOK) {
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

    /// Whether a cgroup was removed.
    fn round(&mut self, base: i32, prefix: &[u8], until: u64) -> bool {
        let again = self.pause > FIRST_PAUSE;
        let (mut kept, mut ended, mut populated) = (0, false, None::<Fd>);
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
                    if let Some(place) = self.own.get_mut(kept) {
                        *place = cgroup;
                        kept += 1;
                    }
                }
            }
        }
        self.count = kept;
        if self.abandoned {
            let swept = abandoned::sweep(base, prefix, again, until);
            // What cannot be looked for, now or later, cannot be ended either.
            let is_later = swept.as_ref().is_err_and(|errno| errno.is_transient());
            let sweep = swept.unwrap_or_default();
            self.abandoned = sweep.left || is_later;
            ended |= sweep.ended;
            populated = populated.or(sweep.populated);
        }
        let events = populated.and_then(|cgroup| Events::open(cgroup.raw()).ok());
        // What is polled must have been read.
        self.events = events.filter(|events| events.is(b"populated 0") == Ok(false));
        ended
    }
}
