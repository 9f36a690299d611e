//! What older kernels and narrow sandboxes lack: the job does without it and stays right, or there
//! is none and that is said.
//!
//! A filter takes it away here (the actor's `without`). `scripts/test-vm` runs these tests on kernels
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

/// An owner that lacks something, in a cell with bystanders beside it: these go first, since one of
/// them is in a process group of the cell's.
struct Scene {
    bystanders: Bystanders,
    owner: Driven,
    pid: i32,
    cell: Sandbox,
    /// Where records of jobs are.
    runtime: PathBuf,
    lacks: String,
}

impl Scene {
    fn new(setting: Environment, lacks: &str) -> Scene {
        eprintln!("{setting}, without {lacks}");
        let mut cell = Sandbox::new(setting);
        let runtime = scratch_dir().join("runtime");
        let (owner, pid) = owner(&mut cell, &runtime, lacks);
        let group = proc::stat(pid).expect("alive").pgid;
        let bystanders = Bystanders::beside(&cell, group);
        Scene { cell, owner, pid, bystanders, runtime, lacks: lacks.to_owned() }
    }

    /// A daemon, and who is deaf to requests, inside; answers them.
    fn tree(&mut self, mechanism: &str) -> Vec<i32> {
        let report = Report::new();
        for scenario in ["daemon-grandchild", "stubborn"] {
            let actor = Bins::get().actor();
            self.owner.ok(&format!("spawn {} {scenario} {}", actor.display(), report.arg()));
        }
        let mut players = report.helpers(&self.cell, "escapee", 2);
        players.extend(report.helpers(&self.cell, "main", 2));
        let listed = numbers(&self.owner.ok("list"));
        for player in &players {
            is_inside(&self.cell, mechanism, player.pid);
            assert!(listed.contains(&player.inner), "{listed:?} lacks {player:?}");
        }
        assert_eq!(players.len(), 4, "{players:?}");
        players.iter().map(|player| player.pid).collect()
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
        self.owner.ok(&format!("spawn {} exit /dev/null 7", Bins::get().actor().display()));
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
        self.cell.wait_until_empty(|_| false);
        self.bystanders.assert_alive();
    }
}

fn owner(cell: &mut Sandbox, runtime: &Path, lacks: &str) -> (Driven, i32) {
    let mut owner = Driven::start(cell, &Bins::get().actor(), |owner| {
        owner.args(["without", "/dev/null", lacks]).arg(Bins::get().owner());
        owner.env("ONEJOB_RUNTIME_DIR", runtime);
    });
    let inner = owner.answer().expect("a greeting").parse().expect("a pid");
    let pid = eventually("the owner", || cell.outer_pid(inner));
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
    for setting in Environment::here() {
        let mut scene = Scene::new(setting, lacks);
        let mechanism = setting.mechanism();
        scene.owner.ok(&format!("new {mechanism}"));
        scene.plays(mechanism);
        scene.ends_with_its_owner(mechanism);
    }
}

/// Without cgroup kill a job is held by a subreaper and says so.
#[test]
fn without_cgroup_kill_subreaper_is_used() {
    for setting in Environment::here() {
        let mut scene = Scene::new(setting, CGROUP_KILL);
        scene.owner.tell("new cgroup");
        let error = scene.owner.answer().expect_err("no mechanism for this kernel");
        assert!(error.starts_with("unsupported: "), "{error}");
        // Who may make none hears that first.
        if setting.mechanism() == "cgroup" || setting == Environment::SubreaperRoot {
            assert!(error.contains("cgroup.kill needs Linux 5.14"), "{error}");
            assert!(!error.contains("scope"), "nobody else has a better one: {error}");
        }
        scene.owner.ok("new name=old");
        let guarantees = scene.owner.ok("guarantees");
        for word in ["subreaper", "tracked", "converging", "guard", "signals"] {
            assert!(guarantees.contains(word), "{word}: {guarantees}");
        }
        scene.plays("subreaper");
        assert!(scene.cell.nested_cgroups().is_empty());
        scene.ends_with_its_owner("subreaper");
    }
}

/// Without cgroup kill a limit or an atomic kill is refused and the doctor says why.
#[test]
fn without_cgroup_kill_requirements_are_refused() {
    for setting in Environment::here() {
        if setting.mechanism() != "cgroup" && setting != Environment::SubreaperRoot {
            eprintln!("{setting}: no cgroup to be had, whatever the kernel");
            continue;
        }
        let mark = scratch_dir().join("started");
        let touch = ["touch", mark.to_str().expect("UTF-8")];
        for asked in [["--processes", "10"], ["--require", "kill=atomic"]] {
            let (status, said) =
                command(setting, &[&["run"][..], &asked, &["--"], &touch].concat());
            assert_eq!(status, Some(125), "{said}");
            assert!(said.contains("cgroup.kill needs Linux 5.14"), "{said}");
        }
        assert!(!mark.exists(), "nothing is started");
        let (status, said) = command(setting, &["doctor"]);
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("cgroup.kill needs Linux 5.14"), "{said}");
    }
}

