//! One round: runs the steps of a plan.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use testkit::{Bins, Bystanders, Sandbox, proc, scratch_dir};

use crate::{
    eventually,
    jobs::{Holder, Job, State},
    owners::{Onejob, Owner, control},
    plan::{During, Plan, Request, Step, Tree, View},
    verifier::{Identity, Pair, describe, pair_above, pairs, tagged, words},
};

/// An error describes the failed check.
pub(crate) type Verdict = Result<(), String>;

pub(crate) struct Round<'a> {
    pub(crate) bystanders: Bystanders,
    pub(crate) plan: &'a Plan,
    pub(crate) dir: PathBuf,
    pub(crate) owners: Vec<Owner>,
    pub(crate) runs: BTreeMap<usize, Run>,
    pub(crate) jobs: BTreeMap<usize, Job>,
    /// Which job is in which slot of which owner.
    pub(crate) slots: BTreeMap<(usize, usize), usize>,
    /// Each `onejob wait`, and the job that it waits for.
    pub(crate) waits: Vec<(usize, Onejob)>,
    /// The processes that the current line of requests adopts, in order.
    pub(crate) adopting: VecDeque<Identity>,
    /// Children of the owners that are not members.
    pub(crate) outsiders: Vec<Identity>,
    pub(crate) killed_guards: BTreeSet<Identity>,
    pub(crate) is_armed: bool,
    commands: usize,
    log: Vec<String>,
    start: Instant,
    pub(crate) sandbox: Sandbox,
}

/// An `onejob run`.
pub(crate) struct Run {
    pub(crate) process: Onejob,
    pub(crate) job: usize,
    pub(crate) is_ended: bool,
}

