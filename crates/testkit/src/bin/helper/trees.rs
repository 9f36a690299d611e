//! Scenarios about parents and children.

use std::{
    fs,
    os::unix::{fs::FileExt, process::CommandExt},
    process::Command,
    thread,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    arg, beside, invocation, report,
    sys::{self, Pid, rest},
};

/// Main, child, grandchild and great-grandchild, each in its own process group as under a shell.
pub(crate) fn generations() {
    generation(2);
}

fn generation(number: usize) {
    let starter = sys::pid();
    sys::fork(|| {
        rustix::process::setpgid(None, None).expect("a new group is always allowed");
        if number < 4 {
            generation(number + 1);
        }
        report(&format!("generation{number}"), starter);
        rest()
    });
}

/// A grandchild in its own session.
pub(crate) fn setsid() {
    sys::fork(|| {
        let starter = sys::pid();
        sys::fork(|| {
            sys::leave_session();
            report("escapee", starter);
            rest()
        });
        rest()
    });
}

/// `below REPORT PROGRAM ARGS…`: runs a program as its child, and stays when that has ended.
pub(crate) fn below() {
    sys::fork(|| {
        let mut program = Command::new(arg(0));
        let error = program.args(&invocation().args[1..]).exec();
        panic!("failed to exec {}: {error}", arg(0));
    });
}

/// The usual daemon: fork, setsid, fork, and both ancestors end.
pub(crate) fn daemon() {
    let starter = sys::pid();
    daemonise("escapee", starter);
}

/// The same, started by a child that stays.
pub(crate) fn daemon_grandchild() {
    sys::fork(|| {
        sys::fork(|| {
            daemonise("escapee", sys::pid());
            rest()
        });
        rest()
    });
}

/// Returns in the caller; the daemon announces itself once its parent is gone.
pub(crate) fn daemonise(role: &str, starter: Pid) {
    let middle = sys::fork(|| {
        sys::leave_session();
        let middle = sys::pid();
        sys::fork(|| {
            while sys::parent() == middle {
                thread::sleep(Duration::from_millis(1));
            }
            report(role, starter);
            rest()
        });
    });
    sys::wait(middle);
}

const LINKS: usize = 40;

/// A process that gets a termination request starts the next one first. Beside that chain, a keeper
/// ignores such requests and replaces its child whenever it was killed.
pub(crate) fn respawn() {
    let starter = sys::pid();
    sys::fork(|| {
        sys::leave_session();
        sys::block(libc::SIGTERM);
        link(1, starter)
    });
    sys::fork(|| keep(starter));
}

fn link(number: usize, starter: Pid) -> ! {
    report(&format!("link{number}"), starter);
    sys::take(libc::SIGTERM);
    let starter = sys::pid();
    if number < LINKS {
        sys::fork(|| link(number + 1, starter));
    }
    sys::exit(0)
}

