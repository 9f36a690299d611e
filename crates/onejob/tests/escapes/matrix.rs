//! Runs a scenario in every environment with every ending.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant},
};

use testkit::Environment;

use crate::case::{Case, Ending, Scenario};

/// A test that has failed runs no further cases after this time.
const ENOUGH: Duration = Duration::from_secs(60);

/// Runs `scenario` in each environment with each ending. `test` checks the special state and ends the job.
pub(crate) fn every_case(scenario: &Scenario, test: impl Fn(Case)) {
    every_case_where(|_| true, scenario, test);
}

/// As [`every_case`], in the environments in which the scenario is possible.
pub(crate) fn every_case_where(
    possible: impl Fn(Environment) -> bool,
    scenario: &Scenario,
    test: impl Fn(Case),
) {
    let environments: Vec<_> =
        Environment::here().into_iter().filter(|environment| possible(*environment)).collect();
    if environments.is_empty() {
        eprintln!("SKIPPED: in none of the environments that are available here");
    }
    let all = environments
        .iter()
        .flat_map(|environment| Ending::ALL.map(|ending| (*environment, ending)));
    let mut failures = Vec::new();
    let start = Instant::now();
    for (environment, ending) in all {
        let run = AssertUnwindSafe(|| test(Case::start(environment, ending, scenario)));
        if let Err(cause) = panic::catch_unwind(run) {
            failures.push(format!("{environment}, {ending}: {}", text(&*cause)));
            if start.elapsed() > ENOUGH || crate::red::is_on() {
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

fn text(cause: &(dyn Any + Send)) -> &str {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}
