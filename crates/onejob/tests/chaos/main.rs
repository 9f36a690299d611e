//! Random trees, random acts and random faults: whoever must be dead dies, whoever must live lives.
//!
//! Each round plays a plan that its seed decides. A failure prints the plan; `CHAOS_SEED=… CHAOS_ROUNDS=1`
//! plays it again (when the processes do what is up to the kernel). In the environment:
//!
//! - `CHAOS_MINUTES`: how long to go on, by default for 20 seconds;
//! - `CHAOS_ROUNDS`: how many rounds at the most;
//! - `CHAOS_SEED`: the seed of the first round, or `random`;
//! - `CHAOS_DEADLINE`: after how many seconds what must happen has not happened;
//! - `CHAOS_WITHOUT`: kinds of faults to leave out, to look behind a finding: `guard-kills,inject`;
//! - `CHAOS_SHRINK`: play a failed plan with fewer steps, each so often, and print the shortest that
//!   still fails.
#![cfg(target_os = "linux")]

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
fn whatever_happens_the_right_ones_die() {
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
        if let Err(error) = play(&plan) {
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

/// How long anything may take that must end.
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
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// # Errors
/// What was wrong, and what happened.
fn play(plan: &Plan) -> Result<(), String> {
    let mut round = catch_unwind(|| Round::new(plan)).map_err(|_| "no fixture".to_owned())?;
    let verdict = catch_unwind(AssertUnwindSafe(|| round.play()));
    let verdict = verdict.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_else(|| "a panic".to_owned()))
    });
    verdict.map_err(|error| format!("{error}\n{}", round.log()))
}

/// Leaves out one step after the other, as long as the rest fails in one of so many `times`.
fn shrink(mut plan: Plan, times: u32) {
    let fails = |plan: &Plan| (0..times).any(|_| play(plan).is_err());
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
    eprintln!("the shortest that fails:\n{plan}\n{:?}", play(&plan));
}
