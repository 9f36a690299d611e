//! Every setting times every ending.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant},
};

use testkit::Environment;

use crate::case::{Case, Ending, Scenario};

/// After this long a row that fails is not tried in more cases.
const ENOUGH: Duration = Duration::from_secs(60);

/// Plays `scenario` in each setting with each ending; `play` proves the odd state, then ends it.
pub(crate) fn every_case(scenario: &Scenario, play: impl Fn(Case)) {
    every_case_where(|_| true, scenario, play);
}

/// The same in the settings in which the scenario is possible.
pub(crate) fn every_case_where(
    possible: impl Fn(Environment) -> bool,
    scenario: &Scenario,
    play: impl Fn(Case),
) {
    let settings: Vec<_> =
        Environment::here().into_iter().filter(|setting| possible(*setting)).collect();
    if settings.is_empty() {
        eprintln!("SKIPPED: in none of the settings to be had here");
    }
    let all = settings.iter().flat_map(|setting| Ending::ALL.map(|ending| (*setting, ending)));
    let mut failures = Vec::new();
    let start = Instant::now();
    for (setting, ending) in all {
        let play = AssertUnwindSafe(|| play(Case::start(setting, ending, scenario)));
        if let Err(cause) = panic::catch_unwind(play) {
            failures.push(format!("{setting}, {ending}: {}", text(&*cause)));
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
