//! A test case: a scenario, an environment and an ending.

use std::{
    any::Any,
    collections::BTreeSet,
    fmt,
    process::{Child, Stdio},
};

use testkit::{
    Bins, Environment, Fixture, Helper, KillOnDrop, Owner, Reply, Report, Sandbox, eventually,
};

use crate::proof;

/// How a job comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Stop,
    Kill,
    Drop,
    Run,
}

impl Ending {
    pub(crate) const ALL: [Ending; 4] = [Ending::Stop, Ending::Kill, Ending::Drop, Ending::Run];
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Stop => "stop",
            Ending::Kill => "kill",
            Ending::Drop => "drop",
            Ending::Run => "the end of `onejob run`",
        })
    }
}

/// Short, because many members ignore SIGTERM.
const GRACE_MILLIS: u32 = 150;

/// Fields are dropped in this order: the owner must end before its sandbox is cleared.
pub(crate) struct Case {
    holder: Holder,
    /// The processes in the sandbox that are not members: the owner, its guards, its other child.
    nonmembers: BTreeSet<i32>,
    ending: Ending,
    /// A process outside. A namespace does not end while this process traces a dead member.
    pub(crate) _outside: Option<Box<dyn Any>>,
    pub(crate) fixture: Fixture,
}

/// The process that holds the job: a program with the library, or the command.
enum Holder {
    Library(Owner),
    Command(KillOnDrop),
}

impl Case {
    /// Starts the scenario as the first member of a new job, and the bystanders beside it.
    pub(crate) fn start(environment: Environment, ending: Ending, scenario: &Scenario) -> Case {
        let mut fixture = Fixture::new(environment);
        let words = (scenario.words)(&fixture.report, environment);
        let (holder, nonmembers) = match ending {
            Ending::Run => (
                Holder::Command(KillOnDrop(run(&mut fixture.sandbox, environment, &words))),
                BTreeSet::new(),
            ),
            _ => {
                let (owner, nonmembers) =
                    hold(&mut fixture.sandbox, environment, &words, scenario.piped);
                (Holder::Library(owner), nonmembers)
            }
        };
        let group = match &holder {
            Holder::Library(owner) => owner.group(),
            Holder::Command(run) => run.0.id() as i32,
        };
        fixture.start_bystanders(group);
        Case { holder, nonmembers, ending, _outside: None, fixture }
    }

    /// The only live helper of a role.
    #[track_caller]
    pub(crate) fn helper(&self, role: &str) -> Helper {
        self.fixture.report.helper(&self.fixture.sandbox, role)
    }

    /// The helper of the role `escapee`. Checks that it has left the session.
    #[track_caller]
    pub(crate) fn escapee(&self) -> Helper {
        let escapee = self.helper("escapee");
        proof::left_the_session(&escapee);
        escapee
    }

    /// Ends the job and returns the result.
    #[track_caller]
    fn end(&mut self) -> Reply {
        let ending = self.ending;
        match &mut self.holder {
            Holder::Library(owner) => match ending {
                Ending::Stop => owner.request(&format!("stop {GRACE_MILLIS}")),
                Ending::Kill => owner.request("kill"),
                _ => owner.request("drop"),
            },
            Holder::Command(run) => {
                // The guards end after the command.
                let program = self.fixture.sandbox.program(&run.0).expect("a living program");
                self.nonmembers.extend(proof::guards(&self.fixture.sandbox, program));
                self.fixture.report.go();
                let status = eventually("the end of `onejob run`", || {
                    run.0.try_wait().expect("a child of this process")
                });
                let answer = status.to_string();
                if status.success() { Ok(answer) } else { Err(answer) }
            }
        }
    }

    /// Ends the job and checks that no member is alive.
    #[track_caller]
    pub(crate) fn ends_without_survivors(mut self) {
        let before = self.fixture.sandbox.live_pids().len();
        assert!(before > self.nonmembers.len(), "no members: {before} processes");
        let answer = self.end();
        let survivors = self.survivors();
        assert!(survivors.is_empty(), "SURVIVED: {survivors:#?}, and the answer is {answer:?}");
        assert!(answer.is_ok(), "no process survived, but the answer is {answer:?}");
        self.close();
    }

