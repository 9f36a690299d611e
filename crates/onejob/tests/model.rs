//! A model of one job, its owner and its two guards. The test explores every order of the steps of the three,
//! with an owner that can be killed at any moment and up to two guards that are killed or stopped.
//!
//! Each step has the name of the function that takes it. In a state without further steps the guarantees must
//! hold: no wait continues, no member lives and no guard is stopped, unless the guarantees exclude the case. In
//! no state has a signal reached a process that is not a member. The test also removes each step that the
//! guarantees depend on, and the model must then find a broken guarantee.

use std::collections::HashSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mechanism {
    Cgroup,
    Subreaper,
}

/// The progress of the owner; `Dead` whatever its end was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Starts,
    Launched,
    /// Waits for the guard to start its child.
    Requested,
    /// Has a child, and has not checked its guards yet.
    Spawned,
    Waits,
    Ends,
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Guard {
    Unborn,
    Runs,
    Stopped,
    Killed,
    Exited,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Member {
    None,
    Lives,
    Dead,
    /// Dead, and another process has its pid.
    Reused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    mechanism: Mechanism,
    owner: Owner,
    outer: Guard,
    inner: Guard,
    /// Whether the outer guard has greeted.
    has_greeted: bool,
    /// Whether the guards were requested to end the job, or the socket is closed.
    end_requested: bool,
    member: Member,
    reached_an_unrelated_process: bool,
    guard_faults: u8,
    owner_was_killed: bool,
    /// It was killed before it knew that its guards are ready.
    was_early: bool,
    /// A guard was stopped when it was the last process of all.
    was_last: bool,
}

/// The steps that a mutation can remove.
const STEPS: [&str; 8] = [
    "Guards::greeted asks the inner guard",
    "Guard::stand_behind finishes for a killed inner guard",
    "Guard::stand_behind continues the inner guard",
    "Guard::finish",
    "Guard::leave continues the other guard",
    "Base::look_at_guards",
    "Pair::go_on",
    "Subreaper::end_found",
];

/// A deliberate fault in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    Without(&'static str),
    KillByPid,
}

impl State {
    fn new(mechanism: Mechanism) -> State {
        State {
            mechanism,
            owner: Owner::Starts,
            outer: Guard::Unborn,
            inner: Guard::Unborn,
            has_greeted: false,
            end_requested: false,
            member: Member::None,
            reached_an_unrelated_process: false,
            guard_faults: 0,
            owner_was_killed: false,
            was_early: false,
            was_last: false,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut State)) -> State {
        change(&mut self);
        self
    }

    /// `pidfd_send_signal(SIGKILL)`, or a kill by pid.
    fn kill_member(&mut self, mutation: Mutation) {
        match self.member {
            Member::Lives => self.member = Member::Dead,
            Member::Reused if mutation == Mutation::KillByPid => {
                self.reached_an_unrelated_process = true;
            }
            _ => {}
        }
    }

    /// Whether both guards are dead or not started.
    fn has_no_guard(&self) -> bool {
        let is_gone = |guard| matches!(guard, Guard::Killed | Guard::Exited | Guard::Unborn);
        is_gone(self.outer) && is_gone(self.inner)
    }

