//! Shows that the tests detect escapes: each one fails if the job is replaced by a process group and `killpg`
//! (on Windows: by a list of the started children).

use std::{
    env,
    process::{Command, Output},
};

const SELF: &str = "red::every_test_fails_if_killpg_replaces_the_job";
const VARIABLE: &str = "ONEJOB_TEST_CONTAINMENT";

/// Whether this process uses `killpg` instead of jobs.
pub(crate) fn is_on() -> bool {
    env::var_os(VARIABLE).is_some()
}

#[test]
fn every_test_fails_if_killpg_replaces_the_job() {
    assert!(!is_on(), "{VARIABLE} must not be set for the test that sets it");
    let list = text(&run(["--list"]));
    let all = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let tests: Vec<_> = all.filter(|test| *test != SELF).collect();
    assert!(tests.len() >= if cfg!(windows) { 8 } else { 20 }, "{list}");
    let passed = tests.into_iter().filter(|test| !fails(test)).collect::<Vec<_>>();
    assert!(passed.is_empty(), "killpg passes as containment in: {}", passed.join(", "));
}

/// Whether the test fails because a process survived.
fn fails(test: &str) -> bool {
    let output = run([test, "--exact", "--nocapture", "--test-threads=1"]);
    let said = text(&output);
    if output.status.success() {
        // The test was skipped.
        return said.contains("SKIPPED: only root") || said.contains("SKIPPED: in none");
    }
    assert!(said.contains("SURVIVED: ["), "{test} failed for another reason:\n{said}");
    true
}

fn run<const N: usize>(args: [&str; N]) -> Output {
    let this = env::current_exe().expect("a path to this test");
    // A test that cannot run here fails in its own run if it must not be skipped.
    let mut command = Command::new(this);
    command.args(args).env(VARIABLE, "killpg").env_remove("ONEJOB_NO_SKIP");
    command.output().expect("this test starts again")
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