impl<'a> Round<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Round<'a> {
        let mut sandbox = Sandbox::new(plan.environment);
        let dir = scratch_dir();
        let owners = (0..plan.ends.len()).map(|number| {
            Owner::start(&mut sandbox, &dir, &format!("owner{number}"), plan.inject.as_ref())
        });
        let owners: Vec<_> = owners.collect();
        let bystanders = Bystanders::beside(&sandbox, proc::group(owners[0].identity.pid));
        Round {
            bystanders,
            plan,
            dir,
            owners,
            runs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            slots: BTreeMap::new(),
            waits: Vec::new(),
            adopting: VecDeque::new(),
            outsiders: Vec::new(),
            killed_guards: BTreeSet::new(),
            is_armed: false,
            commands: 0,
            log: Vec::new(),
            start: Instant::now(),
            sandbox,
        }
    }

    /// Adds an event to the log of the round.
    pub(crate) fn note(&mut self, what: String) {
        self.log.push(format!("{:8.3} {what}", self.start.elapsed().as_secs_f64()));
    }

    pub(crate) fn log(&self) -> String {
        let injected = fs::read_to_string(self.dir.join("inject.log")).unwrap_or_default();
        let injected: Vec<_> = injected.lines().rev().take(30).collect();
        let living = describe(&self.sandbox.live_pids());
        format!("{}\ninjected, the last first: {injected:?}\nalive:\n{living}", self.log.join("\n"))
    }

    /// Runs all steps, then ends the round.
    pub(crate) fn run(&mut self) -> Verdict {
        for number in 0..self.plan.steps.len() {
            let step = self.plan.steps[number].clone();
            let before = Instant::now();
            self.note(format!("step {number}"));
            self.step(&step)?;
            let took = before.elapsed();
            if took > Duration::from_secs(5) {
                eprintln!("SLOW: {took:?} for {step:?} of CHAOS_SEED={}", self.plan.seed);
            }
            self.check_bystanders().map_err(|error| format!("after step {number}: {error}"))?;
        }
        self.settle()
    }

    fn step(&mut self, step: &Step) -> Verdict {
        match step {
            Step::Ask { owner, requests, during } => self.ask(*owner, requests, *during),
            Step::Run { run, job, tree } => {
                self.start_run(*run, *job, tree);
                Ok(())
            }
            Step::View { view, during } => self.run_view(view, *during),
            Step::Arm(on) => {
                self.arm(*on);
                Ok(())
            }
            Step::Fault(fault) => {
                self.fault(*fault, None);
                Ok(())
            }
            Step::Pause { millis } => {
                thread::sleep(Duration::from_millis(*millis));
                Ok(())
            }
        }
    }

    pub(crate) fn arm(&mut self, on: bool) {
        let control = control(&self.dir);
        if on {
            fs::write(control, "").expect("a scratch directory");
        } else {
            let _ = fs::remove_file(control);
        }
        self.is_armed = on && self.plan.inject.is_some();
    }

    fn tree_words(tree: &Tree, tag: &str) -> String {
        let Tree { seed, budget, stays } = tree;
        let root = if *stays { "stays" } else { "ends" };
        format!("{} chaos /dev/null {tag} {seed} {budget} {root}", Bins::get().helper().display())
    }

    fn new_job(&mut self, id: usize, holder: Holder) -> String {
        let tag = format!("chaos-tag-{}-{id}", self.plan.seed);
        self.jobs.insert(id, Job::new(tag.clone(), holder));
        tag
    }

    pub(crate) fn living_owner(&self, owner: usize) -> Option<Identity> {
        let owner = self.owners.get(owner).filter(|owner| !owner.is_ended);
        owner.map(|owner| owner.identity)
    }

    pub(crate) fn living_run(&self, run: usize) -> Option<Identity> {
        let run = self.runs.get(&run).filter(|run| !run.is_ended)?;
        let name = name_of(run.job);
        let is_it = |pid: &i32| {
            let words = words(*pid);
            words.get(1).is_some_and(|verb| verb == "run") && words.contains(&name)
        };
        self.sandbox.live_pids().into_iter().find(is_it).and_then(Identity::of)
    }

    /// Owners come first, then the `onejob run`s that have been started.
    pub(crate) fn holder(&self, number: usize) -> Option<(Holder, i32)> {
        if number < self.owners.len() {
            return Some((Holder::Owner(number), self.living_owner(number)?.pid));
        }
        let run = number - self.owners.len();
        Some((Holder::Run(run), self.living_run(run)?.pid))
    }

    /// Records that an owner ends: its jobs must end.
    pub(crate) fn owner_ends(&mut self, owner: usize) {
        self.look_for_guards(Holder::Owner(owner), self.owners[owner].identity.pid);
        self.owners[owner].is_ended = true;
        self.holder_ends(Holder::Owner(owner));
    }

    pub(crate) fn run_ends(&mut self, run: usize) {
        if let Some(identity) = self.living_run(run) {
            self.look_for_guards(Holder::Run(run), identity.pid);
        }
        if let Some(run) = self.runs.get_mut(&run) {
            run.is_ended = true;
        }
        self.holder_ends(Holder::Run(run));
    }

    fn holder_ends(&mut self, holder: Holder) {
        for job in self.jobs.values_mut().filter(|job| job.holder == holder) {
            if job.state == State::Held {
                job.state = State::Over;
                job.must_live.clear();
            }
        }
    }

    fn look_for_guards(&mut self, holder: Holder, pid: i32) {
        for pair in pairs(&self.sandbox, pid) {
            self.seen_pair(holder, pair);
        }
    }

    /// Records the guards of a holder. Under Cgroup they guard all of its jobs, under Subreaper the job whose
    /// members are below them.
    pub(crate) fn seen_pair(&mut self, holder: Holder, pair: Pair) {
        let is_cgroup = self.plan.environment.mechanism() == "cgroup";
        for job in self.jobs.values_mut().filter(|job| job.holder == holder) {
            let its = if is_cgroup {
                Some(pair)
            } else if job.pair.is_none() {
                let members = tagged(&self.sandbox, &job.tag);
                members
                    .into_iter()
                    .filter_map(pair_above)
                    .find(|above| above.inner.is_some() && above.inner == pair.inner)
            } else {
                None
            };
            let Some(its) = its else { continue };
            // A guard that has died meanwhile still belongs to the pair.
            let before = job.pair.unwrap_or(its);
            job.pair =
                Some(Pair { outer: its.outer.or(before.outer), inner: its.inner.or(before.inner) });
        }
    }

    fn ask(
        &mut self,
        owner: usize,
        requests: &[(usize, Request)],
        during: Option<During>,
    ) -> Verdict {
        if self.living_owner(owner).is_none() {
            return Ok(());
        }
        let mut lines = Vec::new();
        let mut jobs = Vec::new();
        for (slot, request) in requests {
            let (job, line) = self.line(owner, *slot, request);
            lines.push(line.map(|line| format!("{slot} {line}")));
            jobs.push(job);
        }
        let asked: Vec<_> = lines.iter().flatten().cloned().collect();
        if asked.is_empty() {
            return Ok(());
        }
        let line = asked.join(" & ");
        self.note(line.clone());
        self.owners[owner].tell(&line);
        self.fault_during(during, None);
        let Some(answers) = self.owners[owner].answers(&line) else {
            // It is unknown whether the processes have become members.
            self.adopting.clear();
            return self.owner_has_ended(owner, &line);
        };
        self.note(format!("{answers:?}"));
        let mut answers = answers.into_iter();
        let answers = lines.iter().map(|line| line.as_ref().and_then(|_| answers.next()));
        let answers: Vec<_> = answers.collect();
        let is_disturbed = during.is_some() || self.is_armed || requests.len() > 1;
        self.check_answers(owner, requests, &jobs, &answers, is_disturbed)
            .map_err(|error| format!("{line}: {error}"))
    }

    /// The job and the line of a request; no line if the request is not possible any more.
    fn line(
        &mut self,
        owner: usize,
        slot: usize,
        request: &Request,
    ) -> (Option<usize>, Option<String>) {
        let mechanism = self.plan.environment.mechanism();
        if let Request::New { job, named } = request {
            self.new_job(*job, Holder::Owner(owner));
            let name = named.then(|| format!(" name={}", name_of(*job)));
            return (Some(*job), Some(format!("new {mechanism}{}", name.unwrap_or_default())));
        }
        let Some(job) = self.slots.get(&(owner, slot)).copied() else { return (None, None) };
        let tag = self.jobs[&job].tag.clone();
        let line = match request {
            Request::New { .. } => unreachable!("above"),
            Request::Spawn(tree) => format!("spawn {}", Self::tree_words(tree, &tag)),
            Request::SpawnStd(tree) => format!("spawn-std {}", Self::tree_words(tree, &tag)),
            Request::Adopt(tree) => match self.outsider(owner, tree) {
                Some(pid) => format!("adopt {pid}"),
                None => return (Some(job), None),
            },
            Request::Kill => "kill".into(),
            Request::Stop { millis } => format!("stop {millis}"),
            Request::WaitTimeout { millis } => format!("wait-timeout {millis}"),
            Request::Wait => "wait".into(),
            Request::Signal(signal) => format!("signal {signal}"),
            Request::Limit(limit) => format!("limit {limit}"),
            Request::Plain(verb) => (*verb).into(),
            // A wait for a live child would block, also for a child of an earlier job in this slot.
            Request::Reap if self.has_members(owner) => return (Some(job), None),
            Request::Reap => "reap".into(),
            Request::Drop => "drop".into(),
            Request::Release => "release".into(),
        };
        (Some(job), Some(line))
    }

    /// Whether a member of any earlier or current job of an owner is alive.
    pub(crate) fn has_members(&self, owner: usize) -> bool {
        let its = self.jobs.values().filter(|job| job.holder == Holder::Owner(owner));
        its.map(|job| tagged(&self.sandbox, &job.tag)).any(|members| !members.is_empty())
    }

    /// Starts a child of an owner outside of its jobs. Returns the pid in the namespace of the owner.
    fn outsider(&mut self, owner: usize, tree: &Tree) -> Option<i32> {
        let tree = Tree { budget: 0, stays: true, ..*tree };
        let line = format!("- outsider {}", Self::tree_words(&tree, "chaos-outsider"));
        let answer = self.owners[owner].ask(&line)?;
        let inner: i32 = answer.ok()?.parse().ok()?;
        let identity =
            eventually("an outsider", || self.sandbox.outer_pid(inner).and_then(Identity::of));
        self.adopting.push_back(identity);
        Some(inner)
    }

    fn start_run(&mut self, run: usize, job: usize, tree: &Tree) {
        let tag = self.new_job(job, Holder::Run(run));
        let head =
            ["run", "--name", &name_of(job), "--mechanism", self.plan.environment.mechanism()];
        let words = [&head[..], &["-k", "0.1", "--"]].concat();
        let mut words: Vec<_> = words.into_iter().map(str::to_owned).collect();
        words.extend(Self::tree_words(tree, &tag).split(' ').map(str::to_owned));
        let process = self.command(&words);
        self.runs.insert(run, Run { process, job, is_ended: false });
        // With injected errors and in a namespace, another program starts it.
        eventually("an onejob run", || {
            let has_ended = self.runs.get_mut(&run).and_then(|run| run.process.ended()).is_some();
            (has_ended || self.living_run(run).is_some()).then_some(())
        });
    }

    /// Starts `onejob` with these words.
    pub(crate) fn command(&mut self, words: &[String]) -> Onejob {
        self.commands += 1;
        self.note(format!("onejob {}", words.join(" ")));
        let inject = self.plan.inject.as_ref();
        Onejob::start(&mut self.sandbox, &self.dir, self.commands, words, inject)
    }

    fn run_view(&mut self, view: &View, during: Option<During>) -> Verdict {
        let (job, line) = match view {
            View::Words { job, words, .. } => (*job, words.replace("{}", &name_of(*job))),
            View::Exec { job, tree } => {
                let Some(state) = self.jobs.get(job) else { return Ok(()) };
                // A frozen member would block the command.
                if state.may_be_frozen {
                    return Ok(());
                }
                let tree = Self::tree_words(tree, &state.tag);
                (*job, format!("exec {} -- {tree}", name_of(*job)))
            }
            View::Wait { job } => (*job, format!("wait {}", name_of(*job))),
        };
        if !self.jobs.contains_key(&job) {
            return Ok(());
        }
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let mut command = self.command(&words);
        let identity = Identity::of(command.pid());
        if let View::Wait { .. } = view {
            self.waits.push((job, command));
            return Ok(());
        }
        self.fault_during(during, identity);
        command.is_killed = during.is_some();
        let status = command.awaits_end();
        self.note(format!("{status}: {}", command.said().trim_end()));
        let state = self.jobs.get_mut(&job).expect("looked up above");
        match view {
            View::Exec { .. } => state.is_loose |= during.is_some() || self.is_armed,
            View::Words { words, looks: false, .. } => {
                state.may_be_frozen |= words.starts_with("freeze");
                if words.starts_with("kill") {
                    state.must_live.clear();
                    // A run ends with its job.
                    if status.success() && during.is_none() && !self.is_armed {
                        self.has_killed(job).map_err(|error| format!("onejob {line}: {error}"))?;
                    }
                }
            }
            _ => {}
        }
        self.check_command(&command, status)
    }
}

pub(crate) fn name_of(job: usize) -> String {
    format!("job-{job}")
}
