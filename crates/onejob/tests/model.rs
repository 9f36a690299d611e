//! A model of one job, its owner and its two guards, explored exhaustively: every order in which the three
//! act, with an owner that is killed at any moment and up to two guards that are killed or stopped.
//!
//! Each step has the name of the function that takes it. Where no step is left, the promises must hold: no
//! wait goes on, no member lives and no guard is stopped, unless a guarantee excludes it; and in no state
//! has a signal reached a process that is not a member. Each step that the promises depend on is removed
//! in turn, and the model must notice.

use std::collections::HashSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mechanism {
    Cgroup,
    Subreaper,
}

/// How far the owner has come; `Dead` however that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Starts,
    Launched,
    /// Waits for the guard to start its child.
    Requested,
    /// Has a child, and has not looked at its guards yet.
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
    /// Dead, and another process has its number.
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
    /// Whether the guards have been asked to end the job, or the socket is closed.
    is_told: bool,
    member: Member,
    has_hit_an_unrelated_process: bool,
    guard_faults: u8,
    owner_was_killed: bool,
    /// It was killed before it could know that its guards stand.
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

/// What is wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    None,
    Without(&'static str),
    KillByNumber,
}

impl State {
    fn new(mechanism: Mechanism) -> State {
        State {
            mechanism,
            owner: Owner::Starts,
            outer: Guard::Unborn,
            inner: Guard::Unborn,
            has_greeted: false,
            is_told: false,
            member: Member::None,
            has_hit_an_unrelated_process: false,
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

    /// `pidfd_send_signal(SIGKILL)`, or by a bare number.
    fn kill_member(&mut self, mutation: Mutation) {
        match self.member {
            Member::Lives => self.member = Member::Dead,
            Member::Reused if mutation == Mutation::KillByNumber => {
                self.has_hit_an_unrelated_process = true;
            }
            _ => {}
        }
    }

    /// Whether no guard is there that could do anything, now or once it is continued.
    fn has_no_guard(&self) -> bool {
        let is_gone = |guard| matches!(guard, Guard::Killed | Guard::Exited | Guard::Unborn);
        is_gone(self.outer) && is_gone(self.inner)
    }

    /// Every state that one step leads to.
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
                    step(&|s| (s.is_told, s.owner) = (true, Owner::Ends));
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
                    // The reply's other end is closed.
                    step(&|s| (s.is_told, s.owner) = (true, Owner::Ends));
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
                    s.is_told = true;
                    if can_find {
                        s.kill_member(mutation);
                    }
                });
                // Guards::end
                let finished = [self.outer, self.inner].contains(&Guard::Exited);
                if self.is_told && (finished || self.has_no_guard()) {
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
        self.is_told || self.owner == Owner::Dead
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

    /// What may happen or not, whatever the three do.
    fn events(self) -> Vec<State> {
        let mut next = Vec::new();
        if self.owner == Owner::Waits {
            // The owner drops the job.
            next.push(self.with(|s| s.owner = Owner::Ends));
        }
        if self.member == Member::Lives {
            // It ends by itself.
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

    /// The promise that is broken where no step is left.
    fn broken(&self) -> Option<&'static str> {
        // Two guards lost are excluded, and an only one, before it has started the other.
        let is_excluded = self.guard_faults == 2
            || (self.guard_faults == 1 && self.was_early && self.inner == Guard::Unborn);
        let is_stopped = [self.outer, self.inner].contains(&Guard::Stopped);
        // A wait for a member that lives is no fault as long as that has the guard that it needs.
        let has_lost_its_guard =
            self.mechanism == Mechanism::Subreaper && self.inner == Guard::Killed;
        if self.owner == Owner::Waits && self.member == Member::Lives && !has_lost_its_guard {
            // Others can want that guard: a view, or the owner's next child.
            let is_seen = self.inner == Guard::Stopped && self.outer == Guard::Runs;
            is_seen.then_some("a guard stays stopped")
        } else if self.owner != Owner::Dead {
            Some("a wait goes on for ever")
        } else if self.member == Member::Lives && !(is_excluded && self.owner_was_killed) {
            Some("a member lives")
        } else if is_stopped && !is_excluded && !self.was_last {
            Some("a guard stays stopped")
        } else {
            None
        }
    }
}

/// Every state that can be reached; how many there are, and the first broken promise.
fn explore(mechanism: Mechanism, mutation: Mutation) -> (usize, Option<(&'static str, State)>) {
    let mut known = HashSet::from([State::new(mechanism)]);
    let mut todo: Vec<_> = known.iter().copied().collect();
    while let Some(state) = todo.pop() {
        if state.has_hit_an_unrelated_process {
            return (known.len(), Some(("an unrelated process was hit", state)));
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
    let mut mutations = vec![Mutation::KillByNumber];
    mutations.extend(STEPS.map(Mutation::Without));
    for mutation in mutations {
        let broken = [Mechanism::Cgroup, Mechanism::Subreaper]
            .map(|mechanism| explore(mechanism, mutation).1.map(|(broken, _)| broken));
        eprintln!("{mutation:?}: {broken:?}");
        assert!(broken.iter().any(Option::is_some), "{mutation:?} changes nothing");
    }
}
