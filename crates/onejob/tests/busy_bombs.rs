//! Fork bombs without sleeping processes: after each turn of the process that kills them, the scheduler gives
//! every member a turn.
//!
//! `ONEJOB_BOMB_SIZE` makes the large ones larger.
#![cfg(target_os = "linux")]

use std::{
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use testkit::{Bins, Bystanders, Environment, Owner, Report, Sandbox, eventually, run_first};

/// Beside a fork bomb no other test makes progress.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const RUNS: usize = 5;
const SIZE: usize = 500;

/// In milliseconds.
const GRACE: u64 = 1000;

/// How a bomb is ended.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// The owner kills its job.
    Kill,
    /// The owner sends SIGTERM and waits for the grace period. A process that was just being started may have
    /// missed the signal, and fills the limit again.
    Stop,
    /// The owner is killed, and a guard ends the job.
    OwnerKilled,
}

/// A kill by the owner takes at most two seconds.
#[test]
fn an_owner_kills_a_busy_bomb_in_a_subreaper_job() {
    bombs(Environment::SubreaperRoot, End::Kill, RUNS, SIZE, Duration::from_secs(2));
}

/// The kernel kills all members at once.
#[test]
fn an_owner_kills_a_busy_bomb_in_a_cgroup_job() {
    bombs(Environment::CgroupRoot, End::Kill, RUNS, SIZE, Duration::from_millis(1500));
}

/// A stop ends although new processes are started as fast as others are signalled.
#[test]
fn an_owner_stops_a_busy_bomb_in_a_subreaper_job() {
    bombs(Environment::SubreaperRoot, End::Stop, RUNS, SIZE, Duration::from_secs(2));
}

/// The same in a cgroup, where the kernel can freeze the members meanwhile.
#[test]
fn an_owner_stops_a_busy_bomb_in_a_cgroup_job() {
    bombs(Environment::CgroupRoot, End::Stop, RUNS, SIZE, Duration::from_millis(1500));
}

/// The guards get CPU time whatever the members do.
#[test]
fn guards_end_a_busy_bomb_in_a_subreaper_job() {
    bombs(Environment::SubreaperRoot, End::OwnerKilled, RUNS, SIZE, Duration::from_secs(2));
}

/// The same in a cgroup.
#[test]
fn guards_end_a_busy_bomb_in_a_cgroup_job() {
    bombs(Environment::CgroupRoot, End::OwnerKilled, RUNS, SIZE, Duration::from_millis(1500));
}

/// Without privileges onejob can only request short time slices: a kill takes longer, and it ends.
#[test]
fn an_ordinary_user_ends_a_busy_bomb() {
    for end in [End::Kill, End::Stop, End::OwnerKilled] {
        bombs(Environment::SubreaperUser, end, 1, SIZE, Duration::from_secs(60));
    }
}

/// A bomb of 2,000 takes longer, but seconds at most.
#[test]
fn a_large_busy_bomb_ends_in_seconds() {
    let size = std::env::var("ONEJOB_BOMB_SIZE").map_or(2000, |size| size.parse().expect("a size"));
    for end in [End::Kill, End::OwnerKilled] {
        bombs(Environment::SubreaperRoot, end, 1, size, Duration::from_secs(6));
        bombs(Environment::CgroupRoot, end, 1, size, Duration::from_millis(1500));
    }
}

/// Checks the median against four times the goal: the slowest machines need that long.
fn bombs(environment: Environment, end: End, runs: usize, size: usize, goal: Duration) {
    let _alone = one_at_a_time();
    let here = Environment::here();
    let Some(environment) = here.into_iter().find(|here| {
        // An ordinary user has only environments of an ordinary user.
        here.mechanism() == environment.mechanism()
            && (*here == environment || !rustix::process::geteuid().is_root())
    }) else {
        eprintln!("SKIPPED: {environment} is not available to this user here");
        return;
    };
    let goal = if environment.is_ordinary() { Duration::from_secs(60) } else { goal };
    let mut times: Vec<_> = (0..runs).map(|_| end_bomb(environment, end, size)).collect();
    times.sort_unstable();
    let median = times[runs / 2];
    eprintln!("{environment}: {runs} of {size}, goal {goal:?}, ended in {times:?}");
    assert!(median < 4 * goal, "{environment}: {size} processes ended in {times:?}, not {goal:?}");
}

/// How long it took to end the job, from the first turn of the process that ends it.
fn end_bomb(environment: Environment, end: End, size: usize) -> Duration {
    let (mut sandbox, report) = (Sandbox::new(environment), Report::new());
    let mut owner = Owner::start(&mut sandbox, environment);
    let mut bystanders = Bystanders::beside(&sandbox, owner.group());
    owner.new_job();
    let beside = sandbox.live_pids().len();
    run_first();
    let helper = Bins::get().helper();
    let user = unique_user();
    owner.ok(&format!("spawn {} busy-bomb {} {size} {user}", helper.display(), report.arg()));
    // The bomb reports this itself: without privileges this process gets as little CPU time as each of its
    // members, too little to read their state.
    let said = || fs::read_to_string(report.arg()).is_ok_and(|text| text.contains("full "));
    eventually("a grown bomb", || said().then_some(()));
    let took = match end {
        End::Kill => took(&owner.ok("kill")),
        End::Stop => took_after_grace(&owner.ok(&format!("stop {GRACE}"))),
        End::OwnerKilled => {
            owner.kill();
            eventually("the owner's death", || (!owner.is_alive()).then_some(()));
            let start = Instant::now();
            sandbox.wait_until_empty(|_| false);
            start.elapsed()
        }
    };
    if end != End::OwnerKilled {
        assert_eq!(sandbox.live_pids().len(), beside, "SURVIVED: members of the job");
        assert_eq!(owner.list(), [], "the job is empty");
    }
    owner.end();
    sandbox.wait_until_empty(|_| false);
    bystanders.assert_alive();
    took
}

/// The process limit is one of the user, so each bomb has its own user.
fn unique_user() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    1_000_000 + 64 * (std::process::id() % 30_000) + COUNT.fetch_add(1, Ordering::Relaxed)
}

/// As [`took`], without the grace period if all of it was used.
fn took_after_grace(report: &str) -> Duration {
    let grace = Duration::from_millis(GRACE);
    took(report).checked_sub(grace).unwrap_or_else(|| took(report))
}

/// The duration in the report of a stop. It does not include the time until the owner is scheduled and reads
/// the request.
fn took(report: &str) -> Duration {
    let (_, text) = report.split_once("took: ").expect("a report");
    let text = text.split([',', ' ']).next().expect("a duration");
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text.trim_end_matches(unit).parse().expect("a number");
    Duration::from_secs_f64(match unit {
        "s" => number,
        "ms" => number / 1e3,
        "µs" => number / 1e6,
        _ => number / 1e9,
    })
}
