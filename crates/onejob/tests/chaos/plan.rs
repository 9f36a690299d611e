//! The plan of a round: the same for the same seed.

use std::fmt;

use testkit::{Environment, Random};

/// How many jobs a library owner holds at once.
const SLOTS: usize = 3;

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) environment: Environment,
    /// Injected errors, for the owners and their descendants.
    pub(crate) inject: Option<Inject>,
    pub(crate) steps: Vec<Step>,
    /// How each library owner ends.
    pub(crate) ends: Vec<End>,
    /// How each `onejob run` ends.
    pub(crate) run_ends: Vec<RunEnd>,
}

/// One call in `times` fails, and the next `burst` calls of that process.
#[derive(Debug, Clone)]
pub(crate) struct Inject {
    pub(crate) seed: u64,
    pub(crate) times: u64,
    pub(crate) burst: u64,
    pub(crate) errors: &'static str,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// An owner handles these requests concurrently, and a fault can happen meanwhile.
    Ask {
        owner: usize,
        requests: Vec<(usize, Request)>,
        during: Option<During>,
    },
    /// `onejob run` holds a job.
    Run {
        run: usize,
        job: usize,
        tree: Tree,
    },
    /// A command acts on a job by its name.
    View {
        view: View,
        during: Option<During>,
    },
    /// Injection begins or ends.
    Arm(bool),
    Fault(Fault),
    Pause {
        millis: u64,
    },
}

/// A fault, so many microseconds after the start of an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct During {
    pub(crate) micros: u64,
    pub(crate) fault: Fault,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree {
    pub(crate) seed: u64,
    pub(crate) budget: u64,
    pub(crate) stays: bool,
}

