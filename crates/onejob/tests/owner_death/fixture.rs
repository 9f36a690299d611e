//! What the tests of this file have in common.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use testkit::{Bins, Bystanders, Environment, Owner, Report, Sandbox, eventually, proc};

pub(crate) const GUARD: &str = "onejob-guard";

/// Plays in every environment to be had here.
pub(crate) fn every_environment(play: impl Fn(Environment)) {
    Environment::here().into_iter().for_each(play);
}

/// The environments of a mechanism; says so if there is none.
pub(crate) fn environments(mechanism: &str) -> Vec<Environment> {
    let mut environments = Environment::here();
    environments.retain(|environment| environment.mechanism() == mechanism);
    if environments.is_empty() {
        eprintln!("SKIPPED: the {mechanism} mechanism is not to be had by this user here");
    }
    environments
}

/// A sandbox with bystanders beside it. What is below the fixture's owner is all there is in it.
pub(crate) struct Fixture {
    bystanders: Option<Bystanders>,
    pub(crate) report: Report,
    pub(crate) environment: Environment,
    files: BTreeSet<PathBuf>,
    pub(crate) sandbox: Sandbox,
}

/// The two guards of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guards {
    pub(crate) inner: i32,
    pub(crate) outer: i32,
}

impl Fixture {
    pub(crate) fn new(environment: Environment) -> Fixture {
        let sandbox = Sandbox::new(environment);
        let report = Report::new();
        Fixture { bystanders: None, report, environment, files: runtime_files(), sandbox }
    }

    /// Starts an owner without a job, and the bystanders.
    #[track_caller]
    pub(crate) fn owner(&mut self) -> Owner {
        let owner = Owner::start(&mut self.sandbox, self.environment);
        self.stand_by(owner.group());
        owner
    }

    /// Starts bystanders where there is no owner whose group one of them could share.
    #[track_caller]
    pub(crate) fn stand_by_apart(&mut self) {
        self.stand_by(proc::stat("self").expect("this process").pgid);
    }

    /// Starts bystanders, one of them in this process group.
    #[track_caller]
    pub(crate) fn stand_by(&mut self, group: i32) {
        self.bystanders = Some(Bystanders::beside(&self.sandbox, group));
    }

    /// A request that starts a helper.
    pub(crate) fn spawn(&self, scenario: &str) -> String {
        format!("spawn {} {scenario} {}", Bins::get().helper().display(), self.report.arg())
    }

    /// Has the owner make a job and fill it: a daemon of a grandchild, and who is deaf to requests.
    /// Answers everybody in it.
    #[track_caller]
    pub(crate) fn tree_of(&mut self, owner: &mut Owner) -> Vec<i32> {
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
        // The daemon's parent ends while the daemon announces itself: wait until it has.
        const MEMBERS: usize = 6;
        eventually("six members", || {
            let mut tree = self.sandbox.live_pids();
            tree.retain(|pid| !before.contains(pid));
            (tree.len() == MEMBERS).then_some(tree)
        })
    }

    /// The guards, found by their name.
    #[track_caller]
    pub(crate) fn guards(&self) -> Guards {
        self.guards_beside(&[])
    }

