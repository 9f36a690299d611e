//! Features that older kernels and strict seccomp filters lack: the job works without them, or creating it
//! is an error with the reason.
//!
//! Here a filter makes the features unavailable (the scenario `seccomp` of the helper). `scripts/test-vm` also
//! runs these tests on old kernels.
#![cfg(target_os = "linux")]

#[path = "common/inside.rs"]
mod inside;

use std::process::{Command, Stdio};

use inside::is_inside;
use testkit::{
    Bins, Environment, Fixture, LineProcess, Report, Sandbox, eventually, numbers, proc,
    scratch_dir,
};

/// The features that Linux 5.4 lacks, except `cgroup.kill`: `clone3` with the flags of onejob (5.5, 5.7),
/// `faccessat2` (5.8), `close_range` (5.9), executable memory files by name (6.3), inodes of pidfds and
/// signals to groups by pidfd (6.9), the status of an ended process (6.15).
const OF_5_4: &[&str] = &[
    "clone3=EINVAL",
    "faccessat2=ENOSYS",
    "close_range=ENOSYS",
    "memfd_create-exec=EINVAL",
    "pidfs",
    "pidfd-group=EINVAL",
    "pidfd-info=ENOTTY",
];

/// The calls that sandboxes forbid.
const FORBIDDEN: &[&str] = &["clone3=EPERM", "close_range=EPERM", "execveat-memory=EACCES"];

const CGROUP_KILL: &str = "file:cgroup.kill";

/// An owner below a filter.
struct Filtered {
    owner: LineProcess,
    pid: i32,
    lacks: String,
    fixture: Fixture,
}

impl Filtered {
    fn new(environment: Environment, lacks: &str) -> Filtered {
        eprintln!("{environment}, without {lacks}");
        let mut fixture = Fixture::new(environment);
        let (owner, pid) = owner(&mut fixture.sandbox, lacks);
        fixture.start_bystanders(proc::group(pid));
        Filtered { owner, pid, lacks: lacks.to_owned(), fixture }
    }

    /// Starts a daemon and a process that ignores SIGTERM in the job. Returns the members.
    fn tree(&mut self, mechanism: &str) -> Vec<i32> {
        let report = Report::new();
        for scenario in ["daemon-grandchild", "stubborn"] {
            let helper = Bins::get().helper();
            self.owner.ok(&format!("spawn {} {scenario} {}", helper.display(), report.arg()));
        }
        let mut helpers = report.helpers(&self.fixture.sandbox, "escapee", 2);
        helpers.extend(report.helpers(&self.fixture.sandbox, "main", 2));
        let listed = numbers(&self.owner.ok("list"));
        for helper in &helpers {
            is_inside(&self.fixture.sandbox, mechanism, helper.pid);
            assert!(listed.contains(&helper.inner), "{listed:?} lacks {helper:?}");
        }
        assert_eq!(helpers.len(), 4, "{helpers:?}");
        helpers.iter().map(|helper| helper.pid).collect()
    }

    /// Checks that a job with this mechanism freezes, stops, kills and reports the status of a child.
    fn use_job(&mut self, mechanism: &str) {
        let members = self.tree(mechanism);
        self.owner.ok("freeze");
        self.owner.ok("thaw");
        self.owner.ok("stop 50");
        all_are_dead(&members);
        let members = self.tree(mechanism);
        self.owner.ok("kill");
        all_are_dead(&members);
        assert_eq!(self.owner.ok("list"), "");
        self.owner.ok(&format!("spawn {} exit /dev/null 7", Bins::get().helper().display()));
        assert_eq!(self.owner.ok("child-wait"), "code 7");
    }

    /// Checks that nothing is left of a job with members after its owner was killed.
    fn kill_owner_of_members(mut self, mechanism: &str) {
        self.tree(mechanism);
        assert_eq!(proc::status(self.pid, "Seccomp").as_deref(), Some("2"), "{}", self.lacks);
        self.kill_owner();
    }

    fn kill_owner(mut self) {
        proc::kill(self.pid);
        // Older kernels keep the filter, and so its supervisor, until the last process with the filter is reaped.
        self.owner.end();
        self.fixture.sandbox.wait_until_empty(|_| false);
        self.fixture.assert_bystanders_alive();
    }
}