/// The command's status and all that it says, in a cell where there is no `cgroup.kill`.
fn command(setting: Environment, args: &[&str]) -> (Option<i32>, String) {
    let mut cell = Sandbox::new(setting);
    let output = scratch_dir().join("said");
    let file = std::fs::File::create(&output).expect("a scratch directory");
    let mut run = cell.start(&Bins::get().actor(), |command: &mut Command| {
        command.args(["without", "/dev/null", CGROUP_KILL]).arg(Bins::get().onejob()).args(args);
        command.stdin(Stdio::null()).stderr(file.try_clone().expect("a descriptor")).stdout(file);
    });
    let status = run.wait().expect("our child");
    cell.wait_until_empty(|_| false);
    (status.code(), std::fs::read_to_string(output).expect("text"))
}

/// What the inner guard needs is not to be had: cgroups are ended by the outer one as well.
#[test]
fn outer_guard_alone_ends_cgroup_jobs() {
    for setting in Environment::here() {
        let mut scene = Scene::new(setting, "signalfd4=EPERM");
        let actor = Bins::get().actor();
        if setting.mechanism() == "cgroup" && scene.cell.cgroup().is_some() {
            scene.owner.ok("new cgroup name=alone");
            scene.plays("cgroup");
            let guarantees = scene.owner.ok("guarantees");
            assert!(guarantees.contains("owner-death=guard"), "{guarantees}");
            scene.ends_with_its_owner("cgroup");
            continue;
        }
        for request in ["new", "new name=alone"] {
            // The guards of a scope must stand when it is made, those of a name when it is given.
            let request = format!("{request} {}", setting.mechanism());
            scene.owner.tell(&request);
            let answer = scene.owner.answer().and_then(|_| {
                scene.owner.tell(&format!("spawn {} exit /dev/null 7", actor.display()));
                scene.owner.answer()
            });
            let error = answer.expect_err("nobody starts members");
            assert!(error.contains("start the guard of the job"), "{request}: {error}");
        }
        scene.dies_and_leaves_nobody();
    }
}

/// Where a process may not reach `cgroup.kill` although its job's owner may.
#[test]
fn view_without_cgroup_kill_ends_a_cgroup_job() {
    let mut settings = Environment::here();
    settings.retain(|setting| setting.mechanism() == "cgroup");
    if settings.is_empty() {
        eprintln!("SKIPPED: the cgroup mechanism is not to be had by this user here");
    }
    for setting in settings {
        let mut scene = Scene::new(setting, "pidfd-info=ENOTTY");
        scene.owner.ok("new cgroup name=seen");
        let (mut view, _) = owner(&mut scene.cell, &scene.runtime, CGROUP_KILL);
        let members = scene.tree("cgroup");
        view.ok("open seen");
        view.ok("kill");
        all_are_dead(&members);
        assert_eq!(scene.owner.ok("list"), "");
        view.end();
        scene.ends_with_its_owner("cgroup");
    }
}

/// Who waits for any child of the process takes a status from the job. Since Linux 6.15 the kernel
/// tells it again.
#[test]
fn without_pidfd_info_a_taken_status_is_an_error() {
    let mut settings = Environment::here();
    // Under Subreaper nobody but the guard can wait for a member.
    settings.retain(|setting| setting.mechanism() == "cgroup" && !setting.needs_guard());
    if settings.is_empty() {
        eprintln!("SKIPPED: the cgroup mechanism is not to be had by this user here");
    }
    for setting in settings {
        for lacks in [Some("pidfd-info=ENOTTY"), Some("pidfd-info=EINVAL"), None] {
            let mut cell = Sandbox::new(setting);
            let program = if lacks.is_some() { Bins::get().actor() } else { odd_owner() };
            let mut thief = Driven::start(&mut cell, &program, |thief| {
                if let Some(lacks) = lacks {
                    thief.args(["without", "/dev/null", lacks]).arg(odd_owner());
                }
                thief.args(["steal", "cgroup"]).arg(Bins::get().actor());
            });
            match (thief.answer(), lacks.is_none() && is_release(6, 15)) {
                (Ok(said), true) => assert_eq!(said, "exit status: 9"),
                (Err(said), false) => assert!(said.contains("waited for it"), "{said}"),
                (said, _) => panic!("{setting}, without {lacks:?}: {said:?}"),
            }
            thief.end();
            cell.wait_until_empty(|_| false);
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
    for setting in Environment::here() {
        for lacks in kernels.iter().chain(&sandboxes) {
            let mut scene = Scene::new(setting, lacks);
            let before = scene.cell.live_pids();
            let forced = format!("new {}", setting.mechanism());
            for request in ["new", &forced, "new name=none", "enclose"] {
                scene.owner.tell(request);
                let error = scene.owner.answer().expect_err("no pidfds");
                match kernels.contains(lacks) {
                    true => assert!(error.contains("Linux 5.4"), "{request}: {error}"),
                    false => assert!(error.contains("pidfd_open"), "{request}: {error}"),
                }
            }
            eventually("nobody besides the owner", || {
                (scene.cell.live_pids() == before).then_some(())
            });
            scene.owner.end();
            scene.cell.wait_until_empty(|_| false);
            scene.bystanders.assert_alive();
        }
    }
}
