//! The number of system calls that the owner makes for each operation. It does not depend on the load of the
//! machine. A change that needs more calls must raise the number here.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use testkit::{Bins, Environment, LineProcess, eventually, scratch_dir, skip};

/// The number of system calls of the owner's main thread for each request.
fn calls_of_requests(mechanism: &str, requests: &[String]) -> Vec<usize> {
    let log = scratch_dir().join("strace");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o"]).arg(&log).arg(Bins::get().owner());
    strace.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut owner = LineProcess::of(strace.spawn().expect("strace starts"));
    owner.receive("the start").expect("a greeting");
    owner.ok(&format!("new {mechanism}"));
    for request in requests {
        owner.ok(request);
    }
    owner.end();
    // The calls between two answers belong to one request.
    let log = fs::read_to_string(log).expect("a log");
    let mut counts = vec![0];
    for line in log.lines().filter(|line| !line.starts_with("---") && !line.contains("resumed>")) {
        *counts.last_mut().expect("at least one") += 1;
        if line.starts_with("write(1, \"ok") {
            counts.push(0);
        }
    }
    // The start, and `new`.
    counts.drain(..2);
    counts.truncate(requests.len());
    counts
}

/// No operation makes more system calls than stated here.
#[test]
fn system_calls_of_each_operation() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip("strace is not installed");
    }
    let helper = Bins::get().helper().display().to_string();
    let mut requests = vec![format!("spawn {helper} sleep /dev/null"); 101];
    requests.extend(["list".to_owned(), "kill".to_owned()]);
    let mechanisms = Environment::here().into_iter().filter(|environment| {
        *environment == Environment::CgroupRoot || environment.mechanism() == "subreaper"
    });
    let mut mechanisms: Vec<_> = mechanisms.map(Environment::mechanism).collect();
    mechanisms.dedup();
    for mechanism in mechanisms {
        let most = if mechanism == "cgroup" { [16, 1_100, 200] } else { [200, 1_700, 2_500] };
        // A kill checks again members that have the signal and are not dead yet. How often depends on the
        // load, and each check adds calls: the smallest count of some runs is the operation itself.
        let mut least = [usize::MAX; 3];
        for _ in 0..5 {
            let counts = typical(&calls_of_requests(mechanism, &requests));
            least = [0, 1, 2].map(|operation| least[operation].min(counts[operation]));
            if least.iter().zip(most).all(|(count, most)| *count <= most) {
                break;
            }
        }
        let [spawn, list, kill] = least;
        eprintln!("{mechanism}: spawn {spawn}, list of 101 {list}, kill of 101 {kill}");
        for (what, count, most) in
            [("spawn", spawn, most[0]), ("list", list, most[1]), ("kill", kill, most[2])]
        {
            assert!(
                count <= most,
                "{mechanism}: {what} makes {count} system calls (at most {most})"
            );
        }
    }
}

/// The counts of a spawn, a list and a kill, from those of 101 spawns, a list and a kill. The heap grows
/// with some spawns: their median counts.
fn typical(counts: &[usize]) -> [usize; 3] {
    let mut spawns = counts[..101].to_vec();
    spawns.sort_unstable();
    [spawns[50], counts[101], counts[102]]
}

/// The number of system calls of `onejob run -- true` itself.
fn calls_of_run(mechanism: &str, cgroup: Option<&EmptyCgroup>) -> usize {
    let scratch = scratch_dir();
    let log = scratch.join("strace");
    let mut run = Command::new("sh");
    run.args(["-c", r#"[ -z "$0" ] || echo 0 >"$0/cgroup.procs" && exec "$@""#]);
    run.arg(cgroup.map_or(Path::new(""), |cgroup| &cgroup.0));
    run.args(["strace", "-qq", "-o"]).arg(&log).arg(Bins::get().onejob());
    run.args(["run", "--mechanism", mechanism, "--", "/bin/true"]).stdin(Stdio::null());
    // Without the records of other jobs, and without the variables of the caller.
    run.env_clear().env("ONEJOB_RUNTIME_DIR", scratch.join("runtime"));
    run.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let status = run.status().expect("sh starts");
    assert!(status.success(), "{mechanism}: {status}");
    let log = fs::read_to_string(log).expect("a log");
    let is_call = |line: &&str| !line.starts_with("---") && !line.contains("resumed>");
    log.lines().filter(is_call).count()
}

/// A cgroup without other jobs, which `onejob run` would check.
struct EmptyCgroup(PathBuf);

impl EmptyCgroup {
    fn new() -> EmptyCgroup {
        let own = testkit::cgroup::own().expect("cgroup v2");
        let dir = own.join(format!("testkit-calls-{}", std::process::id()));
        fs::create_dir(&dir).expect("a new cgroup");
        EmptyCgroup(dir)
    }
}

impl Drop for EmptyCgroup {
    fn drop(&mut self) {
        eventually("the end of the guards in the cgroup", || testkit::cgroup::remove(&self.0).ok());
    }
}

/// `onejob run` makes no more system calls than stated here.
#[test]
fn system_calls_of_each_command() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip("strace is not installed");
    }
    let here = Environment::here();
    let cgroup = here.contains(&Environment::CgroupRoot).then(EmptyCgroup::new);
    let subreaper = here.iter().any(|environment| environment.mechanism() == "subreaper");
    // Each descriptor that this process has inherited costs a call or two.
    let mechanisms = [(cgroup.is_some(), "cgroup", 220), (subreaper, "subreaper", 330)];
    for (_, mechanism, most) in mechanisms.into_iter().filter(|(is_here, ..)| *is_here) {
        // On a busy machine it checks once more whether all processes have ended.
        let counts: Vec<_> = (0..5).map(|_| calls_of_run(mechanism, cgroup.as_ref())).collect();
        eprintln!("{mechanism}: `onejob run -- true` {counts:?}");
        let calls = counts.into_iter().min().expect("some");
        assert!(
            calls <= most,
            "{mechanism}: `onejob run -- true` makes {calls} calls (at most {most})"
        );
    }
}