fn owner(sandbox: &mut Sandbox, lacks: &str) -> (LineProcess, i32) {
    let mut owner = LineProcess::start(sandbox, &Bins::get().helper(), |owner| {
        owner.args(["seccomp", "/dev/null", lacks]).arg(Bins::get().owner());
    });
    let inner = owner.receive("the start").expect("a greeting").parse().expect("a pid");
    let pid = eventually("the owner", || sandbox.outer_pid(inner));
    (owner, pid)
}

#[track_caller]
fn all_are_dead(members: &[i32]) {
    let left: Vec<_> = members.iter().filter(|pid| proc::is_alive(**pid)).collect();
    assert!(left.is_empty(), "SURVIVED: {left:?}");
}

/// A job works without each single feature of newer kernels.
#[test]
fn newer_features_missing_one_by_one() {
    for lacks in OF_5_4.iter().chain(FORBIDDEN) {
        job_works_without(lacks);
    }
}

/// A job works without all features of newer kernels.
#[test]
fn newer_features_missing_all_at_once() {
    job_works_without(&OF_5_4.join(","));
}

fn job_works_without(lacks: &str) {
    for environment in Environment::here() {
        let mut filtered = Filtered::new(environment, lacks);
        let mechanism = environment.mechanism();
        filtered.owner.ok(&format!("new {mechanism}"));
        filtered.use_job(mechanism);
        filtered.kill_owner_of_members(mechanism);
    }
}

/// Without `cgroup.kill` a job uses the mechanism Subreaper and has its guarantees.
#[test]
fn without_cgroup_kill_subreaper_is_used() {
    for environment in Environment::here() {
        let mut filtered = Filtered::new(environment, CGROUP_KILL);
        let error = filtered.owner.request("new cgroup").expect_err("no mechanism for this kernel");
        assert!(error.starts_with("unsupported: "), "{error}");
        // For a user that may not make cgroups, that is the reason in the error.
        if environment.mechanism() == "cgroup" || environment == Environment::SubreaperRoot {
            assert!(error.contains("cgroup.kill needs Linux 5.14"), "{error}");
            assert!(!error.contains("scope"), "a scope would not help: {error}");
        }
        filtered.owner.ok("new name=old");
        let guarantees = filtered.owner.ok("guarantees");
        for word in ["subreaper", "tracked", "converging", "guard", "signals"] {
            assert!(guarantees.contains(word), "{word}: {guarantees}");
        }
        filtered.use_job("subreaper");
        assert!(filtered.fixture.sandbox.nested_cgroups().is_empty());
        filtered.kill_owner_of_members("subreaper");
    }
}

/// Without `cgroup.kill` a limit or an atomic kill is an error, and `onejob doctor` shows the reason.
#[test]
fn without_cgroup_kill_requirements_are_refused() {
    for environment in Environment::here() {
        if environment.mechanism() != "cgroup" && environment != Environment::SubreaperRoot {
            eprintln!("{environment}: no cgroup on any kernel");
            continue;
        }
        let mark = scratch_dir().join("started");
        let touch = ["touch", mark.to_str().expect("UTF-8")];
        for asked in [["--processes", "10"], ["--require", "kill=atomic"]] {
            let (status, said) =
                command(environment, &[&["run"][..], &asked, &["--"], &touch].concat());
            assert_eq!(status, Some(125), "{said}");
            assert!(said.contains("cgroup.kill needs Linux 5.14"), "{said}");
        }
        assert!(!mark.exists(), "nothing is started");
        let (status, said) = command(environment, &["doctor"]);
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("cgroup.kill needs Linux 5.14"), "{said}");
    }
}

/// Runs `onejob` in a sandbox without `cgroup.kill`. Returns its status and its output.
fn command(environment: Environment, args: &[&str]) -> (Option<i32>, String) {
    let mut sandbox = Sandbox::new(environment);
    let output = scratch_dir().join("said");
    let file = std::fs::File::create(&output).expect("a scratch directory");
    let mut run = sandbox.start(&Bins::get().helper(), |command: &mut Command| {
        command.args(["seccomp", "/dev/null", CGROUP_KILL]).arg(Bins::get().onejob()).args(args);
        command.stdin(Stdio::null()).stderr(file.try_clone().expect("a descriptor")).stdout(file);
    });
    let status = run.wait().expect("a child of this process");
    sandbox.wait_until_empty(|_| false);
    (status.code(), std::fs::read_to_string(output).expect("text"))
}

