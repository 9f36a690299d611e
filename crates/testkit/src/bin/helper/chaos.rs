//! A random tree, the same plan for the same seed.
//!
//! `chaos REPORT TAG SEED BUDGET ROOT`: BUDGET is the number of processes besides the main one (some of
//! them start a few short-lived ones), ROOT is `stays` or `ends`. Every process of the tree has TAG in
//! its command line, those of nested jobs too.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    arg, cgroup, invocation,
    random::Random,
    sys::{self, rest},
};

/// How a process makes one of its children.
#[derive(Clone, Copy)]
enum Way {
    Fork,
    Daemon,
    Vfork,
    Sibling,
    Nested,
    Hops,
    Brief,
    Respawned,
}

const WAYS: &[Way] = &[
    Way::Fork,
    Way::Fork,
    Way::Fork,
    Way::Daemon,
    Way::Daemon,
    Way::Vfork,
    Way::Sibling,
    Way::Nested,
    Way::Hops,
    Way::Brief,
    Way::Respawned,
];

/// Names of cgroups that members make. Those with a dot in front are as good as any.
const NAMES: &[&str] = &["chaos-a", "chaos b", "chaos-job-1"];

pub(crate) fn chaos() {
    let seed = arg(1).parse().expect("a seed");
    let budget = arg(2).parse().expect("a number of processes");
    let mut random = Random::new(seed);
    grow(&mut random, budget);
    if arg(3) == "ends" {
        nap(&mut random, 300);
        sys::exit(random.below(3) as i32);
    }
    rest()
}

/// The children of this process, and their descendants.
fn grow(random: &mut Random, mut budget: u64) {
    while budget > 0 {
        let way = random.pick(WAYS);
        let share = random.below(budget);
        budget -= share + 1;
        let mut own = Random::new(random.number());
        start(way, random, &mut own, share);
        if random.one_in(3) {
            nap(random, 20);
        }
    }
}

fn start(way: Way, random: &mut Random, own: &mut Random, share: u64) {
    match way {
        Way::Fork => drop(sys::try_fork(|| live(own, share))),
        Way::Daemon => {
            let middle = sys::try_fork(|| {
                sys::leave_session();
                let _ = sys::try_fork(|| live(own, share));
            });
            middle.into_iter().for_each(sys::wait);
        }
        // The caller is blocked until the child has executed a program, as with posix_spawn.
        Way::Vfork => {
            let seed = own.number();
            let mut command = Command::new("/proc/self/exe");
            command.args(["chaos", "/dev/null", arg(0), &seed.to_string(), &share.to_string()]);
            let _ = command.arg(if own.one_in(3) { "ends" } else { "stays" }).spawn();
        }
        Way::Sibling => sys::fork_sibling(|| live(own, share)),
        Way::Nested => nested(own, share.min(3)),
        Way::Hops => {
            let hops = 1 + random.below(40);
            let _ = sys::try_fork(|| hop(hops));
        }
        Way::Brief => {
            let _ = sys::try_fork(|| nap(own, 100));
        }
        Way::Respawned => {
            let _ = sys::try_fork(|| {
                for _ in 0..own.below(20) {
                    let child = sys::try_fork(|| nap(own, 30));
                    child.into_iter().for_each(sys::wait);
                }
                rest()
            });
        }
    }
}

/// A process of the tree that is not the main one.
fn live(random: &mut Random, budget: u64) {
    if random.one_in(4) {
        let _ = rustix::process::setsid();
    } else if random.one_in(6) {
        let _ = rustix::process::setpgid(None, None);
    }
    if random.one_in(5) {
        sys::ignore(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
    }
    if random.one_in(6) {
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    }
    if random.one_in(4) {
        move_to_a_new_cgroup(random);
    }
    grow(random, budget);
    match random.below(16) {
        0..=3 => nap(random, 200),
        4 => {
            // SAFETY: raise has no preconditions.
            unsafe { libc::raise(libc::SIGSTOP) };
            rest()
        }
        5 => spin(random),
        // The leader's thread ends, another one goes on.
        6 => {
            thread::spawn(|| rest());
            sys::exit_thread()
        }
        _ => rest(),
    }
}

/// Operations that are refused on this host are left out.
fn move_to_a_new_cgroup(random: &mut Random) {
    let Some(mut dir) = cgroup::own() else { return };
    let depth = if random.one_in(12) { 70 } else { 1 + random.below(4) };
    for _ in 0..depth {
        dir.push(random.pick(NAMES));
        // Another member may have made one of this name: as well.
        if fs::create_dir(&dir).is_err() && !dir.exists() {
            return;
        }
    }
    let moved = fs::write(dir.join("cgroup.procs"), "0").is_ok();
    if moved && random.one_in(4) {
        // The others in there are frozen too, and this is the last that this process does.
        let _ = fs::write(dir.join("cgroup.freeze"), "1");
    }
    if random.one_in(3) {
        let _ = fs::remove_dir(dir.with_file_name(NAMES[0]));
    }
}

/// A job below that of this process.
fn nested(random: &mut Random, budget: u64) {
    let program = env::current_exe().unwrap_or_default();
    let onejob = program.with_file_name("onejob");
    if !onejob.exists() {
        return;
    }
    let (seed, brief) = (random.number().to_string(), random.one_in(2));
    let mechanism = random.pick(&["", "--mechanism=cgroup", "--mechanism=subreaper"]);
    let _ = sys::try_fork(|| {
        run_nested(&onejob, &program, mechanism, &[&seed, &budget.to_string(), root(brief)]);
    });
}

fn run_nested(onejob: &Path, program: &Path, mechanism: &str, tree: &[&str]) {
    let mut command = Command::new(onejob);
    command.arg("run").args(Some(mechanism).filter(|word| !word.is_empty()));
    command.arg("--").arg(program).args(["chaos", "/dev/null", arg(0)]).args(tree);
    let error = command.exec();
    // For example without memory or descriptors.
    eprintln!("{}: failed to exec {}: {error}", invocation().report.display(), onejob.display());
}

fn root(brief: bool) -> &'static str {
    if brief { "ends" } else { "stays" }
}

fn hop(hops: u64) {
    for _ in 0..hops {
        thread::sleep(Duration::from_millis(2));
        // SAFETY: this process has a single thread. The copy goes on in this loop, and the number
        // of hops bounds its life.
        if unsafe { libc::fork() } != 0 {
            return;
        }
    }
}

fn spin(random: &mut Random) {
    let end = Instant::now() + Duration::from_millis(random.below(200));
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

fn nap(random: &mut Random, longest: u64) {
    thread::sleep(Duration::from_millis(random.below(longest)));
}