/// Running `onejob run --name` commands with a runtime directory of their own.
struct Runs {
    runtime: PathBuf,
    mechanism: &'static str,
    running: Vec<std::process::Child>,
}

impl Runs {
    fn onejob(&self) -> Command {
        let mut onejob = Command::new(Bins::get().onejob());
        onejob.env("ONEJOB_RUNTIME_DIR", &self.runtime).stdin(Stdio::null()).stdout(Stdio::null());
        onejob
    }

    /// Starts jobs until there are this many, and waits until all are listed.
    fn start(&mut self, count: usize) {
        while self.running.len() < count {
            let name = format!("job{}", self.running.len());
            let mut run = self.onejob();
            run.args(["run", "--name", &name, "--mechanism", self.mechanism, "--"]);
            run.arg(Bins::get().helper()).args(["sleep", "/dev/null"]);
            self.running.push(run.spawn().expect("onejob starts"));
        }
        eventually("all jobs in the list with a member", || {
            let listed = self.onejob().args(["ls", "--json"]).stdout(Stdio::piped()).output();
            let text = String::from_utf8(listed.expect("a list").stdout).expect("UTF-8");
            let found =
                text.matches("\"members\":1").count() + text.matches("\"members\": 1").count();
            (found == count).then_some(())
        });
    }

    /// The number of system calls of `onejob ls`, without the checks of descriptors in a debug build.
    fn calls_of_ls(&self) -> usize {
        let log = self.runtime.with_extension("strace");
        let mut ls = Command::new("strace");
        ls.args(["-f", "-qq", "-o"]).arg(&log).arg(Bins::get().onejob()).args(["ls", "--json"]);
        ls.env("ONEJOB_RUNTIME_DIR", &self.runtime).stdin(Stdio::null()).stdout(Stdio::null());
        assert!(ls.status().expect("strace starts").success());
        let log = fs::read_to_string(log).expect("a log");
        let others = ["---", "resumed>", "F_GETFD"];
        log.lines().filter(|line| !others.iter().any(|other| line.contains(other))).count()
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        for (number, run) in self.running.iter_mut().enumerate() {
            let mut kill = Command::new(Bins::get().onejob());
            kill.env("ONEJOB_RUNTIME_DIR", &self.runtime).stdout(Stdio::null());
            let _ = kill.args(["kill", &format!("job{number}")]).status();
            let _ = run.wait();
        }
    }
}

/// `onejob ls` makes at most 60 system calls for each job with one member.
#[test]
fn system_calls_of_a_list_for_each_job() {
    const MOST: usize = 60;
    const MORE: usize = 10;
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip("strace is not installed");
    }
    let here = Environment::here();
    for mechanism in ["cgroup", "subreaper"] {
        if !here.iter().any(|environment| {
            environment.mechanism() == mechanism
                && (mechanism != "cgroup" || *environment == Environment::CgroupRoot)
        }) {
            continue;
        }
        let runtime = scratch_dir().join("runtime");
        let mut runs = Runs { runtime, mechanism, running: Vec::new() };
        runs.start(1);
        // A guard that replies late costs more calls.
        let count = |runs: &Runs| (0..5).map(|_| runs.calls_of_ls()).min().expect("some");
        let one = count(&runs);
        runs.start(1 + MORE);
        let calls = (count(&runs) - one) / MORE;
        eprintln!("{mechanism}: `onejob ls` {calls} for each job");
        assert!(
            calls <= MOST,
            "{mechanism}: `onejob ls` makes {calls} calls a job (at most {MOST})"
        );
    }
}
