//! `onejob doctor`: its JSON, its text, and the truth of both.
#![cfg(target_os = "linux")]

mod common;

use std::{os::unix::fs::PermissionsExt as _, process::Command};

use common::{Marked as _, Scratch, mechanisms, onejob, outcome, run, text};
use serde_json::Value;

fn report() -> Value {
    let output = outcome(&mut onejob(&["doctor", "--json"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The JSON has the promised keys, and each unavailable mechanism has a hint.
#[test]
fn json_keys() {
    let report = report();
    assert_eq!(report["schema"], 1);
    let mechanisms = report["mechanisms"].as_array().unwrap();
    assert!(!mechanisms.is_empty());
    for mechanism in mechanisms {
        assert!(mechanism["mechanism"].is_string());
        assert!(mechanism["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
        assert!(mechanism["hint"].is_null() || mechanism["hint"].is_string());
        let guarantees = &mechanism["guarantees"];
        assert_eq!(mechanism["available"] == true, guarantees.is_object(), "{mechanism}");
        // Each unavailable mechanism has a hint.
        assert!(mechanism["available"] == true || mechanism["hint"].is_string(), "{mechanism}");
        if let Some(guarantees) = guarantees.as_object() {
            let keys: Vec<_> = guarantees.keys().map(String::as_str).collect();
            let promised = [
                "containment",
                "cpu_accounting",
                "crosses_setuid",
                "freeze",
                "io_accounting",
                "kill",
                "limits",
                "memory_accounting",
                "owner_death",
            ];
            assert_eq!(keys, promised);
            assert!(guarantees["crosses_setuid"].is_boolean());
        }
    }
}

/// `run --require` accepts each mechanism with the guarantees that the report names, and refuses
/// the others.
#[test]
fn available_mechanism_keeps_its_guarantees() {
    let report = report();
    for mechanism in report["mechanisms"].as_array().unwrap() {
        let name = mechanism["mechanism"].as_str().unwrap();
        if mechanism["available"] == true {
            let level = |key: &str| mechanism["guarantees"][key].as_str().unwrap().to_owned();
            let kill = format!("kill={}", level("kill"));
            let death = format!("owner-death={}", level("owner_death"));
            let wants = ["--require", &level("containment"), "--require", &kill];
            let args = [&wants[..], &["--require", &death, "--", "true"]].concat();
            let output = outcome(&mut run(name, &args));
            assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        } else {
            let output = outcome(&mut run(name, &["--", "true"]));
            assert_eq!(output.status.code(), Some(125), "{name}");
        }
    }
}

/// `run_uses` is the first available mechanism.
#[test]
fn run_uses_the_first_available_mechanism() {
    assert_eq!(report()["run_uses"].as_str(), Some(&*mechanisms()[0]));
}

/// The text names each mechanism, and the one that `onejob run` uses.
#[test]
fn text_names_every_mechanism() {
    let output = outcome(&mut onejob(&["doctor"]));
    assert!(output.status.success());
    let prose = text(&output.stdout);
    for mechanism in report()["mechanisms"].as_array().unwrap() {
        assert!(prose.contains(mechanism["mechanism"].as_str().unwrap()), "{prose}");
    }
    let verdict = format!("onejob works on this host, with {}: ", mechanisms()[0]);
    assert!(prose.starts_with(&verdict), "{prose}");
}

/// The probes leave no process behind.
#[test]
fn probes_leave_no_process() {
    let scratch = Scratch::new();
    outcome(onejob(&["doctor"]).marked(&scratch));
    scratch.marked_are_gone();
}

/// Root of a user namespace does not use the directory of this host's root in `/tmp`, but that of the user
/// that it is outside.
#[test]
fn records_of_root_in_a_user_namespace() {
    const USER: u32 = 54_329;
    let scratch = Scratch::new();
    let program = scratch.file("onejob");
    std::fs::copy(common::ONEJOB, &program).unwrap();
    let all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, all.clone()).unwrap();
    std::fs::set_permissions(scratch.path(), all).unwrap();
    let (uid, mut command) = match common::is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={USER}"), "--clear-groups", "unshare"]);
            (USER, command)
        }
        false => (rustix::process::geteuid().as_raw(), Command::new("unshare")),
    };
    command.args(["--user", "--map-root-user"]).arg(program).arg("doctor");
    let output = outcome(command.env_remove("ONEJOB_RUNTIME_DIR"));
    let stdout = text(&output.stdout);
    if stdout.is_empty() && text(&output.stderr).contains("unshare failed") {
        common::skip!("no user namespace can be made here");
    }
    let expected = format!("Jobs are listed in /tmp/onejob-{uid}.");
    assert!(stdout.contains(&expected), "{stdout}{}", text(&output.stderr));
}
