//! Properties of kernels and sandboxes that break starting and killing of processes.
#![cfg(target_os = "linux")]

#[path = "common/inside.rs"]
mod inside;

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use inside::is_inside;
use testkit::{
    Bins, Bystanders, Environment, LineProcess, Owner, Report, Sandbox, eventually, proc, skip,
};

/// Beside a fork bomb no other test makes progress.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn helper() -> String {
    Bins::get().helper().display().to_string()
}

/// Some kernels kill a child of `clone3(CLONE_INTO_CGROUP)` if its parent's cgroup has seen another number of
/// kills than the new cgroup. Here the parent's cgroup has seen one and that of the job none.
#[test]
fn fifty_children_live_after_an_earlier_kill() {
    let _alone = one_at_a_time();
    let mut environments = Environment::here();
    environments.retain(|environment| environment.mechanism() == "cgroup");
    if environments.is_empty() {
        eprintln!("SKIPPED: only root has the cgroups for this");
    }
    for environment in environments {
        let mut sandbox = Sandbox::new(environment);
        let group = sandbox.cgroup().expect("a cgroup").to_owned();
        fs::write(group.join("cgroup.kill"), "1").expect("Linux 5.14");
        print_whether_children_are_killed(&mut sandbox, group.join("trap"));

        let report = Report::new();
        let mut owner = Owner::start(&mut sandbox, environment);
        let mut bystanders = Bystanders::beside(&sandbox, owner.group());
        owner.new_job();
        for _ in 0..25 {
            owner.ok(&format!("spawn {} exit /dev/null 7", helper()));
            assert_eq!(owner.ok("child-wait"), "code 7");
        }
        for _ in 0..25 {
            // Each in a new cgroup, which was never killed.
            owner.ok(&format!("spawn {} setsid {}", helper(), report.arg()));
            owner.ok("kill");
        }
        assert_eq!(owner.ok("list"), "");
        owner.end();
        sandbox.wait_until_empty(|_| false);
        bystanders.assert_alive();
    }
}

/// Tests the kernel without onejob, and prints whether it kills new children.
fn print_whether_children_are_killed(sandbox: &mut Sandbox, trap: PathBuf) {
    fs::create_dir(&trap).expect("a cgroup of this test");
    if let Some(uid) = sandbox_user(sandbox) {
        for file in ["", "cgroup.procs"] {
            std::os::unix::fs::chown(trap.join(file), Some(uid), Some(uid)).expect("root");
        }
    }
    const COUNT: &str = "20";
    let mut launcher = LineProcess::start(sandbox, &Bins::get().odd_owner(), |launcher| {
        launcher.arg("clone-into").arg(&trap).arg(COUNT);
    });
    let dead = launcher.receive("the start").expect("a count");
    launcher.end();
    fs::remove_dir(&trap).expect("an empty cgroup");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    match &*dead {
        "0" => eprintln!("Linux {} killed none of the new children", release.trim()),
        dead => eprintln!("Linux {} killed {dead} of {COUNT} new children", release.trim()),
    }
    assert!(["0", COUNT].contains(&&*dead), "neither none nor all: {dead} of {COUNT}");
}

/// The user that owns the cgroup of a sandbox; `None` for root.
fn sandbox_user(sandbox: &Sandbox) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let uid = fs::metadata(sandbox.cgroup()?).expect("a cgroup").uid();
    (uid != 0).then_some(uid)
}

/// With a seccomp filter for which `clone3` does not exist, children start in the job.
#[test]
fn clone3_unknown_to_a_filter() {
    under_a_filter("ENOSYS");
}

/// With a seccomp filter that forbids `clone3`, children start in the job.
#[test]
fn clone3_forbidden_by_a_filter() {
    under_a_filter("EPERM");
}

fn under_a_filter(errno: &str) {
    let _alone = one_at_a_time();
    for environment in Environment::here() {
        let (mut sandbox, report) = (Sandbox::new(environment), Report::new());
        let mut owner = LineProcess::start(&mut sandbox, &Bins::get().helper(), |owner| {
            owner
                .args(["seccomp", "/dev/null", &format!("clone3={errno}")])
                .arg(Bins::get().owner());
        });
        let pid = owner.receive("the start").expect("a greeting").parse().expect("a pid");
        let pid = eventually("the owner", || sandbox.outer_pid(pid));
        assert_eq!(proc::status(pid, "Seccomp").as_deref(), Some("2"), "it has the filter");
        let mut bystanders = Bystanders::beside(&sandbox, proc::stat(pid).expect("alive").pgid);
        owner.ok(&format!("new {}", environment.mechanism()));
        owner.ok(&format!("spawn {} daemon-grandchild {}", helper(), report.arg()));
        for role in ["main", "escapee"] {
            is_inside(&sandbox, environment.mechanism(), report.helper(&sandbox, role).pid);
        }
        owner.ok("stop 50");
        assert_eq!(owner.ok("list"), "");
        owner.ok(&format!("spawn {} exit /dev/null 7", helper()));
        assert_eq!(owner.ok("child-wait"), "code 7");
        owner.end();
        sandbox.wait_until_empty(|_| false);
        bystanders.assert_alive();
    }
}

