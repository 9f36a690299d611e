//! One case: a scenario, an environment and an ending.

use std::{
    any::Any,
    collections::BTreeSet,
    fmt,
    process::{Child, Stdio},
};

use testkit::{Bins, Bystanders, Environment, Helper, Owner, Reply, Report, Sandbox, eventually};

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

/// Short, since many members do not react at all.
const GRACE_MILLIS: u32 = 150;

/// Fields are dropped in this order: the owner must end before its sandbox is cleared.
pub(crate) struct Case {
    holder: Holder,
    bystanders: Bystanders,
    /// Who lives in the sandbox and is no member: the owner, its guards, its other child.
    bystander: BTreeSet<i32>,
    pub(crate) report: Report,
    pub(crate) environment: Environment,
    ending: Ending,
    /// Lives outside; a namespace does not end while it holds a dead member.
    pub(crate) _outside: Option<Box<dyn Any>>,
    pub(crate) sandbox: Sandbox,
}

/// Who holds the job: a program with the library, or the command.
enum Holder {
    Library(Owner),
    Command(Run),
}

/// A running `onejob run`.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Case {
    /// Starts the scenario as the first member of a new job, and the bystanders beside it.
    pub(crate) fn start(environment: Environment, ending: Ending, scenario: &Scenario) -> Case {
        let mut sandbox = Sandbox::new(environment);
        let report = Report::new();
        let words = (scenario.words)(&report, environment);
        let (holder, bystander) = match ending {
            Ending::Run => {
                (Holder::Command(Run(run(&mut sandbox, environment, &words))), BTreeSet::new())
            }
            _ => {
                let (owner, bystander) = hold(&mut sandbox, environment, &words, scenario.piped);
                (Holder::Library(owner), bystander)
            }
        };
        let group = match &holder {
            Holder::Library(owner) => owner.group(),
            Holder::Command(run) => run.0.id() as i32,
        };
        let bystanders = Bystanders::beside(&sandbox, group);
        Case { holder, bystanders, bystander, report, environment, ending, _outside: None, sandbox }
    }

    /// The one living helper of a role.
    #[track_caller]
    pub(crate) fn helper(&self, role: &str) -> Helper {
        self.report.helper(&self.sandbox, role)
    }

    /// The helper of the role `escapee`, proven to have left the session of its job's holder.
    #[track_caller]
    pub(crate) fn escapee(&self) -> Helper {
        let escapee = self.helper("escapee");
        proof::left_the_session(&escapee);
        escapee
    }

    /// Ends the job; whether that succeeded is for the caller to judge.
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
                // They end by the end of the command, hence after it.
                let program = self.sandbox.program(&run.0).expect("a living program");
                self.bystander.extend(proof::guards(&self.sandbox, program));
                self.report.go();
                let status = eventually("`onejob run` to end", || run.0.try_wait().expect("ours"));
                let answer = status.to_string();
                if status.success() { Ok(answer) } else { Err(answer) }
            }
        }
    }

    /// Ends the job and asserts that everybody but the bystander is dead by then, for good.
    #[track_caller]
    pub(crate) fn ends_without_survivors(mut self) {
        let before = self.sandbox.live_pids().len();
        assert!(before > self.bystander.len(), "nobody to end: {before} processes");
        let answer = self.end();
        let survivors = self.survivors();
        assert!(survivors.is_empty(), "SURVIVED: {survivors:#?}, and the answer is {answer:?}");
        assert!(answer.is_ok(), "nobody survived, but the answer is {answer:?}");
        self.close();
    }

    #[cfg(target_os = "linux")]
    /// Ends a job with one member that cannot be killed: it is reported, all others are dead.
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
            // A drop has nobody to tell.
            Ending::Drop => assert!(answer.is_ok(), "{answer:?}"),
            Ending::Run => {
                answer.expect_err("no success with a survivor");
            }
        }
        std::fs::write(self.report.beside(".end"), "").expect("a writable scratch directory");
        eventually("the end of the survivor", || {
            (!testkit::proc::is_alive(survivor.pid)).then_some(())
        });
        self.close();
    }

    /// The end of the pipe that the members have as their standard output: it comes when nobody
    /// is left to write, and before the job's end it has not come.
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
        assert_eq!(rest, "", "nobody wrote anything");
        self.close();
    }

    /// Who lives in the sandbox and should not.
    fn survivors(&self) -> Vec<testkit::LiveProcess> {
        let living = self.sandbox.live().into_iter();
        living.filter(|living| !self.bystander.contains(&living.pid)).collect()
    }

    /// The owner still answers, nobody beside the job was hit, and when the owner has ended too,
    /// nothing is left.
    #[track_caller]
    fn close(mut self) {
        if let Holder::Library(owner) = &mut self.holder {
            assert!(owner.is_alive(), "HIT the owner");
            let outsider = owner.ok("outsiders-alive");
            assert_eq!(outsider, "true", "HIT the owner's child outside of the job");
            owner.ok("outsiders-kill");
        }
        self.bystanders.assert_alive();
        if let Holder::Library(owner) = self.holder {
            owner.end();
        }
        // What a member made is the job's to remove only where the job is a cgroup around it.
        let is_cgroup = self.environment.mechanism() == "cgroup";
        self.sandbox.wait_until_empty(|name| !is_cgroup && !name.starts_with("onejob"));
    }
}

type Words = dyn Fn(&Report, Environment) -> Vec<String>;

/// A program's words, and whether its output is to be a pipe.
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
    let bystander = sandbox.live_pids().into_iter().collect();
    let how = if piped { "spawn-piped" } else { "spawn" };
    owner.ok(&format!("{how} {}", words.join(" ")));
    (owner, bystander)
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
