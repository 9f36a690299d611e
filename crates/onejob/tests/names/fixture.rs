//! What the tests of this file have in common.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use testkit::{
    Bins, Bystanders, Environment, Helper, Owner, Report, Sandbox, eventually, scratch_dir,
};

/// Plays in every environment to be had here.
pub(crate) fn every_environment(play: impl Fn(Environment)) {
    for environment in Environment::here() {
        eprintln!("{environment}");
        play(environment);
    }
}

/// A sandbox whose programs keep their records in a directory of their own.
pub(crate) struct Fixture {
    pub(crate) runtime: PathBuf,
    pub(crate) report: Report,
    pub(crate) environment: Environment,
    bystanders: Option<Bystanders>,
    pub(crate) sandbox: Sandbox,
}

impl Fixture {
    pub(crate) fn new(environment: Environment) -> Fixture {
        let sandbox = Sandbox::new(environment);
        let runtime = scratch_dir().join("runtime");
        Fixture { runtime, report: Report::new(), environment, bystanders: None, sandbox }
    }

    /// Starts a process that holds no job yet. The first one has bystanders beside it.
    #[track_caller]
    pub(crate) fn process(&mut self) -> Owner {
        let runtime = self.runtime.clone();
        let owner = Owner::start_with(&mut self.sandbox, self.environment, |command| {
            command.env("ONEJOB_RUNTIME_DIR", runtime);
        });
        if self.bystanders.is_none() {
            self.bystanders = Some(Bystanders::beside(&self.sandbox, owner.group()));
        }
        owner
    }

    /// Starts an owner of a job named `dev`, and another process that has opened it.
    #[track_caller]
    pub(crate) fn owner_and_view(&mut self) -> (Owner, Owner) {
        let mut owner = self.process();
        owner.ok(&self.new_job("dev"));
        let mut view = self.process();
        view.ok("open dev");
        (owner, view)
    }

    /// A request for a job with a name.
    pub(crate) fn new_job(&self, name: &str) -> String {
        format!("new {} name={name}", self.environment.mechanism())
    }

    /// A request that starts a helper.
    pub(crate) fn spawn(&self, scenario: &str) -> String {
        format!("spawn {} {scenario} {}", Bins::get().helper().display(), self.report.arg())
    }

    /// Fills the owner's job with one who stopped itself, one who is deaf to requests, one who
    /// counts signals and a daemon, and waits for them all.
    #[track_caller]
    pub(crate) fn crowd(&mut self, owner: &mut Owner) -> Crowd {
        for scenario in ["stopped", "stubborn", "daemon-grandchild", "signal-counter"] {
            owner.ok(&self.spawn(scenario));
        }
        let escapees = self.report.helpers(&self.sandbox, "escapee", 3);
        let stopped = |helper: &&Helper| helper.stat().state == 'T';
        let stopped = eventually("one who stops itself", || escapees.iter().find(stopped).cloned());
        let counter = self.report.helper(&self.sandbox, "counter");
        Crowd { stopped, counter, escapees }
    }

    /// What lies in the runtime directory.
    pub(crate) fn files(&self) -> Vec<String> {
        files(&self.runtime)
    }

    /// Waits until nothing of any job is left, neither a process nor a cgroup nor a file. The
    /// bystanders live.
    #[track_caller]
    pub(crate) fn is_deserted(&mut self) {
        self.sandbox.wait_until_empty(|_| false);
        let files = self.files();
        assert!(files.is_empty(), "{}: files were left: {files:?}", self.environment);
        self.assert_bystanders_alive();
    }

    #[track_caller]
    pub(crate) fn assert_bystanders_alive(&mut self) {
        self.bystanders.as_mut().expect("bystanders").assert_alive();
    }

    /// Waits until a helper is dead.
    #[track_caller]
    pub(crate) fn is_gone(&self, helper: &Helper) {
        eventually("the end of a member", || {
            (!self.sandbox.live_pids().contains(&helper.pid)).then_some(())
        });
    }

    /// The processes of this name.
    pub(crate) fn called(&self, name: &str) -> Vec<i32> {
        let living = self.sandbox.live().into_iter();
        let is_it = |living: &testkit::LiveProcess| {
            living.stat.as_ref().is_some_and(|stat| stat.comm == name)
        };
        living.filter(is_it).map(|living| living.pid).collect()
    }
}

/// Members whose states differ.
pub(crate) struct Crowd {
    pub(crate) stopped: Helper,
    pub(crate) counter: Helper,
    /// Those that have left the session, the stopped one too.
    pub(crate) escapees: Vec<Helper>,
}

pub(crate) fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Kills all of these at one moment: they are stopped first, so that no process sees the end of another
/// one. A single process is killed at once: a guard that lives on would continue a guard that is stopped.
pub(crate) fn kill_together(pids: &[i32]) {
    let open = |pid: &i32| pidfd_open(Pid::from_raw(*pid).expect("a pid"), PidfdFlags::empty());
    let held: Vec<_> = pids.iter().map(|pid| open(pid).expect("a living process")).collect();
    if pids.len() > 1 {
        testkit::proc::stop_together(pids);
    }
    for pidfd in &held {
        pidfd_send_signal(pidfd, Signal::KILL).expect("a living process");
    }
}

/// One job as `jobs` says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) mechanism: String,
    pub(crate) owner: String,
}

/// The jobs that a process sees.
#[track_caller]
pub(crate) fn jobs(process: &mut Owner) -> Vec<Listed> {
    let answer = process.ok("jobs");
    let parse = |word: &str| match word.split('/').collect::<Vec<_>>()[..] {
        [id, name, mechanism, owner] => Listed {
            id: id.to_owned(),
            name: name.to_owned(),
            mechanism: mechanism.to_owned(),
            owner: owner.to_owned(),
        },
        _ => panic!("{word}"),
    };
    answer.split_whitespace().map(parse).collect()
}

/// An answer that must be this kind of error.
#[track_caller]
pub(crate) fn refused(process: &mut Owner, request: &str, kind: &str) -> String {
    match process.request(request) {
        Err(said) => {
            let (kinds, message) = said.split_once(": ").unwrap_or((&said, ""));
            assert!(kinds.split(',').any(|one| one == kind), "{request}: {said}");
            message.to_owned()
        }
        Ok(said) => panic!("{request} succeeded: {said}"),
    }
}
