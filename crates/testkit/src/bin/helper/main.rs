//! A scripted process for tests: `helper SCENARIO REPORT [ARGS…]`.
//!
//! The main process starts the helpers of the scenario, waits until a file named `REPORT.go` exists and
//! exits 0 without ending the others. Each helper process announces itself by one line in the file
//! REPORT: `ROLE pid=… (session, groups, parent) starter=…`, so that a test can wait for it.
//! No process outlives [`lifetime_limit::LIFETIME_SECONDS`]. The helper does not use onejob.

#[cfg(target_os = "linux")]
#[path = "../../cgroup.rs"]
#[allow(dead_code, unreachable_pub)]
mod cgroup;
#[cfg(target_os = "linux")]
#[path = "../../lifetime_limit.rs"]
#[allow(unreachable_pub)]
mod lifetime_limit;
#[cfg(windows)]
use testkit::lifetime_limit;

#[cfg(target_os = "linux")]
#[path = "../../random.rs"]
#[allow(dead_code, unreachable_pub)]
mod random;

#[cfg(target_os = "linux")]
mod chaos;
#[cfg(target_os = "linux")]
mod inject;
#[cfg(target_os = "linux")]
mod nested;
#[cfg(target_os = "linux")]
mod odd;
#[cfg(target_os = "linux")]
mod restrictions;
#[cfg(target_os = "linux")]
mod seccomp_filter;
#[cfg(target_os = "linux")]
mod supervisor;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod tools;
#[cfg(target_os = "linux")]
mod trees;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows::{SCENARIOS, sys};

use std::{io::Write, path::PathBuf, sync::OnceLock, thread, time::Duration};

use sys::Pid;

/// The data that every helper in this process and its forks has.
struct Invocation {
    report: PathBuf,
    args: Vec<String>,
}

static INVOCATION: OnceLock<Invocation> = OnceLock::new();

fn invocation() -> &'static Invocation {
    INVOCATION.get().expect("set first thing in main")
}

/// A file beside the report.
fn beside(suffix: &str) -> PathBuf {
    let mut path = invocation().report.clone().into_os_string();
    path.push(suffix);
    path.into()
}

fn arg(index: usize) -> &'static str {
    invocation().args.get(index).unwrap_or_else(|| panic!("argument {index} is missing"))
}

/// Announces the calling process, which `starter` forked. One write to a file in append mode:
/// lines of different processes never mix.
fn report(role: &str, starter: Pid) {
    let line = format!("{role} pid={} {} starter={starter}\n", sys::pid(), sys::place());
    let report = sys::open_to_append(&invocation().report);
    report.and_then(|mut report| report.write_all(line.as_bytes())).expect("a writable report");
}

#[cfg(target_os = "linux")]
/// Waits until a process has announced itself as `role`.
fn await_line(role: &str) {
    let said = |text: String| text.lines().any(|line| line.split(' ').next() == Some(role));
    while !std::fs::read_to_string(&invocation().report).is_ok_and(said) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The end of the main process.
fn sleep_until_killed() -> ! {
    report("main", sys::parent());
    while !beside(".go").exists() {
        thread::sleep(Duration::from_millis(2));
    }
    sys::exit(0)
}

fn main() {
    lifetime_limit::apply(lifetime_limit::LIFETIME_SECONDS);
    let mut args = std::env::args().skip(1);
    let (Some(scenario), Some(report)) = (args.next(), args.next()) else {
        eprintln!("usage: helper SCENARIO REPORT [ARGS…]");
        std::process::exit(2);
    };
    let known = SCENARIOS.iter().find(|(name, _)| *name == scenario);
    let Some((_, run)) = known else {
        let names: Vec<_> = SCENARIOS.iter().map(|(name, _)| *name).collect();
        eprintln!("unknown scenario {scenario:?}, one of: {}", names.join(" "));
        std::process::exit(2);
    };
    let _ = INVOCATION.set(Invocation { report: report.into(), args: args.collect() });
    run();
    sleep_until_killed()
}

#[cfg(target_os = "linux")]
const SCENARIOS: &[(&str, fn())] = &[
    ("generations", trees::generations),
    ("setsid", trees::setsid),
    ("daemon", trees::daemon),
    ("daemon-grandchild", trees::daemon_grandchild),
    ("respawn", trees::respawn),
    ("hoppers", trees::hoppers),
    ("clone-parent", trees::clone_parent),
    ("many", trees::many),
    ("below", trees::below),
    ("fork-until-error", trees::fork_until_error),
    ("bomb", trees::bomb),
    ("busy-bomb", trees::busy_bomb),
    ("child-watchers", trees::child_watchers),
    ("stubborn", odd::stubborn),
    ("stopped", odd::stopped),
    ("closed", odd::closed),
    ("renamed", odd::renamed),
    ("renamed-body", odd::renamed_body),
    ("vfork", odd::vfork),
    ("leader-gone", odd::leader_gone),
    ("subreaper", odd::subreaper),
    ("subcgroup", odd::subcgroup),
    ("nested", nested::nested),
    ("wide", nested::wide),
    ("movers", nested::movers),
    ("closed-cgroups", nested::closed_cgroups),
    ("zombies", odd::zombies),
    ("hold-stdout", odd::hold_stdout),
    ("traced", odd::traced),
    ("traceable", odd::traceable),
    ("setuid", odd::setuid),
    ("setuid-body", odd::setuid_body),
    ("sleep", tools::sleep),
    ("busy", tools::busy),
    ("hog", tools::hog),
    ("exit", tools::exit),
    ("signal-counter", tools::signal_counter),
    ("trace", tools::trace),
    ("restrictions", restrictions::restrictions),
    ("seccomp", seccomp_filter::seccomp),
    ("chaos", chaos::chaos),
    ("inject", inject::inject),
];
