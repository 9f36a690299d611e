//! Compares the answers and the live processes with the state that they must have.

use crate::{
    jobs::{Around, State},
    owners::Onejob,
    plan::Request,
    round::{Round, Verdict},
    verifier::{Identity, describe, pair_above, tagged},
};

impl Round<'_> {
    /// Checks the answers to a line of requests.
    pub(crate) fn check_answers(
        &mut self,
        owner: usize,
        requests: &[(usize, Request)],
        jobs: &[Option<usize>],
        answers: &[Option<Result<String, String>>],
        is_disturbed: bool,
    ) -> Verdict {
        let of = |job: Option<usize>, is: fn(&Request) -> bool, but: usize| {
            let others = requests.iter().zip(jobs).enumerate();
            others
                .filter(|(index, (_, its))| *index != but && **its == job)
                .any(|(_, ((_, request), _))| is(request))
        };
        // First the state that is unknown from now on.
        for ((_, request), job) in requests.iter().zip(jobs) {
            if let Some(job) = job.and_then(|job| self.jobs.get_mut(&job)) {
                if request.is_deadly() {
                    job.must_live.clear();
                }
                job.is_spoiled |= matches!(request, Request::Limit(limit) if request.is_deadly() && limit.starts_with("cpu"));
                job.may_be_frozen |=
                    matches!(request, Request::Plain("freeze") | Request::Limit(_));
            }
        }
        for (index, ((slot, request), answer)) in requests.iter().zip(answers).enumerate() {
            let (Some(job), Some(answer)) = (jobs[index], answer) else { continue };
            let around = Around {
                is_disturbed,
                kills: of(Some(job), Request::is_deadly, index),
                spawns: of(Some(job), Request::spawns, index),
            };
            self.jobs[&job].check(request, answer, around)?;
            self.record(owner, *slot, job, request, answer, around)?;
        }
        Ok(())
    }

    /// Records the effect of a request, and checks it.
    fn record(
        &mut self,
        owner: usize,
        slot: usize,
        job: usize,
        request: &Request,
        answer: &Result<String, String>,
        around: Around,
    ) -> Verdict {
        let state = self.jobs.get_mut(&job).expect("made above");
        match (request, answer) {
            (Request::New { .. }, Ok(_)) => {
                if let Some(before) = self.slots.insert((owner, slot), job) {
                    self.dropped(before, around)?;
                }
            }
            (Request::New { .. }, Err(_)) => {
                state.state = State::Over;
            }
            (Request::Spawn(tree) | Request::SpawnStd(tree), Ok(pid)) => {
                let is_known =
                    tree.stays && !around.kills && !state.is_spoiled && !around.is_disturbed;
                let inner = pid.parse().map_err(|_| format!("not a pid: {pid}"))?;
                let identity = self.sandbox.outer_pid(inner).and_then(Identity::of);
                if let Some(identity) = identity {
                    state.pair = pair_above(identity.pid).or(state.pair);
                    if is_known {
                        state.must_live.push(identity);
                    }
                } else if is_known {
                    return Err(format!("the new member {pid} is gone"));
                }
            }
            (Request::Adopt(_), answer) => {
                let adopted = self.adopting.pop_front().expect("one for each line");
                match answer {
                    Ok(_) => {
                        state.adopted.push(adopted);
                        if !around.kills && !state.is_spoiled && !around.is_disturbed {
                            state.must_live.push(adopted);
                        }
                    }
                    // The process may have been moved before the error.
                    Err(_) if around.is_disturbed => {}
                    Err(_) => self.outsiders.push(adopted),
                }
            }
            (Request::Kill | Request::Stop { .. }, Ok(_)) if !around.spawns => {
                self.has_killed(job)?;
            }
            (Request::Drop, Ok(_)) => {
                self.slots.remove(&(owner, slot));
                self.dropped(job, around)?;
            }
            (Request::Release, answer) => {
                self.slots.remove(&(owner, slot));
                state.state = if answer.is_ok() { State::Released } else { State::Over };
                if answer.is_err() {
                    state.must_live.clear();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks that no member is alive after a kill that has succeeded.
    pub(crate) fn has_killed(&mut self, job: usize) -> Verdict {
        let job = &self.jobs[&job];
        if job.is_loose {
            return Ok(());
        }
        let mut left = tagged(&self.sandbox, &job.tag);
        left.extend(job.adopted.iter().filter(|one| one.is_alive()).map(|one| one.pid));
        match left[..] {
            [] => Ok(()),
            _ => Err(format!("SURVIVED a kill:\n{}", describe(&left))),
        }
    }

    /// Records that a job was dropped, and checks that no member is alive.
    fn dropped(&mut self, job: usize, around: Around) -> Verdict {
        let state = self.jobs.get_mut(&job).expect("a job in a slot");
        state.state = State::Over;
        state.must_live.clear();
        // If the drop itself failed, the guards end the members later.
        if around.is_disturbed || state.is_spoiled {
            return Ok(());
        }
        self.has_killed(job).map_err(|error| format!("dropped: {error}"))
    }

    /// Records that the output of an owner has ended.
    pub(crate) fn owner_has_ended(&mut self, owner: usize, line: &str) -> Verdict {
        let status = self.owners[owner].awaits_end();
        if self.owners[owner].is_ended {
            return Ok(());
        }
        self.note(format!("owner {owner} ended by itself: {status}"));
        self.owner_ends(owner);
        // With injected errors the program can fail; a panic of the library is found in its output later.
        match self.plan.inject {
            Some(_) => Ok(()),
            None => Err(format!("owner {owner} ended with {status} at {line:?}")),
        }
    }

    /// Checks that a command did not panic, and did not end by a signal that no process has sent.
    pub(crate) fn check_command(
        &self,
        command: &Onejob,
        status: std::process::ExitStatus,
    ) -> Verdict {
        use std::os::unix::process::ExitStatusExt;
        let said = command.said();
        // These have the status of the process that they started or waited for.
        let passes_status_on =
            ["run", "exec", "wait"].iter().any(|verb| command.what.starts_with(verb));
        let by_a_signal = status.signal().is_some() || status.code().is_some_and(|code| code > 128);
        let of_a_signal = by_a_signal && !passes_status_on;
        let panicked = said.contains("panicked at") || status.code() == Some(101);
        if said.contains("was not made by onejob") {
            return Err(format!("onejob {} does not know its own file: {said}", command.what));
        }
        if panicked || of_a_signal && !command.is_killed {
            return Err(format!("onejob {} ended with {status}: {said}", command.what));
        }
        Ok(())
    }

    /// Checks that all processes live that no operation has ended.
    pub(crate) fn check_bystanders(&mut self) -> Verdict {
        self.bystanders.assert_alive();
        for (number, owner) in self.owners.iter().enumerate() {
            if !owner.is_ended && !owner.identity.is_alive() && self.plan.inject.is_none() {
                return Err(format!("owner {number} has ended: {:?}", owner.identity));
            }
        }
        let members = self.jobs.values().flat_map(|job| &job.must_live);
        for bystander in members.chain(&self.outsiders) {
            if !bystander.is_alive() {
                return Err(format!("a process outside of ended jobs has died: {bystander:?}"));
            }
        }
        Ok(())
    }
}