    /// The guards that are not `known`: there are two, and the outer one is the inner one's parent.
    #[track_caller]
    pub(crate) fn guards_beside(&self, known: &[i32]) -> Guards {
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

    /// The guards that live in the sandbox, with their parents.
    pub(crate) fn all_guards(&self) -> Vec<(i32, i32)> {
        let living = self.sandbox.live().into_iter();
        let guards = living
            .filter_map(|living| Some((living.pid, living.stat?)))
            .filter(|g| g.1.comm == GUARD);
        guards.map(|(pid, stat)| (pid, stat.ppid)).collect()
    }

    /// The one process of this name. A child goes by its parent's for a moment after it has become
    /// another program, as far as its parent can tell.
    #[track_caller]
    pub(crate) fn only(&self, name: &str) -> i32 {
        let named = |living: &testkit::LiveProcess| {
            living.stat.as_ref().is_some_and(|stat| stat.comm == name)
        };
        eventually(&format!("one process called {name}"), || {
            let living = self.sandbox.live().into_iter();
            match living.filter(named).map(|living| living.pid).collect::<Vec<_>>()[..] {
                [pid] => Some(pid),
                _ => None,
            }
        })
    }

    #[track_caller]
    pub(crate) fn has_no_guards(&self) {
        eventually("the end of the guards", || self.all_guards().is_empty().then_some(()));
    }

    /// Waits until nothing of the job is left; how long that took. The bystanders live.
    #[track_caller]
    pub(crate) fn is_deserted(&mut self) -> Duration {
        self.is_deserted_since(Instant::now())
    }

    /// The same, with a death that was a while ago.
    #[track_caller]
    pub(crate) fn is_deserted_since(&mut self, start: Instant) -> Duration {
        self.sandbox.wait_until_empty(|_| false);
        let took = start.elapsed();
        let left: Vec<_> = runtime_files().difference(&self.files).cloned().collect();
        assert!(left.is_empty(), "files were left: {left:?}");
        self.leaves_no_record();
        self.bystanders.as_mut().expect("bystanders").assert_alive();
        took
    }

    /// Guards remove the records. What an owner has left that was killed before it had any is only
    /// a beginning, which goes when the jobs are listed.
    #[track_caller]
    fn leaves_no_record(&self) {
        let left = self.sandbox.runtime_files();
        let is_whole = |file: &String| !file.contains('.');
        assert!(!left.iter().any(is_whole), "records were left: {left:?}");
        if !left.is_empty() {
            list_jobs(&self.sandbox);
            assert_eq!(self.sandbox.runtime_files(), [""; 0]);
        }
    }

    /// Kills members that are meant to live on, so that the fixture ends empty.
    #[track_caller]
    pub(crate) fn end_by_hand(&mut self, tree: &[i32]) {
        tree.iter().for_each(|pid| kill(*pid));
        eventually("the end of those that lived on", || {
            self.sandbox.live().is_empty().then_some(())
        });
        self.bystanders.as_mut().expect("bystanders").assert_alive();
    }
}

/// Files and sockets with our name where programs keep what they need while they run.
pub(crate) fn runtime_files() -> BTreeSet<PathBuf> {
    let mut dirs: Vec<_> = ["/run", "/dev/shm", "/run/lock"].map(PathBuf::from).into();
    dirs.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    let users = fs::read_dir("/run/user").into_iter().flatten().flatten();
    dirs.extend(users.map(|entry| entry.path()));
    let entries = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let ours = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().contains("onejob"))
    };
    // The directory of the records stays, and other jobs have theirs in there.
    let is_a_file = |path: &PathBuf| ours(path) && !path.is_dir();
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
    let status = sandbox.start_beside(&mut ls).wait().expect("our child");
    assert!(status.success(), "{status}");
}

pub(crate) fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

/// A process that is gone is left alone.
pub(crate) fn signal(pid: i32, signal: Signal) {
    let pidfd = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    if let Some(Ok(pidfd)) = pidfd {
        let _ = pidfd_send_signal(&pidfd, signal);
    }
}

/// Numbers that can be had again: the seed is said when a test fails.
#[derive(Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// A new seed each time, unless `ONEJOB_TEST_SEED` names one.
    pub(crate) fn new() -> Random {
        let wanted = std::env::var("ONEJOB_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || {
            let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
            since.as_nanos() as u64
        };
        let seed: u64 = wanted.unwrap_or_else(now);
        eprintln!("ONEJOB_TEST_SEED={seed}");
        Random::of(seed)
    }

    /// The same numbers each time.
    pub(crate) fn of(seed: u64) -> Random {
        Random { state: seed | 1 }
    }

    /// xorshift64*
    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub(crate) fn duration(&mut self, longest: Duration) -> Duration {
        Duration::from_nanos(self.next() % (longest.as_nanos() as u64).max(1))
    }
}

/// Without the rounding of a sleep.
pub(crate) fn pause(duration: Duration) {
    let start = Instant::now();
    if let Some(most) = duration.checked_sub(Duration::from_micros(200)) {
        std::thread::sleep(most);
    }
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}

/// How long it took until nothing was left, over many deaths.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// Within two seconds, but for the moments at which the whole machine stands still.
    #[track_caller]
    pub(crate) fn assert_prompt(mut self, what: &str) {
        self.0.sort_unstable();
        let Some(last) = self.0.last() else { return };
        let median = self.0[self.0.len() / 2];
        eprintln!(
            "{what}: {} deaths, gone after {median:?} (median), {last:?} (most)",
            self.0.len()
        );
        assert!(median <= Duration::from_secs(2), "{what}: {median:?}");
    }
}