/// A request to an owner about the job of a slot.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    New {
        job: usize,
        named: bool,
    },
    Spawn(Tree),
    SpawnStd(Tree),
    Adopt(Tree),
    Kill,
    Stop {
        millis: u64,
    },
    WaitTimeout {
        millis: u64,
    },
    Wait,
    Signal(&'static str),
    Limit(&'static str),
    /// A request that changes nothing for the members: a request of the program `owner`.
    Plain(&'static str),
    Reap,
    Drop,
    Release,
}

/// An operation of the command on a named job.
#[derive(Debug, Clone)]
pub(crate) enum View {
    /// Words with `{}` for the name of a job. `looks`: it does not change the job.
    Words {
        job: usize,
        words: &'static str,
        looks: bool,
    },
    Exec {
        job: usize,
        tree: Tree,
    },
    /// `onejob wait`, which must end when the job has ended.
    Wait {
        job: usize,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// One guard of a pair, or both. Holders are the owners and, after them, the `onejob run`s.
    Guard {
        holder: usize,
        pair: usize,
        which: Which,
        act: Act,
    },
    Owner {
        owner: usize,
        act: Act,
    },
    Run {
        run: usize,
        act: Act,
    },
    /// The command of the step.
    View(Act),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Inner,
    Outer,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Kill,
    /// Stopped and, after so many milliseconds, continued.
    Stop {
        millis: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Each job is dropped, then it ends.
    DropAll,
    /// Its input ends.
    Close,
    /// `_exit` without dropping the jobs.
    Quit,
    /// It executes another program.
    Exec,
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    Term,
    Kill,
    /// `onejob kill NAME`
    Command,
}

impl Plan {
    pub(crate) fn new(seed: u64, environments: &[Environment]) -> Plan {
        let mut random = Random::new(seed);
        let environment = random.pick(environments);
        let inject = random.one_in(3).then(|| Inject {
            seed: random.number(),
            times: random.pick(&[5, 20, 60, 200]),
            burst: random.pick(&[0, 0, 1, 4, 30]),
            errors: random.pick(&[
                "EMFILE",
                "ENOMEM",
                "ENOSPC",
                "EAGAIN",
                "ENFILE,EMFILE",
                "EMFILE,ENFILE,ENOMEM,ENOSPC,EAGAIN",
            ]),
        });
        let mut planner = Planner {
            random,
            owners: Vec::new(),
            named: Vec::new(),
            jobs: 0,
            runs: 0,
            steps: Vec::new(),
        };
        planner.steps(inject.is_some());
        let mut random = planner.random;
        let ends = [End::DropAll, End::DropAll, End::Close, End::Quit, End::Exec, End::Kill];
        let run_ends = [RunEnd::Term, RunEnd::Kill, RunEnd::Command];
        Plan {
            seed,
            environment,
            inject,
            steps: planner.steps,
            ends: planner.owners.iter().map(|_| random.pick(&ends)).collect(),
            run_ends: (0..planner.runs).map(|_| random.pick(&run_ends)).collect(),
        }
    }
}

/// The state while a plan is made, if all of its steps succeed.
struct Planner {
    random: Random,
    /// Which job is in which slot of each owner.
    owners: Vec<[Option<usize>; SLOTS]>,
    named: Vec<usize>,
    jobs: usize,
    runs: usize,
    steps: Vec<Step>,
}

impl Planner {
    fn steps(&mut self, inject: bool) {
        let owners = 1 + self.random.below(2);
        self.owners = (0..owners).map(|_| [None; SLOTS]).collect();
        if inject && self.random.one_in(3) {
            self.steps.push(Step::Arm(true));
        }
        for _ in 0..6 + self.random.below(20) {
            let step = self.step(inject);
            self.steps.push(step);
        }
    }

    fn step(&mut self, inject: bool) -> Step {
        match self.random.below(24) {
            0 if inject => Step::Arm(self.random.one_in(2)),
            1 => Step::Fault(self.fault()),
            2 => Step::Pause { millis: self.random.below(100) },
            3 if self.runs < 2 => {
                let (run, job) = (self.runs, self.jobs);
                self.runs += 1;
                self.jobs += 1;
                self.named.push(job);
                Step::Run { run, job, tree: self.tree() }
            }
            4..=8 if !self.named.is_empty() => {
                let view = self.view();
                let during = self.during(Some(3));
                Step::View { view, during }
            }
            _ => self.ask(inject),
        }
    }

    fn ask(&mut self, inject: bool) -> Step {
        let owner = self.random.below(self.owners.len() as u64) as usize;
        let slot = self.random.below(SLOTS as u64) as usize;
        let first = self.request(owner, slot);
        let mut requests = vec![(slot, first)];
        if self.random.one_in(3) {
            for _ in 0..1 + self.random.below(3) {
                let other = self.random.below(SLOTS as u64) as usize;
                let slot = if self.random.one_in(2) { slot } else { other };
                // Only one request may change the job of a slot.
                let used = |changes: bool| {
                    requests.iter().any(|(used, request): &(usize, Request)| {
                        *used == slot && (!changes || request.changes_the_slot())
                    })
                };
                if used(true) {
                    continue;
                }
                let before = self.owners[owner];
                let request = self.request(owner, slot);
                if request.changes_the_slot() && used(false) {
                    self.owners[owner] = before;
                    continue;
                }
                // A child of std that joins a frozen job blocks its parent until a thaw, and a child that does
                // not end blocks the thread that waits for it.
                let any = |is: fn(&Request) -> bool| {
                    is(&request) || requests.iter().any(|(_, other)| is(other))
                };
                if any(Request::spawns) && any(|it| matches!(it, Request::Reap))
                    || any(|it| matches!(it, Request::SpawnStd(_)))
                        && any(|it| matches!(it, Request::Plain("freeze")))
                {
                    continue;
                }
                requests.push((slot, request));
            }
        }
        // A wait without a timeout ends only if the members are killed, which an injected error can prevent.
        if let [(slot, Request::Kill)] = requests[..]
            && !inject
            && self.random.one_in(3)
        {
            requests.insert(0, (slot, Request::Wait));
        }
        let during = self.during(None);
        Step::Ask { owner, requests, during }
    }

    fn request(&mut self, owner: usize, slot: usize) -> Request {
        if self.owners[owner][slot].is_none() || self.random.one_in(20) {
            let job = self.jobs;
            self.jobs += 1;
            self.owners[owner][slot] = Some(job);
            let named = self.random.one_in(2);
            if named {
                self.named.push(job);
            }
            return Request::New { job, named };
        }
        match self.random.below(30) {
            0..=8 => Request::Spawn(self.tree()),
            9 => Request::SpawnStd(self.tree()),
            10 => Request::Adopt(self.tree()),
            11..=13 => Request::Kill,
            14 => Request::Stop { millis: self.random.below(150) },
            15 => Request::WaitTimeout { millis: self.random.below(150) },
            16 => Request::Signal(self.random.pick(&["TERM", "USR1", "STOP", "CONT", "KILL"])),
            17 => Request::Limit(self.random.pick(&["affinity=1", "cpu-time=300", "processes=50"])),
            18 => Request::Reap,
            19 => {
                self.owners[owner][slot] = None;
                Request::Drop
            }
            20 if self.random.one_in(2) => {
                self.owners[owner][slot] = None;
                Request::Release
            }
            _ => Request::Plain(self.random.pick(&[
                "list",
                "list",
                "pids",
                "tree",
                "empty",
                "freeze",
                "thaw",
                "stats",
                "guarantees",
                "limits",
                "set-note something",
                "jobs",
            ])),
        }
    }

    fn view(&mut self) -> View {
        let job = self.random.pick(&self.named);
        match self.random.below(6) {
            0 => View::Exec { job, tree: Tree { stays: false, ..self.tree() } },
            1 => View::Wait { job },
            2 => {
                let words =
                    ["kill -k 0.3 {}", "kill --now {}", "kill -k 0.1 {}", "freeze {}", "thaw {}"];
                View::Words { job, words: self.random.pick(&words), looks: false }
            }
            _ => {
                let words = ["ls", "tree {}", "stats {}", "limit {}", "ls --json", "doctor"];
                View::Words { job, words: self.random.pick(&words), looks: true }
            }
        }
    }

    fn tree(&mut self) -> Tree {
        let budget = if self.random.one_in(8) { 30 } else { 8 };
        let seed = self.random.number();
        Tree { seed, budget: self.random.below(budget), stays: !self.random.one_in(3) }
    }

    /// A fault during one operation in six, or in `times`.
    fn during(&mut self, times: Option<u64>) -> Option<During> {
        if !self.random.one_in(times.unwrap_or(6)) {
            return None;
        }
        let fault = match times {
            Some(_) if !self.random.one_in(4) => Fault::View(self.act()),
            _ => self.fault(),
        };
        let longest = self.random.pick(&[300, 3_000, 30_000]);
        Some(During { micros: self.random.below(longest), fault })
    }

    fn fault(&mut self) -> Fault {
        let owner = self.random.below(self.owners.len() as u64) as usize;
        let holder = self.random.below((self.owners.len() + self.runs) as u64) as usize;
        match self.random.below(8) {
            0 => Fault::Owner { owner, act: self.act() },
            1 if self.runs > 0 => {
                Fault::Run { run: self.random.below(self.runs as u64) as usize, act: self.act() }
            }
            _ => {
                let pair = self.random.below(3) as usize;
                let kinds = [Which::Inner, Which::Outer, Which::Inner, Which::Outer, Which::Both];
                let which = self.random.pick(&kinds);
                Fault::Guard { holder, pair, which, act: self.act() }
            }
        }
    }

    fn act(&mut self) -> Act {
        match self.random.one_in(2) {
            true => Act::Kill,
            false => Act::Stop { millis: self.random.below(200) },
        }
    }
}

impl Request {
    /// Whether it may end members.
    pub(crate) fn is_deadly(&self) -> bool {
        let harmless = matches!(self, Request::Limit("affinity=1"))
            || matches!(
                self,
                Request::Spawn(_)
                    | Request::SpawnStd(_)
                    | Request::Adopt(_)
                    | Request::WaitTimeout { .. }
                    | Request::Wait
                    | Request::Signal("STOP" | "CONT")
                    | Request::Plain(_)
                    | Request::Reap
                    | Request::Release
            );
        !harmless
    }

    /// Whether it changes the job of the slot.
    pub(crate) fn changes_the_slot(&self) -> bool {
        matches!(self, Request::New { .. } | Request::Drop | Request::Release)
    }

    /// Whether it can start members.
    pub(crate) fn spawns(&self) -> bool {
        matches!(self, Request::Spawn(_) | Request::SpawnStd(_) | Request::Adopt(_))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CHAOS_SEED={} in {}", self.seed, self.environment)?;
        if let Some(inject) = &self.inject {
            writeln!(f, "  {inject:?}")?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {number}: {step:?}")?;
        }
        write!(f, "  ends: {:?}, of runs: {:?}", self.ends, self.run_ends)
    }
}
