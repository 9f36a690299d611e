//! The owner's death takes the whole tree with it.
//!
//! Whenever the owner is killed, and whichever guard dies before it, nothing is left of the job:
//! no member, no guard, no cgroup, no file. The sandbox says so, never the library.
#![cfg(target_os = "linux")]

mod copies;
mod fallback;
mod fault_points;
mod fixture;
mod guards;
mod kill_points;
mod stopped;
mod syscalls;
mod zombies;

#[path = "../common/driven.rs"]
mod driven;

use fixture::{Fixture, every_environment};
use testkit::{Owner, eventually, proc};

#[test]
fn a_killed_owner_takes_its_whole_tree_along() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        let tree = fixture.tree_of(&mut owner);
        owner.kill();
        fixture.is_deserted();
        assert!(tree.iter().all(|pid| !proc::is_alive(*pid)));
    });
}

/// An owner killed while it was stopped takes its tree along.
#[test]
fn owner_killed_while_stopped() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        fixture.tree_of(&mut owner);
        fixture::signal(owner.pid, rustix::process::Signal::STOP);
        eventually("a stopped owner", || stopped(owner.pid));
        owner.kill();
        fixture.is_deserted();
    });
}

#[test]
fn an_owner_whose_group_a_member_has_stopped() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.owner();
        fixture.tree_of(&mut owner);
        // Everybody in the group of the owner, the inner guard included, which the other one continues.
        let script = fixture.report.beside(".stop");
        std::fs::write(&script, "kill -STOP 0").expect("a writable scratch directory");
        owner.send(&format!("spawn /bin/sh {}", script.display()));
        eventually("a stopped owner", || stopped(owner.pid));
        owner.kill();
        fixture.is_deserted();
    });
}

pub(crate) fn stopped(pid: i32) -> Option<()> {
    proc::stat(pid).filter(|stat| stat.state == 'T').map(drop)
}

#[test]
fn what_was_released_survives_the_owner() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner: Owner = fixture.owner();
        let tree = fixture.tree_of(&mut owner);
        owner.ok("release");
        owner.kill();
        eventually("the end of the owner", || (!owner.is_alive()).then_some(()));
        fixture.has_no_guards();
        assert!(tree.iter().all(|pid| proc::is_alive(*pid)), "a released member died");
        fixture.end_by_hand(&tree);
    });
}