fn keep(starter: Pid) -> ! {
    sys::leave_session();
    sys::ignore(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
    report("keeper", starter);
    let keeper = sys::pid();
    for number in 1..=LINKS {
        let child = sys::fork(|| {
            report(&format!("kept{number}"), keeper);
            rest()
        });
        sys::wait(child);
    }
    rest()
}

/// One every 2 ms, for one to two minutes if it is not killed.
const HOPS: u64 = 30_000;

/// Two chains, each link of which forks the next and exits. The file `REPORT.hops` shows the
/// number of the latest hop of the first.
pub(crate) fn hoppers() {
    let starter = sys::pid();
    for chain in 0..2 {
        sys::fork(|| {
            sys::leave_session();
            report(&format!("hopper{chain}"), starter);
            let counter = fs::File::create(beside(".hops")).expect("a writable counter");
            hop(&counter, chain)
        });
    }
}

fn hop(counter: &fs::File, chain: usize) -> ! {
    for hop in 0..HOPS {
        thread::sleep(Duration::from_millis(2));
        if chain == 0 {
            let _ = counter.write_at(format!("{hop:12}").as_bytes(), 0);
        }
        // SAFETY: this process has a single thread. The copy goes on in this loop, and the
        // number of hops bounds its life.
        match unsafe { libc::fork() } {
            0 => {}
            _ => sys::exit(0),
        }
    }
    sys::exit(0)
}

/// A sibling of the main process, started by it.
pub(crate) fn clone_parent() {
    let starter = sys::pid();
    sys::fork_sibling(|| {
        sys::leave_session();
        report("escapee", starter);
        rest()
    });
}

/// `many REPORT N`: the main process and N - 1 more, ten children each; one in three leaves the
/// session.
pub(crate) fn many() {
    branches(0, arg(0).parse().expect("a number of processes"));
}

fn branches(node: usize, total: usize) {
    let starter = sys::pid();
    for child in (10 * node + 1..=10 * node + 10).take_while(|child| *child < total) {
        sys::fork(|| {
            if child % 3 == 0 {
                sys::leave_session();
            }
            branches(child, total);
            report("many", starter);
            rest()
        });
    }
}

/// Ten parents of twenty children each, which ignore termination requests: a parent that sees the end
/// of a child reports it.
pub(crate) fn child_watchers() {
    let starter = sys::pid();
    for _ in 0..10 {
        sys::fork(|| {
            sys::leave_session();
            sys::ignore(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
            for _ in 0..20 {
                sys::fork(|| rest());
            }
            report("parent", starter);
            sys::wait(-1);
            report("saw-child-die", starter);
            rest()
        });
    }
}

/// Forks until a fork fails, and reports the error; all children stay.
pub(crate) fn fork_until_error() {
    let starter = sys::pid();
    loop {
        if let Err(error) = sys::try_fork(|| rest()) {
            return report(&format!("refused-{}", error.raw_os_error().unwrap_or(0)), starter);
        }
    }
}

/// `bomb REPORT N [UID]`: forks without end, held to N live processes by `RLIMIT_NPROC`. Root is
/// exempt from that limit, hence becomes UID. At the limit it rests between two attempts.
pub(crate) fn bomb() {
    limited_to_own_processes(|| fork_without_end(Some(Duration::from_millis(5)), false));
}

/// `busy-bomb REPORT N [UID]`: the same, and at the limit it goes on trying without a rest. The first of its
/// processes says when that is reached.
pub(crate) fn busy_bomb() {
    limited_to_own_processes(|| fork_without_end(None, true));
}

/// Starts `child` as a separate user with the maximum number of processes from the arguments.
fn limited_to_own_processes(child: impl FnOnce()) {
    if rustix::process::geteuid().is_root() {
        let uid: u32 = arg(1).parse().expect("a uid");
        // SAFETY: plain system calls; there is one thread.
        let dropped = unsafe { libc::setgid(uid) == 0 && libc::setuid(uid) == 0 };
        assert!(dropped, "failed to become {uid}");
    }
    let most = Some(arg(0).parse().expect("a number of processes"));
    setrlimit(Resource::Nproc, Rlimit { current: most, maximum: most }).expect("a lower limit");
    let starter = sys::pid();
    sys::fork(|| {
        report("bomb", starter);
        child();
    });
}

fn fork_without_end(rest: Option<Duration>, reports_full: bool) -> ! {
    let mut reports_full = reports_full;
    loop {
        match (sys::try_fork(|| fork_without_end(rest, false)), rest) {
            // At the limit: wait for a gap, which is there as soon as a member is killed.
            (Err(_), Some(rest)) => thread::sleep(rest),
            (Err(_), None) if reports_full => {
                reports_full = false;
                report("full", sys::parent());
            }
            (Err(_), None) => {}
            (Ok(_), _) => {
                // SAFETY: a null status is allowed. Dead children must not fill the limit.
                while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
            }
        }
    }
}
