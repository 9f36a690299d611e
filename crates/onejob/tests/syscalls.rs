//! The price of each operation in system calls of the owner, which stays the same from run to run
//! whatever else the machine does. Whoever makes one dearer must say so here.
#![cfg(target_os = "linux")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use testkit::{Bins, Environment, eventually, scratch_dir, skip};

/// How many system calls the owner's thread makes for each request.
fn prices(mechanism: &str, requests: &[String]) -> Vec<usize> {
    let log = scratch_dir().join("strace");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o"]).arg(&log).arg(Bins::get().owner());
    let mut strace =
        strace.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("strace starts");
    let mut answers = BufReader::new(strace.stdout.take().expect("piped")).lines();
    let mut answer = || answers.next().expect("an answer").expect("text");
    assert!(answer().starts_with("ok"), "a greeting");
    let mut pipe = strace.stdin.take().expect("piped");
    writeln!(pipe, "new {mechanism}").expect("it listens");
    assert_eq!(answer(), "ok", "new");
    for request in requests {
        writeln!(pipe, "{request}").expect("it listens");
        let said = answer();
        assert!(said.starts_with("ok"), "{request}: {said}");
    }
    drop(pipe);
    strace.wait().expect("our child");
    // Between two answers lies one request: it is read, worked on, and answered.
    let log = fs::read_to_string(log).expect("a log");
    let mut counts = vec![0];
    for line in log.lines().filter(|line| !line.starts_with("---") && !line.contains("resumed>")) {
        *counts.last_mut().expect("one at least") += 1;
        if line.starts_with("write(1, \"ok") {
            counts.push(0);
        }
    }
    // The greeting, and `new`.
    counts.drain(..2);
    counts.truncate(requests.len());
    counts
}

/// No operation costs more system calls than it did.
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
        let counts = prices(mechanism, &requests);
        // The usual one: now and then the heap grows.
        let mut spawns = counts[..101].to_vec();
        spawns.sort_unstable();
        let spawn = spawns[50];
        let (list, kill) = (counts[101], counts[102]);
        eprintln!("{mechanism}: spawn {spawn}, list of 101 {list}, kill of 101 {kill}");
        // A kill looks again until all are dead, which a busy machine makes longer.
        let most = if mechanism == "cgroup" { [16, 1_100, 200] } else { [200, 1_700, 2_500] };
        for (what, count, most) in
            [("spawn", spawn, most[0]), ("list", list, most[1]), ("kill", kill, most[2])]
        {
            assert!(count <= most, "{mechanism}: {what} costs {count} system calls, not {most}");
        }
    }
}

/// What `onejob run -- true` costs in system calls of its own.
fn price_of_run(mechanism: &str, place: Option<&Place>) -> usize {
    let scratch = scratch_dir();
    let log = scratch.join("strace");
    let mut run = Command::new("sh");
    run.args(["-c", r#"[ -z "$0" ] || echo 0 >"$0/cgroup.procs" && exec "$@""#]);
    run.arg(place.map_or(Path::new(""), |place| &place.0));
    run.args(["strace", "-qq", "-o"]).arg(&log).arg(Bins::get().onejob());
    run.args(["run", "--mechanism", mechanism, "--", "/bin/true"]).stdin(Stdio::null());
    // Not the jobs of others, and not our caller's variables.
    run.env_clear().env("ONEJOB_RUNTIME_DIR", scratch.join("runtime"));
    run.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let status = run.status().expect("sh starts");
    assert!(status.success(), "{mechanism}: {status}");
    let log = fs::read_to_string(log).expect("a log");
    let is_call = |line: &&str| !line.starts_with("---") && !line.contains("resumed>");
    log.lines().filter(is_call).count()
}

/// A cgroup where nobody else has jobs that would have to be looked at.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        let own = testkit::cgroup::own().expect("a cgroup environment");
        let place = own.join(format!("testkit-price-{}", std::process::id()));
        fs::create_dir(&place).expect("a fresh cgroup");
        Place(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The guards are on their way out.
        eventually("the price's cgroup is empty", || testkit::cgroup::remove(&self.0).ok());
    }
}

/// A command costs no more system calls than it did.
#[test]
fn system_calls_of_each_command() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip("strace is not installed");
    }
    let here = Environment::here();
    let cgroup = here.contains(&Environment::CgroupRoot).then(Place::new);
    let subreaper = here.iter().any(|environment| environment.mechanism() == "subreaper");
    // Descriptors that our caller has left open are passed on, a call or two for each.
    let legs = [(cgroup.is_some(), "cgroup", 220), (subreaper, "subreaper", 330)];
    for (_, mechanism, most) in legs.into_iter().filter(|(is_here, ..)| *is_here) {
        // A busy machine has it look once more whether everybody is gone.
        let prices: Vec<_> = (0..5).map(|_| price_of_run(mechanism, cgroup.as_ref())).collect();
        eprintln!("{mechanism}: `onejob run -- true` {prices:?}");
        let price = prices.into_iter().min().expect("some");
        assert!(price <= most, "{mechanism}: `onejob run -- true` costs {price}, not {most}");
    }
}
