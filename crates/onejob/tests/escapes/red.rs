//! Shows that the rows notice: with the job replaced by a process group and `killpg` (on Windows: by
//! the children that were started), each one fails.

use std::{
    env,
    process::{Command, Output},
};

const SELF: &str = "red::every_row_fails_when_killpg_replaces_the_job";
const VARIABLE: &str = "ONEJOB_TEST_CONTAINMENT";

/// Whether this process plays with `killpg` instead of jobs.
pub(crate) fn is_on() -> bool {
    env::var_os(VARIABLE).is_some()
}

#[test]
fn every_row_fails_when_killpg_replaces_the_job() {
    assert!(!is_on(), "{VARIABLE} is for the rows, not for the test that starts them");
    let list = text(&rows(["--list"]));
    let all = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let rows_here: Vec<_> = all.filter(|row| *row != SELF).collect();
    assert!(rows_here.len() >= if cfg!(windows) { 8 } else { 20 }, "{list}");
    let green = rows_here.into_iter().filter(|row| !is_red(row)).collect::<Vec<_>>();
    assert!(green.is_empty(), "killpg passes as containment in: {}", green.join(", "));
}

/// Red for the right reason: the judge saw somebody who should be dead.
fn is_red(row: &str) -> bool {
    let output = rows([row, "--exact", "--nocapture", "--test-threads=1"]);
    let said = text(&output);
    if output.status.success() {
        // Nothing was played.
        return said.contains("SKIPPED: only root") || said.contains("SKIPPED: in none");
    }
    assert!(said.contains("SURVIVED: ["), "{row} failed for another reason:\n{said}");
    true
}

fn rows<const N: usize>(args: [&str; N]) -> Output {
    let this = env::current_exe().expect("a path to this test");
    // Rows that cannot be played here have said so in their own run.
    let mut rows = Command::new(this);
    rows.args(args).env(VARIABLE, "killpg").env_remove("ONEJOB_NO_SKIP");
    rows.output().expect("this test starts again")
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
