//! The command on Windows. A batch file that goes on writing shows whether its tree is alive.
#![cfg(windows)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

fn onejob(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onejob"));
    command.args(args).stdin(Stdio::null());
    command
}

fn outcome(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = onejob(args).output().expect("it starts");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

/// A batch file that writes for ever, through a child of a child.
fn ticker(name: &str) -> (PathBuf, PathBuf) {
    let at = |suffix| std::env::temp_dir().join(format!("{name}-{}.{suffix}", std::process::id()));
    let (script, ticks) = (at("bat"), at("txt"));
    let loops = format!(
        "@echo off\r\nif \"%1\"==\"in\" goto in\r\ncmd /d /c \"{}\" in\r\nexit /b 3\r\n:in\r\necho \
         tick>>\"{}\"\r\ngoto in\r\n",
        script.display(),
        ticks.display()
    );
    fs::write(&script, loops).expect("a script");
    let _ = fs::remove_file(&ticks);
    (script, ticks)
}

/// Whether this is one error message of onejob, with at most one hint below it.
fn is_error(stderr: &str) -> bool {
    match stderr.trim_end().lines().collect::<Vec<_>>()[..] {
        [message] => message.starts_with("onejob: "),
        [message, hint] => message.starts_with("onejob: ") && hint.starts_with("hint: "),
        _ => false,
    }
}

fn size(file: &PathBuf) -> u64 {
    fs::metadata(file).map_or(0, |data| data.len())
}

#[track_caller]
fn awaits_growth(file: &PathBuf) {
    let (start, before) = (Instant::now(), size(file));
    while size(file) <= before {
        assert!(start.elapsed() < Duration::from_secs(180), "the file does not grow");
        thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn assert_still(file: &PathBuf) {
    let before = size(file);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(size(file), before, "SURVIVED: a process still writes");
}

/// The exit status is CMD's, or onejob's own for its failures.
#[test]
fn exit_status() {
    for code in ["0", "7", "256", "-1"] {
        let expected: i32 = code.parse().expect("a number");
        let (status, ..) = outcome(&["run", "--", "cmd", "/d", "/c", "exit", code]);
        assert_eq!(status, Some(expected));
    }
    let (status, _, said) = outcome(&["run", "no-such-program-anywhere"]);
    assert!(status == Some(127) && said.starts_with("onejob: failed to execute"), "{said}");
    let folder = std::env::temp_dir();
    let (status, _, said) =
        outcome(&["run", folder.to_str().expect("text").trim_end_matches('\\')]);
    assert_eq!(status, Some(126), "{said}");
    let (status, _, said) = outcome(&["run", "--mechanism", "cgroup", "cmd"]);
    assert!(status == Some(125) && is_error(&said), "{said}");
    let (status, _, said) = outcome(&["run", "--require", "sealed", "cmd"]);
    assert!(status == Some(125) && said.contains("containment=tracked") || said.contains("lacks"));
}

/// A time limit ends the whole tree.
#[test]
fn time_limit() {
    let (script, ticks) = ticker("limit");
    let (status, ..) = outcome(&["run", "-t", "2", "--", script.to_str().expect("text")]);
    assert_eq!(status, Some(124));
    assert!(size(&ticks) > 0, "CMD has run");
    assert_still(&ticks);
    let _ = (fs::remove_file(script), fs::remove_file(ticks));
}

/// When onejob is terminated, the whole tree ends.
#[test]
fn terminated_run() {
    let (script, ticks) = ticker("owner");
    let mut run = onejob(&["run", "--", script.to_str().expect("text")]).spawn().expect("started");
    awaits_growth(&ticks);
    run.kill().expect("terminated");
    run.wait().expect("a status");
    assert_still(&ticks);
    let _ = (fs::remove_file(script), fs::remove_file(ticks));
}

/// `kill PID` ends the tree below a process, and reports a process that does not exist.
#[test]
fn kill_of_a_pid() {
    let (script, ticks) = ticker("kill");
    let mut root = Command::new(&script).stdin(Stdio::null()).spawn().expect("started");
    awaits_growth(&ticks);
    let (status, _, said) = outcome(&["kill", &root.id().to_string()]);
    assert_eq!(status, Some(0), "{said}");
    root.wait().expect("a status");
    assert_still(&ticks);
    let (status, _, said) = outcome(&["kill", &root.id().to_string()]);
    assert!(status == Some(1) && is_error(&said), "{said}");
    for nonsense in ["0", "4", "x", "-1"] {
        let (status, _, said) = outcome(&["kill", nonsense]);
        assert!(status == Some(125) && is_error(&said), "{nonsense}: {said}");
    }
    let _ = (fs::remove_file(script), fs::remove_file(ticks));
}

/// `doctor` prints the mechanism and its guarantees.
#[test]
fn doctor() {
    let (status, said, _) = outcome(&["doctor"]);
    assert_eq!(status, Some(0));
    assert!(said.contains("job-object: available") && said.contains("kill           atomic"));
    assert!(said.starts_with("onejob works on this host, with job-object: "), "{said}");
    let (_, json, _) = outcome(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["run_uses"], "job-object");
    assert_eq!(report["mechanisms"][0]["guarantees"]["owner_death"], "kernel");
}

/// Ends the job at the end of the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A named job can be listed, frozen, joined, waited for and killed.
#[test]
fn named_job() {
    let (script, ticks) = ticker("named");
    let name = format!("named{}", std::process::id());
    let args = ["run", "-n", &name, "--", script.to_str().expect("text")];
    let mut run = Running(onejob(&args).spawn().expect("started"));
    awaits_growth(&ticks);
    let (status, _, said) = outcome(&["run", "-n", &name, "--", "cmd", "/d", "/c", "exit"]);
    assert!(status == Some(125) && said.contains("running already"), "{said}");

    let (status, listed, said) = outcome(&["ls", "--json"]);
    assert_eq!(status, Some(0), "{said}");
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let jobs = listed["jobs"].as_array().expect("a list");
    let ours = jobs.iter().find(|job| job["name"] == *name).expect("listed");
    assert_eq!(ours["owner_pid"], run.0.id());
    assert!(ours["members"].as_u64().expect("a number") >= 2, "{ours}");
    assert!(ours["argv"][0].as_str().expect("known").contains("named"), "{ours}");
    assert!(ours["memory_bytes"].as_u64() > Some(0), "{ours}");
    let (status, tree, said) = outcome(&["tree", &name]);
    assert!(status == Some(0) && tree.to_lowercase().contains("cmd"), "{tree}{said}");
    let (status, used, said) = outcome(&["stats", &name]);
    assert!(status == Some(0) && used.contains(" members"), "{used}{said}");
    let (status, limits, said) = outcome(&["limit", &name]);
    assert!(status == Some(0) && limits.contains("not limited"), "{limits}{said}");

    let (status, _, said) = outcome(&["freeze", &name]);
    assert_eq!(status, Some(0), "{said}");
    thread::sleep(Duration::from_millis(100));
    assert_still(&ticks);
    let (status, _, said) = outcome(&["exec", &name, "--", "cmd", "/d", "/c", "exit", "5"]);
    assert!(status == Some(125) && said.contains("frozen"), "{said}");
    // Another process froze it.
    let (status, _, said) = outcome(&["thaw", &name]);
    assert_eq!(status, Some(0), "{said}");
    awaits_growth(&ticks);
    let (status, _, said) = outcome(&["exec", &name, "--", "cmd", "/d", "/c", "exit", "5"]);
    assert_eq!(status, Some(5), "{said}");

    let waiting = onejob(&["wait", &name]).stderr(Stdio::piped()).spawn().expect("started");
    let (status, _, said) = outcome(&["kill", "--now", &name]);
    assert_eq!(status, Some(0), "{said}");
    assert_still(&ticks);
    let killed = run.0.wait().expect("a status").code();
    let waited = waiting.wait_with_output().expect("a status");
    // A waiter that was started too late has found no job: that proves nothing.
    if !String::from_utf8_lossy(&waited.stderr).contains("there is no job") {
        assert_eq!(waited.status.code(), killed);
    }
    let (status, _, said) = outcome(&["wait", &name]);
    assert!(status == Some(125) && said.contains("no job"), "{said}");
    let _ = (fs::remove_file(script), fs::remove_file(ticks));
}

/// A detached job writes a log, and `wait` returns its status.
#[test]
fn detached_job() {
    let name = format!("detached{}", std::process::id());
    let script = std::env::temp_dir().join(format!("{name}.bat"));
    let go = std::env::temp_dir().join(format!("{name}.go"));
    let lines = format!(
        "@echo off\r\necho begun\r\n:again\r\nif not exist \"{}\" goto again\r\necho over\r\nexit /b \
         3\r\n",
        go.display()
    );
    fs::write(&script, lines).expect("a script");
    let words = ["run", "-d", "-n", &name, "--", script.to_str().expect("text")];
    let log = loop {
        let _ = fs::remove_file(&go);
        let (status, said, failed) = outcome(&words);
        assert_eq!(status, Some(0), "{failed}");
        let log = PathBuf::from(said.lines().nth(1).expect("a log"));
        assert_eq!(said.lines().next(), Some(&*name));
        let follower =
            onejob(&["logs", "-f", &name]).stdout(Stdio::piped()).spawn().expect("started");
        let waiting = onejob(&["wait", &name]).stderr(Stdio::piped()).spawn().expect("started");
        let start = Instant::now();
        while !outcome(&["logs", &name]).1.contains("begun") {
            assert!(start.elapsed() < Duration::from_secs(180), "CMD does not begin");
        }
        fs::write(&go, "").expect("writable");
        let waited = waiting.wait_with_output().expect("a status");
        let followed = follower.wait_with_output().expect("it ends with the job").stdout;
        assert_eq!(String::from_utf8_lossy(&followed).replace('\r', ""), "begun\nover\n");
        // A waiter that was started too late has found no job: that proves nothing.
        if !String::from_utf8_lossy(&waited.stderr).contains("there is no job") {
            assert_eq!(waited.status.code(), Some(3));
            break log;
        }
    };
    let (status, said, _) = outcome(&["logs", &name]);
    assert!(status == Some(0) && said.contains("over"), "also when the job has ended: {said}");
    let (status, _, said) = outcome(&["run", "-d", "--", "no-such-program-anywhere"]);
    assert!(status == Some(127) && said.contains("no-such-program-anywhere"), "{said}");
    for file in [script, go, log] {
        fs::remove_file(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}
