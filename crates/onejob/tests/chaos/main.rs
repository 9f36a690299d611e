//! Random process trees, operations and faults: the members of ended jobs die, and all other processes live.
//!
//! The seed of a round determines its plan. A failure prints the plan; `CHAOS_SEED=… CHAOS_ROUNDS=1` runs it
//! again (the kernel still decides the timing). Variables:
//!
//! - `CHAOS_MINUTES`: how long to run, by default 20 seconds;
//! - `CHAOS_ROUNDS`: the maximum number of rounds;
//! - `CHAOS_SEED`: the seed of the first round, or `random`;
//! - `CHAOS_DEADLINE`: the seconds after which a wait fails;
//! - `CHAOS_WITHOUT`: kinds of faults to leave out: `guard-kills,inject`;
//! - `CHAOS_SHRINK`: run a failed plan with fewer steps, each variant so many times, and print the shortest
//!   plan that still fails.
#![cfg(target_os = "linux")]

mod checks;
mod faults;
mod jobs;
mod owners;
mod plan;
mod round;
mod settle;
mod verifier;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant, UNIX_EPOCH},
};

use plan::Plan;
use round::Round;
use testkit::Environment;

#[test]
#[ignore = "for `just chaos`"]
fn random_plans_leave_no_member() {
    let environments = Environment::here();
    if environments.is_empty() {
        return;
    }
    let minutes: f64 = variable("CHAOS_MINUTES").unwrap_or(1.0 / 3.0);
    let rounds = variable("CHAOS_ROUNDS").unwrap_or(u64::MAX);
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let mut seed = match env::var("CHAOS_SEED") {
        Ok(word) if word == "random" => UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64,
        _ => variable("CHAOS_SEED").unwrap_or(1),
    };
    let mut round = 0;
    while round < rounds && Instant::now() < end {
        let mut plan = Plan::new(seed, &environments);
        if is_left_out("inject") {
            plan.inject = None;
        }
        let start = Instant::now();
        eprint!("round {round}: CHAOS_SEED={seed}, {}", plan.environment);
        if let Err(error) = run(&plan) {
            eprintln!("\n{plan}\nFAILED: {error}");
            if let Some(times) = variable("CHAOS_SHRINK") {
                shrink(plan, times);
            }
            panic!("CHAOS_SEED={seed}: {}", error.lines().next().unwrap_or(""));
        }
        eprintln!(", {:.1} s", start.elapsed().as_secs_f64());
        seed = testkit::Random::new(seed).number();
        round += 1;
    }
}

/// The deadline of every wait.
pub(crate) fn deadline() -> Duration {
    variable("CHAOS_DEADLINE").map_or(testkit::DEADLINE, Duration::from_secs)
}

/// Polls until there is a value.
///
/// # Panics
/// With `what` when the deadline has passed.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "HANGS: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the environment leaves out this kind of fault.
pub(crate) fn is_left_out(kind: &str) -> bool {
    let kinds = env::var("CHAOS_WITHOUT").unwrap_or_default();
    kinds.split(',').any(|left_out| left_out == kind)
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// # Errors
/// The failed check, and the events of the round.
fn run(plan: &Plan) -> Result<(), String> {
    let mut round =
        catch_unwind(|| Round::new(plan)).map_err(|_| "the round cannot be prepared".to_owned())?;
    let verdict = catch_unwind(AssertUnwindSafe(|| round.run()));
    let verdict = verdict.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_else(|| "a panic".to_owned()))
    });
    verdict.map_err(|error| format!("{error}\n{}", round.log()))
}

/// Removes one step after the other, and keeps the rest if it fails in one of `times` runs.
fn shrink(mut plan: Plan, times: u32) {
    let fails = |plan: &Plan| (0..times).any(|_| run(plan).is_err());
    let mut index = plan.steps.len();
    while index > 0 {
        index -= 1;
        let mut shorter = plan.clone();
        shorter.steps.remove(index);
        if fails(&shorter) {
            plan = shorter;
            eprintln!("still fails with {} steps", plan.steps.len());
        }
    }
    if plan.inject.is_some() {
        let calm = Plan { inject: None, ..plan.clone() };
        if fails(&calm) {
            plan = calm;
        }
    }
    eprintln!("the shortest that fails:\n{plan}\n{:?}", run(&plan));
}
