//! `ONEJOB_LOG`: the steps of the library on the standard error.
#![cfg(target_os = "linux")]

mod common;

use common::{mechanisms, onejob, outcome, text};

fn stderr_of(level: &str, mechanism: &str) -> String {
    let args = ["run", "--mechanism", mechanism, "--", "sh", "-c", "sleep 1000 & exit 3"];
    let output = outcome(onejob(&args).env("ONEJOB_LOG", level));
    assert_eq!(output.status.code(), Some(3), "{mechanism}: {}", text(&output.stderr));
    text(&output.stderr)
}

/// With `debug` each step is one line: the job, its guards, the start of the command, the kill of what it
/// left behind.
#[test]
fn each_step_is_a_line() {
    for mechanism in mechanisms() {
        let log = stderr_of("debug", &mechanism);
        let steps = [
            "guards: started",
            "guards: ready inner=",
            &format!("job created mechanism={mechanism}"),
            "spawned program=sh pid=",
            "stop: signal sent signal=SIGTERM members=1",
            "stop: kill",
        ];
        for step in steps {
            let lines: Vec<_> = log.lines().filter(|line| line.contains(step)).collect();
            assert_eq!(lines.len(), 1, "{mechanism}: {step:?} in {log}");
            assert!(lines[0].starts_with("onejob["), "{log}");
        }
        assert!(!log.contains("kill of a cgroup") && !log.contains("kill round"), "{log}");
    }
}

/// `trace` adds the rounds of a kill.
#[test]
fn trace_adds_the_kills() {
    for mechanism in mechanisms() {
        let log = stderr_of("trace", &mechanism);
        assert!(log.contains("stop: kill") && log.contains("job created"), "{mechanism}: {log}");
        if mechanism == "cgroup" {
            assert!(log.contains("kill of a cgroup"), "{log}");
        }
    }
}

/// Without the variable, and with any other value, nothing is printed.
#[test]
fn nothing_without_the_variable() {
    for mechanism in mechanisms() {
        for level in ["", "off"] {
            assert_eq!(stderr_of(level, &mechanism), "", "{mechanism}");
        }
    }
}