/// Without `signalfd4` there is no inner guard. The outer guard alone ends cgroup jobs.
#[test]
fn outer_guard_alone_ends_cgroup_jobs() {
    for environment in Environment::here() {
        let mut filtered = Filtered::new(environment, "signalfd4=EPERM");
        let helper = Bins::get().helper();
        if environment.mechanism() == "cgroup" && filtered.fixture.sandbox.cgroup().is_some() {
            filtered.owner.ok("new cgroup name=alone");
            filtered.use_job("cgroup");
            let guarantees = filtered.owner.ok("guarantees");
            assert!(guarantees.contains("owner-death=guard"), "{guarantees}");
            filtered.kill_owner_of_members("cgroup");
            continue;
        }
        for request in ["new", "new name=alone"] {
            // A scope and a named job need the guards when they are created.
            let request = format!("{request} {}", environment.mechanism());
            let answer = filtered.owner.request(&request).and_then(|_| {
                filtered.owner.request(&format!("spawn {} exit /dev/null 7", helper.display()))
            });
            let error = answer.expect_err("no guard to start members");
            assert!(error.contains("start the guard of the job"), "{request}: {error}");
        }
        filtered.kill_owner();
    }
}

/// A view that cannot write `cgroup.kill` ends a job.
#[test]
fn view_without_cgroup_kill_ends_a_cgroup_job() {
    for environment in Environment::of("cgroup") {
        let mut filtered = Filtered::new(environment, "pidfd-info=ENOTTY");
        filtered.owner.ok("new cgroup name=seen");
        let (mut view, _) = owner(&mut filtered.fixture.sandbox, CGROUP_KILL);
        let members = filtered.tree("cgroup");
        view.ok("open seen");
        view.ok("kill");
        all_are_dead(&members);
        assert_eq!(filtered.owner.ok("list"), "");
        view.end();
        filtered.kill_owner_of_members("cgroup");
    }
}

/// If the program waits for any child, it takes the status of a member, and the wait of the job is an error.
/// Since Linux 6.15 the kernel provides the status again.
#[test]
fn without_pidfd_info_a_taken_status_is_an_error() {
    let mut environments = Environment::here();
    // Under Subreaper only the guard can wait for a member.
    environments
        .retain(|environment| environment.mechanism() == "cgroup" && !environment.needs_guard());
    if environments.is_empty() {
        eprintln!("SKIPPED: the cgroup mechanism is not available to this user here");
    }
    for environment in environments {
        for lacks in [Some("pidfd-info=ENOTTY"), Some("pidfd-info=EINVAL"), None] {
            let mut sandbox = Sandbox::new(environment);
            let program =
                if lacks.is_some() { Bins::get().helper() } else { Bins::get().odd_owner() };
            let mut owner = LineProcess::start(&mut sandbox, &program, |owner| {
                if let Some(lacks) = lacks {
                    owner.args(["seccomp", "/dev/null", lacks]).arg(Bins::get().odd_owner());
                }
                owner.args(["wait-any", "cgroup"]).arg(Bins::get().helper());
            });
            match (owner.receive("the start"), lacks.is_none() && is_release(6, 15)) {
                (Ok(said), true) => assert_eq!(said, "exit status: 9"),
                (Err(said), false) => assert!(said.contains("waited for it"), "{said}"),
                (said, _) => panic!("{environment}, without {lacks:?}: {said:?}"),
            }
            owner.end();
            sandbox.wait_until_empty(|_| false);
        }
    }
}

fn is_release(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// Without pidfds creating a job is an error with the reason.
#[test]
fn without_pidfds_every_mechanism_is_refused() {
    let kernels = ["pidfd_open=ENOSYS", "waitid-pidfd=EINVAL"];
    let sandboxes = ["pidfd_open=EPERM"];
    for environment in Environment::here() {
        for lacks in kernels.iter().chain(&sandboxes) {
            let mut filtered = Filtered::new(environment, lacks);
            let before = filtered.fixture.sandbox.live_pids();
            let forced = format!("new {}", environment.mechanism());
            for request in ["new", &forced, "new name=none", "enclose"] {
                let error = filtered.owner.request(request).expect_err("no pidfds");
                match kernels.contains(lacks) {
                    true => assert!(error.contains("Linux 5.4"), "{request}: {error}"),
                    false => assert!(error.contains("pidfd_open"), "{request}: {error}"),
                }
            }
            eventually("only the owner to be left", || {
                (filtered.fixture.sandbox.live_pids() == before).then_some(())
            });
            filtered.owner.end();
            filtered.fixture.sandbox.wait_until_empty(|_| false);
            filtered.fixture.assert_bystanders_alive();
        }
    }
}
