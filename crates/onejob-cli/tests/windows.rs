//! The command on Windows, judged by what a user would see: a batch file that goes on writing.
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

fn size(file: &PathBuf) -> u64 {
    fs::metadata(file).map_or(0, |data| data.len())
}

#[track_caller]
fn awaits_growth(file: &PathBuf) {
    let (start, before) = (Instant::now(), size(file));
    while size(file) <= before {
        assert!(start.elapsed() < Duration::from_secs(180), "never grows");
        thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn assert_still(file: &PathBuf) {
    let before = size(file);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(size(file), before, "SURVIVED: somebody still writes");
}

#[test]
fn the_exit_status_is_the_commands_own_or_ours() {
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
    assert!(status == Some(125) && said.lines().count() == 1, "{said}");
    let (status, _, said) = outcome(&["run", "--require", "sealed", "cmd"]);
    assert!(status == Some(125) && said.contains("containment=tracked") || said.contains("lacks"));
}

#[test]
fn a_time_limit_ends_the_whole_tree() {
    let (script, ticks) = ticker("limit");
    let (status, ..) = outcome(&["run", "-t", "2", "--", script.to_str().expect("text")]);
    assert_eq!(status, Some(124));
    assert!(size(&ticks) > 0, "it ran");
    assert_still(&ticks);
    let _ = (fs::remove_file(script), fs::remove_file(ticks));
}

#[test]
fn a_terminated_onejob_run_leaves_nothing() {
    let (script, ticks) = ticker("owner");
    let mut run = onejob(&["run", "--", script.to_str().expect("text")]).spawn().expect("started");
    awaits_growth(&ticks);
    run.kill().expect("terminated");
    run.wait().expect("a status");
    assert_still(&ticks);
    let _ = (fs::remove_file(script), fs::remove_file(ticks));
}

#[test]
fn kill_ends_the_tree_below_a_pid_and_says_what_it_cannot_find() {
    let (script, ticks) = ticker("kill");
    let mut root = Command::new(&script).stdin(Stdio::null()).spawn().expect("started");
    awaits_growth(&ticks);
    let (status, _, said) = outcome(&["kill", &root.id().to_string()]);
    assert_eq!(status, Some(0), "{said}");
    root.wait().expect("a status");
    assert_still(&ticks);
    let (status, _, said) = outcome(&["kill", &root.id().to_string()]);
    assert!(status == Some(1) && said.lines().count() == 1, "{said}");
    for nonsense in ["0", "4", "x", "-1"] {
        let (status, _, said) = outcome(&["kill", nonsense]);
        assert!(status == Some(125) && said.lines().count() == 1, "{nonsense}: {said}");
    }
    let _ = (fs::remove_file(script), fs::remove_file(ticks));
}

#[test]
fn doctor_tells_the_mechanism_and_its_guarantees() {
    let (status, said, _) = outcome(&["doctor"]);
    assert_eq!(status, Some(0));
    assert!(said.contains("job-object: available") && said.contains("kill           atomic"));
    assert!(said.ends_with("onejob run uses job-object.\n"), "{said}");
    let (_, json, _) = outcome(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["run_uses"], "job-object");
    assert_eq!(report["mechanisms"][0]["guarantees"]["owner_death"], "kernel");
}