const BOMBS: usize = 20;
const BOMB_SIZE: usize = 500;

/// A kill ends a fork bomb of 500 in a cgroup job, twenty times of twenty.
#[test]
fn fork_bomb_of_500_in_a_cgroup_job() {
    bombs("cgroup");
}

/// A kill ends a fork bomb of 500 in a subreaper job, twenty times of twenty.
#[test]
fn fork_bomb_of_500_in_a_subreaper_job() {
    bombs("subreaper");
}

fn bombs(mechanism: &str) {
    let _alone = one_at_a_time();
    // The process limit counts all processes of a user, those of other tests too: root can take another user.
    let environments = Environment::of(mechanism);
    if environments.is_empty() {
        return;
    }
    let root = environments.iter().find(|environment| !environment.is_ordinary());
    let environment = *root.unwrap_or(&environments[0]);
    let mut times: Vec<_> = (0..BOMBS).map(|bomb| kill_bomb(environment, bomb)).collect();
    times.sort_unstable();
    let (median, most) = (times[BOMBS / 2], times[BOMBS - 1]);
    eprintln!(
        "{mechanism}: {BOMBS} bombs of {BOMB_SIZE}, emptied in {median:?} (median), {most:?}"
    );
    assert!(median < Duration::from_secs(5), "{median:?}");
}

/// How long the kill of a fork bomb took.
fn kill_bomb(environment: Environment, bomb: usize) -> Duration {
    let (mut sandbox, report) = (Sandbox::new(environment), Report::new());
    let mut owner = Owner::start(&mut sandbox, environment);
    let mut bystanders = Bystanders::beside(&sandbox, owner.group());
    owner.new_job();
    // Each bomb has its own user and so its own limit.
    let mechanism = environment.mechanism().len();
    let user = 600_000 + 1_000 * mechanism + bomb;
    let beside = sandbox.live_pids().len();
    owner.ok(&format!("spawn {} bomb {} {BOMB_SIZE} {user}", helper(), report.arg()));
    eventually("a grown bomb", || {
        (sandbox.live_pids().len() >= beside + BOMB_SIZE * 8 / 10).then_some(())
    });
    let start = Instant::now();
    owner.ok("kill");
    let took = start.elapsed();
    assert_eq!(sandbox.live_pids().len(), beside, "SURVIVED the kill");
    owner.end();
    sandbox.wait_until_empty(|_| false);
    bystanders.assert_alive();
    took
}

/// A kill with a member that cannot be killed returns in time, with an error that names the member.
#[test]
fn unkillable_member_is_named_in_time() {
    let _alone = one_at_a_time();
    let environment = Environment::SubreaperUser;
    let Some(setuid) = Bins::get().setuid_helper() else {
        if Environment::here().contains(&Environment::CgroupRoot) {
            skip("the temporary directory is mounted nosuid");
        } else {
            eprintln!("SKIPPED: only root can make a program setuid root");
        }
        return;
    };
    let (mut sandbox, report) = (Sandbox::new(environment), Report::new());
    let mut owner = Owner::start(&mut sandbox, environment);
    let mut bystanders = Bystanders::beside(&sandbox, owner.group());
    owner.new_job();
    owner.ok(&format!("spawn {} setuid {} {}", helper(), report.arg(), setuid.display()));
    let survivor = report.helper(&sandbox, "escapee");
    let sibling = report.helper(&sandbox, "sibling").pid;
    assert_eq!(proc::status(survivor.pid, "Uid").as_deref(), Some("0\t0\t0\t0"));
    for request in ["kill", "stop 300", "stop 300"] {
        let start = Instant::now();
        let error = owner.request(request).expect_err("a survivor");
        let took = start.elapsed();
        assert!(error.starts_with(&format!("survivors {}: ", survivor.inner)), "{error}");
        assert!(proc::is_alive(survivor.pid) && !proc::is_alive(sibling));
        // The documented limit is ten seconds; a process that cannot be signalled is reported at once.
        eprintln!("{request}: reported after {took:?}");
        assert!(took < Duration::from_secs(60), "{request} took {took:?}");
    }
    fs::write(report.beside(".end"), "").expect("a writable scratch directory");
    owner.ok("wait");
    owner.ok("kill");
    owner.end();
    sandbox.wait_until_empty(|_| false);
    bystanders.assert_alive();
}
