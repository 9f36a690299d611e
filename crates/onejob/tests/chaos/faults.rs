//! Faults: owners, guards and views are killed or stopped. The effect on what a job must do is recorded.

use std::{thread, time::Duration};

use rustix::process::Signal;

use crate::{
    jobs::{Holder, Job, State},
    plan::{Act, During, Fault, Which},
    round::Round,
    verifier::{Identity, Pair, pairs},
};

impl Round<'_> {
    /// Causes a fault during an operation.
    pub(crate) fn fault_during(&mut self, during: Option<During>, view: Option<Identity>) {
        let Some(During { micros, fault }) = during else { return };
        thread::sleep(Duration::from_micros(micros));
        self.fault(fault, view);
    }

    /// Does nothing if the target has ended or is not started yet.
    pub(crate) fn fault(&mut self, fault: Fault, view: Option<Identity>) {
        match fault {
            Fault::Guard { holder, pair, which, act } => {
                let Some((holder, pid)) = self.holder(holder) else { return };
                let pairs = pairs(&self.sandbox, pid);
                let Some(pair) = pairs.get(pair % pairs.len().max(1)) else { return };
                self.fault_guards(holder, *pair, which, act);
            }
            Fault::Owner { owner, act } => {
                let Some(identity) = self.living_owner(owner) else { return };
                if act == Act::Kill {
                    self.note(format!("owner {owner} killed"));
                    self.owner_ends(owner);
                }
                apply(&[identity], act);
            }
            Fault::Run { run, act } => {
                let Some(identity) = self.living_run(run) else { return };
                if act == Act::Kill {
                    self.note(format!("run {run} killed"));
                    self.run_ends(run);
                }
                apply(&[identity], act);
            }
            Fault::View(act) => {
                if let Some(identity) = view {
                    apply(&[identity], act);
                }
            }
        }
    }

    fn fault_guards(&mut self, holder: Holder, pair: Pair, which: Which, act: Act) {
        let targets = match which {
            Which::Inner => vec![pair.inner],
            Which::Outer => vec![pair.outer],
            Which::Both => vec![pair.inner, pair.outer],
        };
        let targets: Vec<_> = targets.into_iter().flatten().collect();
        if act == Act::Kill && crate::is_left_out("guard-kills") {
            return;
        }
        if act == Act::Kill {
            self.note(format!("{holder:?}: guards killed: {targets:?} of {pair:?}"));
            self.guards_end(holder, pair, &targets);
        }
        apply(&targets, act);
    }

    /// Records that guards are killed. Under Subreaper the job ends with its inner guard, and once both guards are
    /// dead, its members cannot be found any more. A job in a cgroup continues.
    fn guards_end(&mut self, holder: Holder, pair: Pair, killed: &[Identity]) {
        self.killed_guards.extend(killed);
        self.seen_pair(holder, pair);
        // The death of the outer guard has no effect as long as the inner one lives.
        let inner = pair.inner.filter(|inner| killed.contains(inner));
        let Some(inner) = inner.filter(|_| self.plan.environment.mechanism() != "cgroup") else {
            return;
        };
        let is_its = |seen: Option<Pair>| seen.is_none_or(|seen| seen.inner == Some(inner));
        let jobs = self.jobs.values_mut();
        jobs.filter(|job| job.holder == holder && job.state == State::Held && is_its(job.pair))
            .for_each(Job::spoil);
    }
}

fn apply(act_on: &[Identity], act: Act) {
    match act {
        Act::Kill => act_on.iter().for_each(|one| one.signal(Signal::KILL)),
        Act::Stop { millis } => {
            act_on.iter().for_each(|one| one.signal(Signal::STOP));
            thread::sleep(Duration::from_millis(millis));
            act_on.iter().for_each(|one| one.signal(Signal::CONT));
        }
    }
}
