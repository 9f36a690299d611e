//! The part of the fixture that knows guards, and what must be left of a job: nothing.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{Bins, Fixture, LiveProcess, Owner, Report, Sandbox, eventually, proc};

/// The name of a guard's process.
pub const GUARD: &str = "onejob-guard";

/// The two guards of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guards {
    /// The child of the outer one. Under Subreaper it is the parent of the members.
    pub inner: i32,
    /// The leader of a session of its own.
    pub outer: i32,
}

impl Fixture {
    /// Makes a job and fills it with six members: a daemon that a grandchild started, and processes that
    /// ignore SIGTERM. Returns all of them.
    #[track_caller]
    pub fn fill_job(&mut self, owner: &mut Owner) -> Vec<i32> {
        const MEMBERS: usize = 6;
        self.report = Report::new();
        owner.new_job();
        let before: BTreeSet<_> = self.sandbox.live_pids().into_iter().collect();
        for scenario in ["daemon-grandchild", "stubborn"] {
            owner.ok(&self.spawn(scenario));
        }
        let escapees = self.report.helpers(&self.sandbox, "escapee", 2);
        assert_eq!(escapees.len(), 2, "{escapees:?}");
        let here = proc::stat("self").expect("this process").sid;
        assert!(escapees.iter().all(|escapee| escapee.stat().sid != here), "left the session");
        // The daemon's parent ends while the daemon announces itself: wait until it has ended.
        eventually("six members", || {
            let mut members = self.sandbox.live_pids();
            members.retain(|pid| !before.contains(pid));
            (members.len() == MEMBERS).then_some(members)
        })
    }

    /// The only pair of guards, found by their name.
    #[track_caller]
    pub fn guards(&self) -> Guards {
        self.guards_beside(&[])
    }

    /// The only pair of guards beside those in `known`: the outer guard is the parent of the inner one.
    #[track_caller]
    pub fn guards_beside(&self, known: &[i32]) -> Guards {
        eventually("two guards", || {
            let mut all = self.all_guards();
            all.retain(|(pid, _)| !known.contains(pid));
            match all[..] {
                [(outer, _), (inner, parent)] | [(inner, parent), (outer, _)]
                    if parent == outer =>
                {
                    Some(Guards { inner, outer })
                }
                _ => None,
            }
        })
    }

    /// The live guards in the sandbox, with their parents.
    pub fn all_guards(&self) -> Vec<(i32, i32)> {
        let living = self.sandbox.live().into_iter();
        let stats = living.filter_map(|living| Some((living.pid, living.stat?)));
        let guards = stats.filter(|(_, stat)| stat.comm == GUARD);
        guards.map(|(pid, stat)| (pid, stat.ppid)).collect()
    }

    /// Waits until no guard is alive in the sandbox.
    #[track_caller]
    pub fn wait_for_guards_to_end(&self) {
        eventually("the end of the guards", || self.all_guards().is_empty().then_some(()));
    }

    /// Waits until `pid` is no live process of the sandbox.
    #[track_caller]
    pub fn wait_for_end(&self, pid: i32) {
        eventually("the end of a member", || {
            (!self.sandbox.live_pids().contains(&pid)).then_some(())
        });
    }

    /// Waits until nothing of any job is left: no process, no cgroup, no record, no other file. Returns how
    /// long the processes took to end.
    ///
    /// # Panics
    /// If a file is left, or a bystander has ended.
    #[track_caller]
    pub fn assert_clean(&mut self) -> Duration {
        let start = Instant::now();
        self.sandbox.wait_until_empty(|_| false);
        let records = self.sandbox.runtime_files();
        assert!(records.is_empty(), "{}: records were left: {records:?}", self.environment);
        self.assert_clean_since(start)
    }

    /// As [`assert_clean`](Fixture::assert_clean), after an owner was killed at `death`, perhaps before it
    /// had guards: an unfinished record is then left until the jobs are listed.
    ///
    /// # Panics
    /// If a file is left, or a bystander has ended.
    #[track_caller]
    pub fn assert_clean_since(&mut self, death: Instant) -> Duration {
        self.sandbox.wait_until_empty(|_| false);
        let took = death.elapsed();
        let left: Vec<_> = runtime_files().difference(&self.files).cloned().collect();
        assert!(left.is_empty(), "files were left: {left:?}");
        let left = self.sandbox.runtime_files();
        let is_complete = |file: &String| !file.contains('.');
        assert!(!left.iter().any(is_complete), "records were left: {left:?}");
        if !left.is_empty() {
            list_jobs(&self.sandbox);
            assert_eq!(self.sandbox.runtime_files(), [""; 0]);
        }
        self.assert_bystanders_alive();
        took
    }

    /// Kills members that are meant to outlive their job, and waits until the sandbox is empty.
    #[track_caller]
    pub fn kill_survivors(&mut self, survivors: &[i32]) {
        survivors.iter().for_each(|pid| proc::kill(*pid));
        eventually("the end of the survivors", || self.sandbox.live().is_empty().then_some(()));
        self.assert_bystanders_alive();
    }
}

impl Sandbox {
    /// The live processes inside with this name.
    pub fn named(&self, name: &str) -> Vec<i32> {
        let is_it = |living: &LiveProcess| living.stat.as_ref().is_some_and(|it| it.comm == name);
        self.live().iter().filter(|living| is_it(living)).map(|living| living.pid).collect()
    }

    /// Waits for the only process inside with this name. A child has the name of its parent until the
    /// child has executed a program.
    #[track_caller]
    pub fn only_named(&self, name: &str) -> i32 {
        eventually(&format!("one process called {name}"), || match self.named(name)[..] {
            [pid] => Some(pid),
            _ => None,
        })
    }
}

/// Files and sockets with the name of onejob in the directories in which programs keep files while they
/// run.
pub(crate) fn runtime_files() -> BTreeSet<PathBuf> {
    let mut dirs: Vec<_> = ["/run", "/dev/shm", "/run/lock"].map(PathBuf::from).into();
    dirs.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    let users = fs::read_dir("/run/user").into_iter().flatten().flatten();
    dirs.extend(users.map(|entry| entry.path()));
    let entries = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let has_our_name = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().contains("onejob"))
    };
    // The directory of the records stays, and has records of other jobs.
    let is_a_file = |path: &PathBuf| has_our_name(path) && !path.is_dir();
    let mut found: BTreeSet<_> = entries.map(|entry| entry.path()).filter(is_a_file).collect();
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    found.extend(sockets.lines().filter_map(|line| {
        let name = line.split_whitespace().nth(7).filter(|name| name.contains("onejob"));
        let is_ours = |name: &&str| !name.contains("/onejob/") && !name.starts_with("/tmp/");
        name.filter(is_ours).map(PathBuf::from)
    }));
    found
}

/// `onejob ls`, as the user of the sandbox.
fn list_jobs(sandbox: &Sandbox) {
    let mut ls = Command::new(Bins::get().onejob());
    ls.arg("ls").env("ONEJOB_RUNTIME_DIR", sandbox.runtime_dir()).stdout(Stdio::null());
    let status = sandbox.start_beside(&mut ls).wait().expect("a child of this process");
    assert!(status.success(), "onejob ls: {status}");
}