    #[cfg(target_os = "linux")]
    /// Ends a job with one member that cannot be killed. Checks that this member is reported and that all other
    /// members are dead.
    #[track_caller]
    pub(crate) fn reports_survivor(mut self, survivor: &Helper) {
        let answer = self.end();
        let pids: Vec<_> = self.survivors().iter().map(|living| living.pid).collect();
        assert_eq!(pids, [survivor.pid], "SURVIVED beside the setuid member; answer {answer:?}");
        match self.ending {
            Ending::Stop | Ending::Kill => {
                let error = answer.expect_err("a report of the survivor");
                let named = format!("survivors {}: ", survivor.inner);
                assert!(error.starts_with(&named), "not {named:?} but {error:?}");
            }
            // A drop cannot report an error.
            Ending::Drop => assert!(answer.is_ok(), "{answer:?}"),
            Ending::Run => {
                answer.expect_err("no success with a survivor");
            }
        }
        std::fs::write(self.fixture.report.beside(".end"), "")
            .expect("a writable scratch directory");
        eventually("the end of the survivor", || {
            (!testkit::proc::is_alive(survivor.pid)).then_some(())
        });
        self.close();
    }

    /// Ends a job whose members have a pipe as their standard output. Checks that the pipe ends and is empty.
    #[track_caller]
    pub(crate) fn ends_with_its_pipe_closed(mut self) {
        let answer = self.end();
        let survivors = self.survivors();
        assert!(survivors.is_empty(), "SURVIVED: {survivors:#?}, and the answer is {answer:?}");
        let rest = match &mut self.holder {
            Holder::Library(owner) => owner.ok("child-pipe"),
            Holder::Command(run) => {
                let pipe = run.0.stdout.take().expect("piped");
                std::io::read_to_string(pipe).expect("a readable pipe")
            }
        };
        assert_eq!(rest, "", "a member wrote to the pipe");
        self.close();
    }

    /// The live processes in the sandbox that should be dead.
    fn survivors(&self) -> Vec<testkit::LiveProcess> {
        let living = self.fixture.sandbox.live().into_iter();
        living.filter(|living| !self.nonmembers.contains(&living.pid)).collect()
    }

    /// Checks that the owner still answers and that no process outside of the job has ended, ends the owner, and
    /// checks that nothing is left.
    #[track_caller]
    fn close(mut self) {
        if let Holder::Library(owner) = &mut self.holder {
            assert!(owner.is_alive(), "the owner died");
            let outsider = owner.ok("outsiders-alive");
            assert_eq!(outsider, "true", "the owner's child outside of the job died");
            owner.ok("outsiders-kill");
        }
        self.fixture.assert_bystanders_alive();
        if let Holder::Library(owner) = self.holder {
            owner.end();
        }
        // Only the mechanism Cgroup removes the cgroups that members made.
        let is_cgroup = self.fixture.environment.mechanism() == "cgroup";
        self.fixture.sandbox.wait_until_empty(|name| !is_cgroup && !name.starts_with("onejob"));
    }
}

type Words = dyn Fn(&Report, Environment) -> Vec<String>;

/// The command line of a member, and whether its output is a pipe.
pub(crate) struct Scenario {
    words: Box<Words>,
    piped: bool,
}

impl Scenario {
    /// A scenario of the helper.
    pub(crate) fn helper(name: &'static str) -> Scenario {
        Scenario::new(move |report, _| {
            let helper = Bins::get().helper().display().to_string();
            vec![helper, name.to_owned(), report.arg().to_owned()]
        })
    }

    pub(crate) fn new(words: impl Fn(&Report, Environment) -> Vec<String> + 'static) -> Scenario {
        Scenario { words: Box::new(words), piped: false }
    }

    pub(crate) fn piped(mut self) -> Scenario {
        self.piped = true;
        self
    }
}

/// An owner with a job, a child outside of it, and a first member.
fn hold(
    sandbox: &mut Sandbox,
    environment: Environment,
    words: &[String],
    piped: bool,
) -> (Owner, BTreeSet<i32>) {
    let mut owner = Owner::start(sandbox, environment);
    let helper = Bins::get().helper();
    owner.ok(&format!("outsider {} sleep {}", helper.display(), Bins::NOWHERE));
    owner.new_job();
    let nonmembers = sandbox.live_pids().into_iter().collect();
    let how = if piped { "spawn-piped" } else { "spawn" };
    owner.ok(&format!("{how} {}", words.join(" ")));
    (owner, nonmembers)
}

fn run(sandbox: &mut Sandbox, environment: Environment, words: &[String]) -> Child {
    let killpg = std::env::var_os("ONEJOB_TEST_CONTAINMENT").is_some();
    let bins = Bins::get();
    let program = if killpg { bins.owner() } else { bins.onejob() };
    sandbox.start(&program, |command| {
        if killpg {
            command.arg("run-killpg");
        } else {
            let grace = format!("{GRACE_MILLIS}ms");
            command.args(["run", "--mechanism", environment.mechanism(), "-k", &grace, "--"]);
        }
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
    })
}
