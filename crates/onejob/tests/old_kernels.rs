//! What older kernels and narrow sandboxes lack: the job does without it and stays right, or there
//! is none and that is said.
//!
//! A filter takes it away here (the helper's `without`). `scripts/test-vm` runs these tests on kernels
//! that are old, too.
#![cfg(target_os = "linux")]

#[path = "common/driven.rs"]
mod driven;
#[path = "common/inside.rs"]
mod inside;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use driven::{Driven, odd_owner};
use inside::is_inside;
use testkit::{
    Bins, Bystanders, Environment, Report, Sandbox, eventually, numbers, proc, scratch_dir,
};

/// What Linux 5.4 has not, of all that is used here, but for `cgroup.kill`: no `clone3` with the flags
/// that we use (5.5, 5.7), `faccessat2` (5.8), `close_range` (5.9), executable memory files by
/// name (6.3), inodes of pidfds and groups by pidfd (6.9), the status of an ended process (6.15).
const OF_5_4: &[&str] = &[
    "clone3=EINVAL",
    "faccessat2=ENOSYS",
    "close_range=ENOSYS",
    "memfd_create-exec=EINVAL",
    "pidfs",
    "pidfd-group=EINVAL",
    "pidfd-info=ENOTTY",
];

/// What sandboxes forbid besides.
const FORBIDDEN: &[&str] = &["clone3=EPERM", "close_range=EPERM", "execveat-memory=EACCES"];

const CGROUP_KILL: &str = "file:cgroup.kill";

/// An owner that lacks something, in a sandbox with bystanders beside it: these go first, since one of
/// them is in a process group of the sandbox's.
struct Fixture {
    bystanders: Bystanders,
    owner: Driven,
    pid: i32,
    sandbox: Sandbox,
    /// Where records of jobs are.
    runtime: PathBuf,
    lacks: String,
}

impl Fixture {
    fn new(environment: Environment, lacks: &str) -> Fixture {
        eprintln!("{environment}, without {lacks}");
        let mut sandbox = Sandbox::new(environment);
        let runtime = scratch_dir().join("runtime");
        let (owner, pid) = owner(&mut sandbox, &runtime, lacks);
        let group = proc::stat(pid).expect("alive").pgid;
        let bystanders = Bystanders::beside(&sandbox, group);
        Fixture { sandbox, owner, pid, bystanders, runtime, lacks: lacks.to_owned() }
    }

    /// A daemon, and who is deaf to requests, inside; answers them.
    fn tree(&mut self, mechanism: &str) -> Vec<i32> {
        let report = Report::new();
        for scenario in ["daemon-grandchild", "stubborn"] {
            let helper = Bins::get().helper();
            self.owner.ok(&format!("spawn {} {scenario} {}", helper.display(), report.arg()));
        }
        let mut helpers = report.helpers(&self.sandbox, "escapee", 2);
        helpers.extend(report.helpers(&self.sandbox, "main", 2));
        let listed = numbers(&self.owner.ok("list"));
        for helper in &helpers {
            is_inside(&self.sandbox, mechanism, helper.pid);
            assert!(listed.contains(&helper.inner), "{listed:?} lacks {helper:?}");
        }
        assert_eq!(helpers.len(), 4, "{helpers:?}");
        helpers.iter().map(|helper| helper.pid).collect()
    }

