//! The state that a job must have, and the answers of its owner that are possible.

use testkit::proc;

use crate::{
    plan::Request,
    verifier::{Identity, Pair},
};

/// The process that holds a job: an owner with the library or an `onejob run`, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Owner(usize),
    Run(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Held,
    Released,
    /// The job has ended: nothing of it must be left.
    Over,
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) tag: String,
    pub(crate) holder: Holder,
    pub(crate) state: State,
    /// Members that end only if they are killed, and that no operation has ended.
    pub(crate) must_live: Vec<Identity>,
    /// Adopted members, which do not have the tag.
    pub(crate) adopted: Vec<Identity>,
    /// The guards of this job (under Cgroup: of its owner) when they were last listed.
    pub(crate) pair: Option<Pair>,
    /// A guard that it needs was killed, or members may be killed at any time: it is unknown which members
    /// live, and requests may fail.
    pub(crate) is_spoiled: bool,
    /// A member may be started after the request for it was aborted.
    pub(crate) is_loose: bool,
    /// It may be frozen: requests to start members may fail.
    pub(crate) may_be_frozen: bool,
}

/// The circumstances of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around {
    /// A fault, an injected error, or another request can change the answer.
    pub(crate) is_disturbed: bool,
    /// Another request may kill members of the same job.
    pub(crate) kills: bool,
    /// Another request may start members of the same job.
    pub(crate) spawns: bool,
}

impl Job {
    pub(crate) fn new(tag: String, holder: Holder) -> Job {
        Job {
            tag,
            holder,
            state: State::Held,
            must_live: Vec::new(),
            adopted: Vec::new(),
            pair: None,
            is_spoiled: false,
            is_loose: false,
            may_be_frozen: false,
        }
    }

    /// From now on it is unknown which members live.
    pub(crate) fn spoil(&mut self) {
        self.is_spoiled = true;
        self.must_live.clear();
    }

    /// Checks an answer against the processes that are alive.
    ///
    /// # Errors
    /// If the answer is false.
    pub(crate) fn check(
        &self,
        request: &Request,
        answer: &Result<String, String>,
        around: Around,
    ) -> Result<(), String> {
        let known = !around.kills && !self.must_live.is_empty();
        match (request, answer) {
            (Request::Plain("list" | "pids"), Ok(listed)) if known => {
                let listed = testkit::numbers(listed);
                let inner = |member: &Identity| proc::inner_pid(member.pid);
                let missing = self.must_live.iter().filter(|member| {
                    inner(member).is_some_and(|pid| !listed.contains(&pid)) && member.is_alive()
                });
                let missing: Vec<_> = missing.collect();
                match missing[..] {
                    [] => Ok(()),
                    _ => Err(format!("{missing:?} live and are not listed: {listed:?}")),
                }
            }
            (Request::Plain("empty") | Request::WaitTimeout { .. }, Ok(empty))
                if known && empty == "true" =>
            {
                Err(format!("is reported as empty while {:?} live", self.must_live))
            }
            (Request::Wait, Ok(_)) if known => {
                Err(format!("a wait ended while {:?} live", self.must_live))
            }
            (_, Err(error))
                if !around.is_disturbed && !self.is_spoiled && self.must_not_fail(request) =>
            {
                Err(format!("{request:?} failed: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the request must succeed if nothing disturbs it.
    fn must_not_fail(&self, request: &Request) -> bool {
        match request {
            Request::New { .. } | Request::Kill | Request::Stop { .. } | Request::Drop => true,
            Request::Plain(verb) => {
                ["list", "pids", "tree", "empty", "stats", "guarantees"].contains(verb)
            }
            Request::WaitTimeout { .. } | Request::Release => true,
            Request::Spawn(_) => !self.may_be_frozen,
            _ => false,
        }
    }
}