    /// All states that one step leads to.
    fn steps(self, mutation: Mutation) -> Vec<State> {
        let has = |step: &'static str| {
            assert!(STEPS.contains(&step), "{step}");
            mutation != Mutation::Without(step)
        };
        let mut next = self.owner_steps(mutation, &has);
        next.extend(self.outer_steps(mutation, &has));
        next.extend(self.inner_steps(mutation, &has));
        if self.member == Member::Dead {
            next.push(self.with(|s| s.member = Member::Reused));
        }
        next.retain(|state| *state != self);
        next
    }

    fn owner_steps(self, mutation: Mutation, has: &dyn Fn(&'static str) -> bool) -> Vec<State> {
        let is_cgroup = self.mechanism == Mechanism::Cgroup;
        let is_over = matches!(self.member, Member::Dead | Member::Reused);
        let mut next = Vec::new();
        let mut step = |change: &dyn Fn(&mut State)| next.push(self.with(change));
        let waits_for_guard = match self.owner {
            Owner::Starts => {
                // Launch::begin
                step(&|s| (s.outer, s.owner) = (Guard::Runs, Owner::Launched));
                false
            }
            Owner::Launched if is_cgroup => {
                // spawn::local
                step(&|s| (s.member, s.owner) = (Member::Lives, Owner::Spawned));
                false
            }
            Owner::Launched | Owner::Spawned => {
                let after = if is_cgroup { Owner::Waits } else { Owner::Requested };
                let is_asked = self.outer == Guard::Killed
                    && self.inner == Guard::Runs
                    && has("Guards::greeted asks the inner guard");
                if self.has_greeted || is_asked {
                    step(&|s| (s.has_greeted, s.owner) = (true, after));
                } else if self.has_no_guard() && !is_cgroup {
                    // The error of the start; the socket is closed.
                    step(&|s| (s.end_requested, s.owner) = (true, Owner::Ends));
                } else if self.has_no_guard() && has("Base::look_at_guards") {
                    // Base::replace
                    step(&|s| (s.outer, s.inner) = (Guard::Runs, Guard::Unborn));
                } else if self.has_no_guard() {
                    step(&|s| s.owner = Owner::Waits);
                }
                true
            }
            Owner::Requested => {
                if self.inner == Guard::Killed {
                    // The other end of the reply socket is closed.
                    step(&|s| (s.end_requested, s.owner) = (true, Owner::Ends));
                }
                true
            }
            Owner::Waits => {
                // Child::wait_to_be_told, or by the owner itself.
                if is_over && (is_cgroup || matches!(self.inner, Guard::Runs | Guard::Killed)) {
                    step(&|s| s.owner = Owner::Ends);
                }
                if self.has_no_guard() && !is_cgroup && has("Subreaper::end_found") {
                    step(&|s| s.kill_member(mutation));
                }
                !is_cgroup && (is_over || self.inner != Guard::Runs)
            }
            Owner::Ends if is_cgroup => {
                // Cgroup::close, then the end of the owner.
                step(&|s| {
                    s.kill_member(mutation);
                    if has("Pair::go_on") {
                        s.go_on();
                    }
                    s.owner = Owner::Dead;
                });
                false
            }
            Owner::Ends => {
                let can_find = !self.has_no_guard() || has("Subreaper::end_found");
                step(&|s| {
                    s.end_requested = true;
                    if can_find {
                        s.kill_member(mutation);
                    }
                });
                // Guards::end
                let finished = [self.outer, self.inner].contains(&Guard::Exited);
                if self.end_requested && (finished || self.has_no_guard()) {
                    step(&|s| s.owner = Owner::Dead);
                }
                true
            }
            Owner::Dead => false,
        };
        if waits_for_guard && has("Pair::go_on") {
            step(&|s| s.go_on());
        }
        next
    }

    fn go_on(&mut self) {
        for guard in [&mut self.outer, &mut self.inner] {
            if *guard == Guard::Stopped {
                *guard = Guard::Runs;
            }
        }
    }

    fn has_to_finish(&self) -> bool {
        self.end_requested || self.owner == Owner::Dead
    }

    fn outer_steps(self, mutation: Mutation, has: &dyn Fn(&'static str) -> bool) -> Vec<State> {
        let mut next = Vec::new();
        if self.outer != Guard::Runs {
            return next;
        }
        let mut step = |change: &dyn Fn(&mut State)| next.push(self.with(change));
        let finish = |s: &mut State| {
            s.kill_member(mutation);
            if s.inner == Guard::Stopped && has("Guard::leave continues the other guard") {
                s.inner = Guard::Runs;
            }
            s.outer = Guard::Exited;
        };
        match self.inner {
            // guard::run
            Guard::Unborn => step(&|s| s.inner = Guard::Runs),
            Guard::Exited => step(&|s| s.outer = Guard::Exited),
            Guard::Stopped if has("Guard::stand_behind continues the inner guard") => {
                step(&|s| s.inner = Guard::Runs);
            }
            Guard::Killed
                if self.mechanism == Mechanism::Subreaper
                    && has("Guard::stand_behind finishes for a killed inner guard") =>
            {
                step(&finish);
            }
            _ => {}
        }
        if self.inner != Guard::Unborn {
            // guard::greet
            step(&|s| s.has_greeted = true);
        }
        if self.has_to_finish() && self.inner != Guard::Unborn && has("Guard::finish") {
            step(&finish);
        }
        next
    }

    fn inner_steps(self, mutation: Mutation, has: &dyn Fn(&'static str) -> bool) -> Vec<State> {
        let mut next = Vec::new();
        if self.inner != Guard::Runs {
            return next;
        }
        if self.owner == Owner::Requested && self.member == Member::None {
            // Guard::spawn
            next.push(self.with(|s| (s.member, s.owner) = (Member::Lives, Owner::Waits)));
        }
        if self.has_to_finish() && has("Guard::finish") {
            next.push(self.with(|s| {
                s.kill_member(mutation);
                if s.outer == Guard::Stopped && has("Guard::leave continues the other guard") {
                    s.outer = Guard::Runs;
                }
                s.inner = Guard::Exited;
            }));
        }
        next
    }

    /// Events that can happen at any time.
    fn events(self) -> Vec<State> {
        let mut next = Vec::new();
        if self.owner == Owner::Waits {
            // The owner drops the job.
            next.push(self.with(|s| s.owner = Owner::Ends));
        }
        if self.member == Member::Lives {
            // The member exits.
            next.push(self.with(|s| s.member = Member::Dead));
        }
        if self.owner != Owner::Dead {
            let is_early = matches!(self.owner, Owner::Starts | Owner::Launched | Owner::Spawned);
            next.push(self.with(|s| {
                (s.owner, s.owner_was_killed, s.was_early) = (Owner::Dead, true, is_early);
            }));
        }
        if self.guard_faults == 2 {
            return next;
        }
        let fault = |s: &mut State| s.guard_faults += 1;
        for is_inner in [false, true] {
            let (guard, other) =
                if is_inner { (self.inner, self.outer) } else { (self.outer, self.inner) };
            let set = |s: &mut State, to| if is_inner { s.inner = to } else { s.outer = to };
            if matches!(guard, Guard::Runs | Guard::Stopped) {
                next.push(self.with(|s| {
                    fault(s);
                    set(s, Guard::Killed);
                }));
            }
            if guard == Guard::Runs {
                next.push(self.with(|s| {
                    fault(s);
                    set(s, Guard::Stopped);
                    s.was_last |= other == Guard::Exited;
                }));
            }
        }
        next
    }

    /// The broken guarantee of a state without further steps.
    fn broken(&self) -> Option<&'static str> {
        // The guarantees exclude the loss of both guards, and of the first guard before it has started the second.
        let is_excluded = self.guard_faults == 2
            || (self.guard_faults == 1 && self.was_early && self.inner == Guard::Unborn);
        let is_stopped = [self.outer, self.inner].contains(&Guard::Stopped);
        // A wait for a live member is correct as long as the guard that it needs lives.
        let has_lost_its_guard =
            self.mechanism == Mechanism::Subreaper && self.inner == Guard::Killed;
        if self.owner == Owner::Waits && self.member == Member::Lives && !has_lost_its_guard {
            // A view or the owner's next spawn may need that guard.
            let is_seen = self.inner == Guard::Stopped && self.outer == Guard::Runs;
            is_seen.then_some("a guard stays stopped")
        } else if self.owner != Owner::Dead {
            Some("a wait does not end")
        } else if self.member == Member::Lives && !(is_excluded && self.owner_was_killed) {
            Some("a member lives")
        } else if is_stopped && !is_excluded && !self.was_last {
            Some("a guard stays stopped")
        } else {
            None
        }
    }
}

/// Explores all reachable states. Returns their number and the first broken guarantee.
fn explore(mechanism: Mechanism, mutation: Mutation) -> (usize, Option<(&'static str, State)>) {
    let mut known = HashSet::from([State::new(mechanism)]);
    let mut todo: Vec<_> = known.iter().copied().collect();
    while let Some(state) = todo.pop() {
        if state.reached_an_unrelated_process {
            return (known.len(), Some(("a signal reached an unrelated process", state)));
        }
        let steps = state.steps(mutation);
        if let (true, Some(broken)) = (steps.is_empty(), state.broken()) {
            return (known.len(), Some((broken, state)));
        }
        todo.extend(steps.into_iter().chain(state.events()).filter(|next| known.insert(*next)));
    }
    (known.len(), None)
}

#[test]
fn no_order_of_steps_breaks_a_promise() {
    for mechanism in [Mechanism::Cgroup, Mechanism::Subreaper] {
        let (states, broken) = explore(mechanism, Mutation::None);
        assert_eq!(broken, None, "{mechanism:?}");
        assert!(states > 200, "{mechanism:?}: only {states} states");
    }
}

#[test]
fn without_any_one_step_a_promise_is_broken() {
    let mut mutations = vec![Mutation::KillByPid];
    mutations.extend(STEPS.map(Mutation::Without));
    for mutation in mutations {
        let broken = [Mechanism::Cgroup, Mechanism::Subreaper]
            .map(|mechanism| explore(mechanism, mutation).1.map(|(broken, _)| broken));
        eprintln!("{mutation:?}: {broken:?}");
        assert!(broken.iter().any(Option::is_some), "{mutation:?} changes nothing");
    }
}
