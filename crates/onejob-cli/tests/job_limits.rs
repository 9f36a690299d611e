//! The limits of a job, and its statistics.
#![cfg(target_os = "linux")]

mod common;

use common::{Scratch, onejob, outcome, run, text};

/// Whether the mechanism with limits is available on this host.
fn has_cgroups() -> bool {
    let has = common::mechanisms().iter().any(|mechanism| mechanism == "cgroup");
    if !has {
        eprintln!("SKIPPED: only cgroups can be limited");
        assert!(std::env::var_os("ONEJOB_NO_SKIP").is_none(), "skipped");
    }
    has
}

/// An invalid limit gives 125 and one error, and nothing is started.
#[test]
fn invalid_limits() {
    let scratch = Scratch::new();
    let file = scratch.path().join("started");
    let touch = ["--", "touch", file.to_str().unwrap()];
    for limit in [
        "--memory=0",
        "--memory=-1",
        "--memory=2X",
        "--memory=99999999999999999999",
        "--memory=8388608T",
        "--swap=-1",
        "--swap=x",
        "--cpus=0",
        "--cpus=-1",
        "--cpus=nan",
        "--cpus=0.0001",
        "--cpu-weight=0",
        "--io-weight=10001",
        "--processes=0",
        "--processes=1.5",
        "--cpu-time=0",
        "--cpu-time=-1",
        "--cpu-time=5X",
        "--oom-kill-one",
        "--stats=xml",
    ] {
        let output = outcome(onejob(&["run", limit]).args(touch));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{limit}: {said}");
        assert!(common::is_error(&said), "{limit}: {said}");
        assert!(!file.exists(), "{limit} has started it");
    }
}

/// A limit that the mechanism cannot enforce is an error, and nothing is started.
#[test]
fn limits_without_cgroups() {
    let scratch = Scratch::new();
    let file = scratch.path().join("started");
    for limit in ["--memory=1G", "--cpus=1", "--processes=9", "--cpu-time=9", "--swap=0"] {
        let touch = [limit, "--", "touch", file.to_str().unwrap()];
        let output = outcome(&mut run("subreaper", &touch));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{limit}: {said}");
        assert!(said.contains("subreaper lacks limits="), "{limit}: {said}");
        assert!(!file.exists(), "{limit} has started it");
    }
}

/// A job that has used up its CPU time is killed, and the status is 124.
#[test]
fn cpu_time_limit() {
    if !has_cgroups() {
        return;
    }
    let script = "setsid sh -c 'while :; do :; done' & sleep 300";
    let output = outcome(&mut run(
        "cgroup",
        &["--cpu-time", "500ms", "--stats=json", "--", "sh", "-c", script],
    ));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(124), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].contains("--cpu-time"), "{said}");
    let report: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(report["reason"], "cpu-time");
    let used = ["user_seconds", "system_seconds"].map(|key| report[key].as_f64().unwrap());
    let used = used[0] + used[1];
    assert!((0.45..=0.55).contains(&used), "{used}");
}

/// The JSON of `run --stats=json` has the promised keys.
#[test]
fn json_keys_of_stats() {
    for mechanism in common::mechanisms() {
        let output =
            outcome(&mut run(&mechanism, &["--stats=json", "-t", "50ms", "--", "sleep", "300"]));
        assert_eq!(output.status.code(), Some(124));
        let report: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        let keys: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
        let promised = [
            "io_read_bytes",
            "io_written_bytes",
            "memory_peak_bytes",
            "oom_kills",
            "processes_peak",
            "processes_refused",
            "processes_total",
            "real_seconds",
            "reason",
            "schema",
            "stalled_on_cpu_seconds",
            "stalled_on_io_seconds",
            "stalled_on_memory_seconds",
            "system_seconds",
            "user_seconds",
        ];
        assert_eq!(keys, promised, "{mechanism}");
        assert_eq!((&report["schema"], &report["reason"]), (&1.into(), &"timeout".into()));
        assert!(report["real_seconds"].as_f64().unwrap() >= 0.05);
    }
}
