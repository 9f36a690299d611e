//! Cgroups that members make below that of the job: their processes are listed and signalled, and the cgroups are
//! removed.
#![cfg(target_os = "linux")]

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use testkit::{Bins, Bystanders, Environment, Owner, Report, Sandbox, eventually, proc};

/// The environments in which members can make cgroups below that of the job.
fn environments() -> Vec<Environment> {
    let mut environments = Environment::here();
    environments
        .retain(|environment| environment.has_cgroups() && environment.mechanism() == "cgroup");
    if environments.is_empty() {
        eprintln!("SKIPPED: the mechanism Cgroup is not available here");
    }
    environments
}

fn start(owner: &mut Owner, report: &Report, words: &str) {
    let (name, args) = words.split_once(' ').unwrap_or((words, ""));
    let helper = Bins::get().helper();
    owner.ok(format!("spawn {} {name} {} {args}", helper.display(), report.arg()).trim_end());
}

/// A member in a nested cgroup is listed and gets signals, whatever the name and depth of the cgroup.
#[test]
fn a_nested_member_is_listed_and_signalled() {
    for environment in environments() {
        for place in ["1 .hidden", "1 ...", "250 .d", "250 d"] {
            let mut sandbox = Sandbox::new(environment);
            let mut owner = Owner::start(&mut sandbox, environment);
            owner.new_job();
            let report = Report::new();
            start(&mut owner, &report, &format!("nested {place}"));
            let escapee = report.helper(&sandbox, "escapee");
            assert!(owner.list().contains(&escapee.inner), "{environment}, {place}: not listed");
            assert_eq!(
                owner.ok("signal TERM"),
                "2",
                "{environment}, {place}: with the main process"
            );
            eventually("the end of a member", || (!proc::is_alive(escapee.pid)).then_some(()));
            owner.end();
            sandbox.wait_until_empty(|_| false);
        }
    }
}

/// The guards of a dead owner end members in nested cgroups, and remove the cgroups.
#[test]
fn the_guards_end_nested_members() {
    for environment in environments() {
        for words in ["nested 250 .d", "wide 1000", "movers", "closed-cgroups"] {
            let mut sandbox = Sandbox::new(environment);
            let mut owner = Owner::start(&mut sandbox, environment);
            let mut bystanders = Bystanders::beside(&sandbox, owner.group());
            owner.new_job();
            let report = Report::new();
            start(&mut owner, &report, words);
            report.helpers(&sandbox, "escapee", 1);
            owner.kill();
            sandbox.wait_until_empty(|_| false);
            bystanders.assert_alive();
        }
    }
}

/// A removal takes about as long as plain `rmdir` calls from the deepest cgroup up.
#[test]
fn a_removal_takes_linear_time() {
    if environments().contains(&Environment::CgroupRoot) {
        for make in [deep as fn(&Path) -> Remover, wide] {
            let environment = Environment::CgroupRoot;
            let mut sandbox = Sandbox::new(environment);
            let mut owner = Owner::start(&mut sandbox, environment);
            let plain = sandbox.cgroup().expect("a cgroup").join("plain");
            std::fs::create_dir(&plain).expect("a fresh cgroup");
            let remove = make(&plain);
            let start = Instant::now();
            remove();
            let plainly = start.elapsed();
            std::fs::remove_dir(&plain).expect("an empty cgroup");
            owner.new_job();
            drop(make(&only_job(&sandbox)));
            let start = Instant::now();
            owner.ok("drop");
            let ours = start.elapsed();
            eprintln!("plain calls {plainly:?}, a drop {ours:?}");
            assert!(ours < plainly * 5 + Duration::from_secs(1), "{ours:?}, but {plainly:?}");
            owner.end();
            sandbox.wait_until_empty(|_| false);
        }
    }
}

/// Removes the cgroups that were made.
type Remover = Box<dyn FnOnce()>;

fn only_job(sandbox: &Sandbox) -> PathBuf {
    let all = sandbox.nested_cgroups();
    let name = |path: &&PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("onejob-"))
    };
    all.iter().find(name).expect("the job's cgroup").clone()
}

fn open(dir: impl AsFd, name: impl rustix::path::Arg) -> OwnedFd {
    openat(dir, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("a directory")
}

/// Makes 2,000 cgroups, one in the other.
fn deep(top: &Path) -> Remover {
    let mut dir = open(CWD, top);
    for _ in 0..2000 {
        mkdirat(&dir, "d", Mode::RWXU).expect("a fresh cgroup");
        dir = open(&dir, "d");
    }
    Box::new(move || {
        for _ in 0..2000 {
            dir = open(&dir, "..");
            unlinkat(&dir, "d", AtFlags::REMOVEDIR).expect("an empty cgroup");
        }
    })
}

/// Makes 4,000 cgroups beside each other, with one in each.
fn wide(top: &Path) -> Remover {
    let dir = open(CWD, top);
    for number in 0..4000 {
        mkdirat(&dir, format!("{number}"), Mode::RWXU).expect("a fresh cgroup");
        mkdirat(&dir, format!("{number}/below"), Mode::RWXU).expect("a fresh cgroup");
    }
    Box::new(move || {
        for number in 0..4000 {
            for name in [format!("{number}/below"), format!("{number}")] {
                unlinkat(&dir, name, AtFlags::REMOVEDIR).expect("an empty cgroup");
            }
        }
    })
}