    /// All that a job is for, with a mechanism that is to be had.
    fn plays(&mut self, mechanism: &str) {
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

    /// With its owner killed nothing is left of a job.
    fn ends_with_its_owner(mut self, mechanism: &str) {
        self.tree(mechanism);
        assert_eq!(proc::status(self.pid, "Seccomp").as_deref(), Some("2"), "{}", self.lacks);
        self.dies_and_leaves_nobody();
    }

    fn dies_and_leaves_nobody(mut self) {
        proc::kill(self.pid);
        // Older kernels keep the filter, and with it the supervisor, until its last user is waited for.
        self.owner.end();
        self.sandbox.wait_until_empty(|_| false);
        self.bystanders.assert_alive();
    }
}

fn owner(sandbox: &mut Sandbox, runtime: &Path, lacks: &str) -> (Driven, i32) {
    let mut owner = Driven::start(sandbox, &Bins::get().helper(), |owner| {
        owner.args(["without", "/dev/null", lacks]).arg(Bins::get().owner());
        owner.env("ONEJOB_RUNTIME_DIR", runtime);
    });
    let inner = owner.answer().expect("a greeting").parse().expect("a pid");
    let pid = eventually("the owner", || sandbox.outer_pid(inner));
    (owner, pid)
}

#[track_caller]
fn all_are_dead(members: &[i32]) {
    let left: Vec<_> = members.iter().filter(|pid| proc::is_alive(**pid)).collect();
    assert!(left.is_empty(), "SURVIVED: {left:?}");
}

/// What newer kernels have is not needed one by one.
#[test]
fn newer_features_missing_one_by_one() {
    for lacks in OF_5_4.iter().chain(FORBIDDEN) {
        does_without(lacks);
    }
}

/// What newer kernels have is not needed all at once.
#[test]
fn newer_features_missing_all_at_once() {
    does_without(&OF_5_4.join(","));
}

fn does_without(lacks: &str) {
    for environment in Environment::here() {
        let mut fixture = Fixture::new(environment, lacks);
        let mechanism = environment.mechanism();
        fixture.owner.ok(&format!("new {mechanism}"));
        fixture.plays(mechanism);
        fixture.ends_with_its_owner(mechanism);
    }
}

/// Without cgroup kill a job is held by a subreaper and says so.
#[test]
fn without_cgroup_kill_subreaper_is_used() {
    for environment in Environment::here() {
        let mut fixture = Fixture::new(environment, CGROUP_KILL);
        fixture.owner.tell("new cgroup");
        let error = fixture.owner.answer().expect_err("no mechanism for this kernel");
        assert!(error.starts_with("unsupported: "), "{error}");
        // Who may make none hears that first.
        if environment.mechanism() == "cgroup" || environment == Environment::SubreaperRoot {
            assert!(error.contains("cgroup.kill needs Linux 5.14"), "{error}");
            assert!(!error.contains("scope"), "nobody else has a better one: {error}");
        }
        fixture.owner.ok("new name=old");
        let guarantees = fixture.owner.ok("guarantees");
        for word in ["subreaper", "tracked", "converging", "guard", "signals"] {
            assert!(guarantees.contains(word), "{word}: {guarantees}");
        }
        fixture.plays("subreaper");
        assert!(fixture.sandbox.nested_cgroups().is_empty());
        fixture.ends_with_its_owner("subreaper");
    }
}

/// Without cgroup kill a limit or an atomic kill is refused and the doctor says why.
#[test]
fn without_cgroup_kill_requirements_are_refused() {
    for environment in Environment::here() {
        if environment.mechanism() != "cgroup" && environment != Environment::SubreaperRoot {
            eprintln!("{environment}: no cgroup to be had, whatever the kernel");
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

/// The command's status and all that it says, in a sandbox where there is no `cgroup.kill`.
fn command(environment: Environment, args: &[&str]) -> (Option<i32>, String) {
    let mut sandbox = Sandbox::new(environment);
    let output = scratch_dir().join("said");
    let file = std::fs::File::create(&output).expect("a scratch directory");
    let mut run = sandbox.start(&Bins::get().helper(), |command: &mut Command| {
        command.args(["without", "/dev/null", CGROUP_KILL]).arg(Bins::get().onejob()).args(args);
        command.stdin(Stdio::null()).stderr(file.try_clone().expect("a descriptor")).stdout(file);
    });
    let status = run.wait().expect("our child");
    sandbox.wait_until_empty(|_| false);
    (status.code(), std::fs::read_to_string(output).expect("text"))
}

/// What the inner guard needs is not to be had: cgroups are ended by the outer one as well.
#[test]
fn outer_guard_alone_ends_cgroup_jobs() {
    for environment in Environment::here() {
        let mut fixture = Fixture::new(environment, "signalfd4=EPERM");
        let helper = Bins::get().helper();
        if environment.mechanism() == "cgroup" && fixture.sandbox.cgroup().is_some() {
            fixture.owner.ok("new cgroup name=alone");
            fixture.plays("cgroup");
            let guarantees = fixture.owner.ok("guarantees");
            assert!(guarantees.contains("owner-death=guard"), "{guarantees}");
            fixture.ends_with_its_owner("cgroup");
            continue;
        }
        for request in ["new", "new name=alone"] {
            // The guards of a scope must stand when it is made, those of a name when it is given.
            let request = format!("{request} {}", environment.mechanism());
            fixture.owner.tell(&request);
            let answer = fixture.owner.answer().and_then(|_| {
                fixture.owner.tell(&format!("spawn {} exit /dev/null 7", helper.display()));
                fixture.owner.answer()
            });
            let error = answer.expect_err("nobody starts members");
            assert!(error.contains("start the guard of the job"), "{request}: {error}");
        }
        fixture.dies_and_leaves_nobody();
    }
}

/// Where a process may not reach `cgroup.kill` although its job's owner may.
#[test]
fn view_without_cgroup_kill_ends_a_cgroup_job() {
    let mut environments = Environment::here();
    environments.retain(|environment| environment.mechanism() == "cgroup");
    if environments.is_empty() {
        eprintln!("SKIPPED: the cgroup mechanism is not to be had by this user here");
    }
    for environment in environments {
        let mut fixture = Fixture::new(environment, "pidfd-info=ENOTTY");
        fixture.owner.ok("new cgroup name=seen");
        let (mut view, _) = owner(&mut fixture.sandbox, &fixture.runtime, CGROUP_KILL);
        let members = fixture.tree("cgroup");
        view.ok("open seen");
        view.ok("kill");
        all_are_dead(&members);
        assert_eq!(fixture.owner.ok("list"), "");
        view.end();
        fixture.ends_with_its_owner("cgroup");
    }
}

/// Who waits for any child of the process takes a status from the job. Since Linux 6.15 the kernel
/// tells it again.
#[test]
fn without_pidfd_info_a_taken_status_is_an_error() {
    let mut environments = Environment::here();
    // Under Subreaper nobody but the guard can wait for a member.
    environments
        .retain(|environment| environment.mechanism() == "cgroup" && !environment.needs_guard());
    if environments.is_empty() {
        eprintln!("SKIPPED: the cgroup mechanism is not to be had by this user here");
    }
    for environment in environments {
        for lacks in [Some("pidfd-info=ENOTTY"), Some("pidfd-info=EINVAL"), None] {
            let mut sandbox = Sandbox::new(environment);
            let program = if lacks.is_some() { Bins::get().helper() } else { odd_owner() };
            let mut thief = Driven::start(&mut sandbox, &program, |thief| {
                if let Some(lacks) = lacks {
                    thief.args(["without", "/dev/null", lacks]).arg(odd_owner());
                }
                thief.args(["steal", "cgroup"]).arg(Bins::get().helper());
            });
            match (thief.answer(), lacks.is_none() && is_release(6, 15)) {
                (Ok(said), true) => assert_eq!(said, "exit status: 9"),
                (Err(said), false) => assert!(said.contains("waited for it"), "{said}"),
                (said, _) => panic!("{environment}, without {lacks:?}: {said:?}"),
            }
            thief.end();
            sandbox.wait_until_empty(|_| false);
        }
    }
}

fn is_release(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// Without pidfds there is no job and that is said.
#[test]
fn without_pidfds_every_mechanism_is_refused() {
    let kernels = ["pidfd_open=ENOSYS", "waitid-pidfd=EINVAL"];
    let sandboxes = ["pidfd_open=EPERM"];
    for environment in Environment::here() {
        for lacks in kernels.iter().chain(&sandboxes) {
            let mut fixture = Fixture::new(environment, lacks);
            let before = fixture.sandbox.live_pids();
            let forced = format!("new {}", environment.mechanism());
            for request in ["new", &forced, "new name=none", "enclose"] {
                fixture.owner.tell(request);
                let error = fixture.owner.answer().expect_err("no pidfds");
                match kernels.contains(lacks) {
                    true => assert!(error.contains("Linux 5.4"), "{request}: {error}"),
                    false => assert!(error.contains("pidfd_open"), "{request}: {error}"),
                }
            }
            eventually("nobody besides the owner", || {
                (fixture.sandbox.live_pids() == before).then_some(())
            });
            fixture.owner.end();
            fixture.sandbox.wait_until_empty(|_| false);
            fixture.bystanders.assert_alive();
        }
    }
}
