//! What most test cases have: a sandbox, bystanders beside it, and a report of the helpers in it.

use crate::{Bins, Bystanders, Environment, Owner, Report, Sandbox, proc};

/// Runs `test` in each environment that is available here.
pub fn every_environment(test: impl Fn(Environment)) {
    for environment in Environment::here() {
        eprintln!("{environment}");
        test(environment);
    }
}

/// One test case. The owner of the job is the parent or the ancestor of every process in the sandbox.
#[derive(Debug)]
pub struct Fixture {
    bystanders: Option<Bystanders>,
    /// What the helpers of the test case report.
    pub report: Report,
    /// The environment of the owner.
    pub environment: Environment,
    /// The files of other onejobs on this host.
    #[cfg(target_os = "linux")]
    pub(crate) files: std::collections::BTreeSet<std::path::PathBuf>,
    /// Dropped last: it kills all processes that are left.
    pub sandbox: Sandbox,
}

impl Fixture {
    /// A test case without processes.
    pub fn new(environment: Environment) -> Fixture {
        Fixture {
            bystanders: None,
            report: Report::new(),
            environment,
            #[cfg(target_os = "linux")]
            files: crate::guards::runtime_files(),
            sandbox: Sandbox::new(environment),
        }
    }

    /// Starts an owner without a job. With the first one bystanders are started.
    #[track_caller]
    pub fn process(&mut self) -> Owner {
        let owner = Owner::start(&mut self.sandbox, self.environment);
        if self.bystanders.is_none() {
            self.start_bystanders(owner.group());
        }
        owner
    }

    /// Starts an owner of a job named `dev`, and another process that has opened the job.
    #[track_caller]
    pub fn owner_and_view(&mut self) -> (Owner, Owner) {
        let mut owner = self.process();
        owner.ok(&self.new_job("dev"));
        let mut view = self.process();
        view.ok("open dev");
        (owner, view)
    }

    /// Starts bystanders, one of them in the process group `group`.
    #[track_caller]
    pub fn start_bystanders(&mut self, group: i32) {
        self.bystanders = Some(Bystanders::beside(&self.sandbox, group));
    }

    /// Starts bystanders if no owner has a process group that one of them could share.
    #[track_caller]
    pub fn start_bystanders_apart(&mut self) {
        self.start_bystanders(proc::group(std::process::id() as i32));
    }

    /// # Panics
    /// If a bystander has ended, or none was started.
    #[track_caller]
    pub fn assert_bystanders_alive(&mut self) {
        self.bystanders.as_mut().expect("bystanders were started").assert_alive();
    }

    /// A request for a job with a name.
    pub fn new_job(&self, name: &str) -> String {
        format!("new {} name={name}", self.environment.mechanism())
    }

    /// A request that starts a helper as a member.
    pub fn spawn(&self, scenario: &str) -> String {
        format!("spawn {} {scenario} {}", Bins::get().helper().display(), self.report.arg())
    }
}
