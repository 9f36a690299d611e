//! Every environment times every ending.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant},
};

use testkit::Environment;

use crate::case::{Case, Ending, Scenario};

/// After this long a row that fails is not tried in more cases.
const ENOUGH: Duration = Duration::from_secs(60);

/// Plays `scenario` in each environment with each ending; `play` proves the odd state, then ends it.
pub(crate) fn every_case(scenario: &Scenario, play: impl Fn(Case)) {
    every_case_where(|_| true, scenario, play);
}

/// The same in the environments in which the scenario is possible.
pub(crate) fn every_case_where(
    possible: impl Fn(Environment) -> bool,
    scenario: &Scenario,
    play: impl Fn(Case),
) {
    let environments: Vec<_> =
        Environment::here().into_iter().filter(|environment| possible(*environment)).collect();
    if environments.is_empty() {
        eprintln!("SKIPPED: in none of the environments to be had here");
    }
    let all = environments
        .iter()
        .flat_map(|environment| Ending::ALL.map(|ending| (*environment, ending)));
    let mut failures = Vec::new();
    let start = Instant::now();
    for (environment, ending) in all {
        let play = AssertUnwindSafe(|| play(Case::start(environment, ending, scenario)));
        if let Err(cause) = panic::catch_unwind(play) {
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
