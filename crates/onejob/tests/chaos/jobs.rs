//! What is known of a job, and what its owner may answer about it.

use testkit::proc;

use crate::{
    plan::Request,
    verifier::{Identity, Pair},
};

/// Who holds a job: a library owner or an `onejob run`, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Owner(usize),
    Run(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Held,
    Released,
    /// Nothing of it is to be left.
    Over,
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) tag: String,
    pub(crate) holder: Holder,
    pub(crate) state: State,
    /// Members that end only if they are killed, and that nothing has been done to.
    pub(crate) must_live: Vec<Identity>,
    /// Members without the tag.
    pub(crate) adopted: Vec<Identity>,
    /// The guards of this job, or under Cgroup of its owner, as seen last.
    pub(crate) pair: Option<Pair>,
    /// A guard that it needs was killed, or members may be killed at any time: nothing is known of who
    /// lives, and requests may fail.
    pub(crate) is_spoiled: bool,
    /// A member may be started after the request for it was given up.
    pub(crate) is_loose: bool,
    /// It was frozen once: requests to start members may fail.
    pub(crate) may_be_frozen: bool,
}

/// What happened around a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around {
    /// A fault, injection, or another request that can change what is answered.
    pub(crate) is_disturbed: bool,
    /// Another request that may kill members of the same job.
    pub(crate) kills: bool,
    /// Another request that may start members of the same job.
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

    /// From now on nothing is known of who lives.
    pub(crate) fn spoil(&mut self) {
        self.is_spoiled = true;
        self.must_live.clear();
    }

    /// Whether an answer contradicts what is known from outside.
    ///
    /// # Errors
    /// With what is wrong.
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
                Err(format!("said to be empty while {:?} live", self.must_live))
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

    /// What has no reason to fail where nothing disturbs it.
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
