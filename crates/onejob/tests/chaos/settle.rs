//! The end of a round: the owners end, and nothing of their jobs may be left.

use crate::{
    deadline, eventually,
    jobs::{Holder, Job, State},
    plan::{End, RunEnd},
    round::{Round, Verdict, name_of},
    verifier::{Identity, describe, our_zombies, spinning, tagged},
};
use rustix::process::Signal;
use testkit::GUARD;

impl Round<'_> {
    pub(crate) fn settle(&mut self) -> Verdict {
        self.note("settle".into());
        self.arm(false);
        let spinning =
            if self.plan.seed.is_multiple_of(3) { spinning(&self.sandbox) } else { Vec::new() };
        if !spinning.is_empty() {
            return Err(format!("guards SPIN:\n{}", describe(&spinning)));
        }
        for owner in 0..self.owners.len() {
            self.end_owner(owner)?;
        }
        for run in 0..self.plan.run_ends.len() {
            self.end_run(run)?;
        }
        self.note("all owners have ended".into());
        self.check_bystanders()?;
        self.members_end()?;
        self.waits_end()?;
        self.nothing_is_left()
    }

    fn end_owner(&mut self, owner: usize) -> Verdict {
        let number = owner;
        let mut end = self.plan.ends[number];
        if self.living_owner(number).is_none() {
            end = End::Kill;
        }
        self.note(format!("owner {number}: {end:?}"));
        if end == End::DropAll {
            return self.drop_all(number);
        }
        self.owner_ends(number);
        let owner = &mut self.owners[number];
        match end {
            End::DropAll => unreachable!("above"),
            End::Close => owner.close(),
            End::Quit => owner.tell("- quit"),
            End::Kill => owner.identity.signal(Signal::KILL),
            End::Exec => {
                let helper = testkit::Bins::get().helper();
                owner.tell(&format!("- exec {} sleep /dev/null", helper.display()));
                let identity = owner.identity;
                let is_another = || {
                    let stat = testkit::proc::stat(identity.pid);
                    stat.is_none_or(|stat| stat.comm == "helper" || stat.state == 'Z').then_some(())
                };
                eventually("another program", is_another);
                self.outsiders.push(identity);
                return Ok(());
            }
        }
        let status = self.owners[number].awaits_end();
        self.note(format!("owner {number}: {status}"));
        self.check_owner(number)
    }

    /// Checks that the library did not panic, and without injected errors nothing else did.
    fn check_owner(&self, owner: usize) -> Verdict {
        let said = self.owners[owner].said();
        let panicked = said.lines().any(|line| {
            line.contains("panicked at")
                && (self.plan.inject.is_none() || line.contains("onejob/src"))
        });
        if panicked { Err(format!("owner {owner} panicked: {said}")) } else { Ok(()) }
    }

    fn drop_all(&mut self, owner: usize) -> Verdict {
        let ours = self.jobs.iter().filter(|(_, job)| {
            let is_sure = !job.is_spoiled && self.plan.inject.is_none();
            job.holder == Holder::Owner(owner) && job.state == State::Held && is_sure
        });
        let ours: Vec<_> = ours.map(|(id, _)| *id).collect();
        for slot in 0..3 {
            let line = format!("{slot} drop");
            if self.owners[owner].ask(&line).is_none() {
                return Err(format!("owner {owner} ended at {line:?}"));
            }
        }
        let identity = self.owners[owner].identity;
        for job in &ours {
            self.has_killed(*job).map_err(|error| format!("dropped: {error}"))?;
        }
        if self.plan.inject.is_none() && !self.has_members(owner) {
            // The owner must wait for its own children.
            for slot in 0..3 {
                let reaped = self.owners[owner].ask(&format!("{slot} reap"));
                self.note(format!("{reaped:?}"));
            }
            let zombies = our_zombies(identity.pid);
            if !zombies.is_empty() {
                return Err(format!("owner {owner} has zombies of the library: {zombies:?}"));
            }
        }
        self.owner_ends(owner);
        self.owners[owner].close();
        let status = self.owners[owner].awaits_end();
        self.note(format!("owner {owner}: {status}"));
        self.check_owner(owner)
    }

    fn end_run(&mut self, number: usize) -> Verdict {
        if !self.runs.contains_key(&number) {
            return Ok(());
        }
        let end = self.plan.run_ends[number];
        let identity = self.living_run(number);
        self.note(format!("run {number}: {end:?} {identity:?}"));
        let job = self.runs[&number].job;
        if let Some(identity) = identity {
            self.run_ends(number);
            if end == RunEnd::Command {
                let words = ["kill", "-k", "0.1", &name_of(job)].map(str::to_owned);
                let mut kill = self.command(&words);
                let status = kill.awaits_end();
                self.note(format!("{status}: {}", kill.said().trim_end()));
            }
            // A frozen CMD does not react to a signal that is passed on to it.
            let may_be_frozen = self.jobs.get(&job).is_some_and(|job| job.may_be_frozen);
            let is_killed = end == RunEnd::Kill || may_be_frozen;
            let signal = if is_killed { Signal::KILL } else { Signal::TERM };
            identity.signal(signal);
        }
        self.run_ends(number);
        let mut run = self.runs.remove(&number).expect("looked up above");
        // SIGTERM may be ignored.
        run.process.is_killed = true;
        let status = run.process.awaits_end();
        self.note(format!("run {number}: {status}: {}", run.process.said().trim_end()));
        self.check_command(&run.process, status)
    }

    /// Whether both guards were killed: no process ends the members then. The next job of the same user ends
    /// members in a cgroup.
    fn is_lost(&self, job: &Job) -> bool {
        let Some(pair) = job.pair else { return false };
        let was_killed =
            |guard: Option<Identity>| guard.is_none_or(|guard| self.killed_guards.contains(&guard));
        was_killed(pair.inner) && was_killed(pair.outer)
    }

    /// Checks that all members of jobs that are over die, and no other process.
    fn members_end(&mut self) -> Verdict {
        let is_cgroup = self.plan.environment.mechanism() == "cgroup";
        let lost: Vec<_> = self.jobs.values().filter(|job| self.is_lost(job)).collect();
        let needs_cleanup = is_cgroup && !lost.is_empty();
        let lost: Vec<_> = lost.iter().map(|job| job.tag.clone()).collect();
        if needs_cleanup {
            self.clean_up()?;
        }
        let over = |job: &&Job| job.state == State::Over && (is_cgroup || !lost.contains(&job.tag));
        let since = std::time::Instant::now();
        loop {
            let mut left = Vec::new();
            for job in self.jobs.values().filter(over) {
                left.extend(tagged(&self.sandbox, &job.tag));
                left.extend(job.adopted.iter().filter(|it| it.is_alive()).map(|it| it.pid));
            }
            if left.is_empty() {
                break;
            }
            if since.elapsed() > deadline() {
                return Err(format!("SURVIVED (lost: {lost:?}):\n{}", describe(&left)));
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let took = since.elapsed();
        if took.as_secs() >= 5 {
            eprintln!(
                "SLOW: members were gone {took:?} after their owners, CHAOS_SEED={}",
                self.plan.seed
            );
        }
        self.check_bystanders()
    }

    /// Runs a job of the same user: it ends jobs of owners that were killed together with their guards.
    fn clean_up(&mut self) -> Verdict {
        // A nested job of root can be in a cgroup whatever the mechanism of the outer job is.
        let mechanism =
            if self.plan.environment.has_cgroups() && !self.plan.environment.is_ordinary() {
                "cgroup"
            } else {
                self.plan.environment.mechanism()
            };
        let words = ["run", "--mechanism", mechanism, "--", "true"];
        let mut run = self.command(&words.map(str::to_owned));
        let status = run.awaits_end();
        if status.success() {
            return Ok(());
        }
        Err(format!("onejob run true ended with {status}: {}", run.said()))
    }

    fn waits_end(&mut self) -> Verdict {
        for (job, mut wait) in std::mem::take(&mut self.waits) {
            let state = self.jobs.get(&job).map(|job| job.state);
            let status = wait.awaits_end();
            self.note(format!("wait for job {job} ({state:?}): {status}: {}", wait.said()));
            self.check_command(&wait, status)?;
        }
        Ok(())
    }

    /// Kills the processes that are allowed to live on, and checks that nothing else is left.
    fn nothing_is_left(&mut self) -> Verdict {
        let tags: Vec<_> = self.jobs.values().map(|job| job.tag.clone()).collect();
        let adopted = self.jobs.values().flat_map(|job| &job.adopted);
        let alone: Vec<_> = adopted.chain(&self.outsiders).copied().collect();
        let kill_rest = || {
            let mut left: Vec<_> = tags.iter().flat_map(|tag| tagged(&self.sandbox, tag)).collect();
            left.extend(tagged(&self.sandbox, "chaos-outsider"));
            left.extend(alone.iter().filter(|it| it.is_alive()).map(|it| it.pid));
            left.iter().filter_map(|pid| Identity::of(*pid)).for_each(|it| it.signal(Signal::KILL));
            left.is_empty().then_some(())
        };
        eventually("the end of the released members and the outsiders", kill_rest);
        let guards = || {
            let mut living = self.sandbox.live();
            living.retain(|it| it.stat.as_ref().is_some_and(|stat| stat.comm == GUARD));
            living.iter().map(|it| it.pid).collect::<Vec<_>>()
        };
        if self.awaits(|| guards().is_empty()).is_err() {
            return Err(format!("guards were left:\n{}", describe(&guards())));
        }
        if self.awaits(|| self.sandbox.live().is_empty()).is_err() {
            return Err(format!("SURVIVED:\n{}", describe(&self.sandbox.live_pids())));
        }
        self.no_record_is_left()?;
        self.no_cgroup_is_left()
    }

    /// Polls until the condition is true, up to the deadline.
    fn awaits(&self, condition: impl Fn() -> bool) -> Result<(), ()> {
        let since = std::time::Instant::now();
        while !condition() {
            if since.elapsed() > deadline() {
                return Err(());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(())
    }

    /// Guards remove the records of their owners. The records of owners that were killed with their guards are
    /// removed when the jobs are listed.
    fn no_record_is_left(&mut self) -> Verdict {
        if !self.sandbox.runtime_files().is_empty() {
            let mut ls = self.command(&["ls".to_owned()]);
            let status = ls.awaits_end();
            self.check_command(&ls, status)?;
        }
        match &self.sandbox.runtime_files()[..] {
            [] => Ok(()),
            left => Err(format!("records were left: {left:?}")),
        }
    }

    fn no_cgroup_is_left(&mut self) -> Verdict {
        // A member outside of a job's cgroup can have made cgroups elsewhere.
        let is_a_jobs = |path: &std::path::PathBuf| {
            path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("onejob-"))
        };
        let left = |round: &Round<'_>| {
            let mut nested = round.sandbox.nested_cgroups();
            nested.retain(is_a_jobs);
            nested
        };
        if !left(self).is_empty() {
            self.note(format!("cleaned up: {:?}", left(self)));
            self.clean_up()?;
        }
        if self.awaits(|| left(self).is_empty()).is_err() {
            return Err(format!("cgroups were left: {:?}", left(self)));
        }
        Ok(())
    }
}
