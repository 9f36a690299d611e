//! Scenarios with cgroups that members make below their own.

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    thread,
};

use crate::{
    arg, await_line, cgroup, report,
    sys::{self, rest},
};

/// Makes `depth` nested cgroups and moves this process to the deepest.
fn descend(depth: usize, name: &str) {
    env::set_current_dir(cgroup::own().expect("cgroup v2")).expect("a cgroup of this process");
    // In short steps, because the whole path can exceed the maximum length of a path.
    for _ in 0..depth {
        fs::create_dir(name).expect("a writable cgroup");
        env::set_current_dir(name).expect("a fresh cgroup");
    }
    fs::write("cgroup.procs", "0").expect("a cgroup that takes us");
}

/// Ends the leader thread of the calling process; another thread announces the escapee and stays.
fn outlive_the_leader(starter: sys::Pid) -> ! {
    thread::spawn(move || {
        report("escapee", starter);
        rest()
    });
    sys::exit_thread()
}

/// `nested REPORT DEPTH NAME`: a process with an ended leader thread, DEPTH cgroups below.
pub(crate) fn nested() {
    let starter = sys::pid();
    sys::fork(|| {
        sys::leave_session();
        descend(arg(0).parse().expect("a depth"), arg(1));
        outlive_the_leader(starter)
    });
}

/// `wide REPORT COUNT`: that many cgroups beside each other, each with one below it, every other one with
/// a dot in front, and a process with an ended leader thread in the last.
pub(crate) fn wide() {
    let starter = sys::pid();
    sys::fork(|| {
        sys::leave_session();
        let own = cgroup::own().expect("cgroup v2");
        let count: usize = arg(0).parse().expect("a count");
        for number in 0..count {
            let name = if number % 2 == 0 { format!("{number}") } else { format!(".{number}") };
            fs::create_dir_all(own.join(&name).join(".below")).expect("a writable cgroup");
            if number + 1 == count {
                fs::write(own.join(name).join(".below/cgroup.procs"), "0").expect("it takes us");
            }
        }
        outlive_the_leader(starter)
    });
}

/// Members that make, leave, remove and try to rename cgroups until they are killed.
pub(crate) fn movers() {
    let starter = sys::pid();
    for mover in 0..3 {
        sys::fork(|| {
            sys::leave_session();
            report("escapee", starter);
            let own = cgroup::own().expect("cgroup v2");
            for number in 0_usize.. {
                let dir = own.join(format!(".{mover}-{}", number % 20));
                let below = dir.join("below").join(".again");
                let _ = fs::create_dir_all(&below);
                let _ = fs::rename(&dir, own.join("renamed"));
                let _ = fs::write(below.join("cgroup.procs"), "0");
                let before = own.join(format!(".{mover}-{}", (number + 19) % 20));
                for left in [before.join("below/.again"), before.join("below"), before] {
                    let _ = fs::remove_dir(left);
                }
            }
        });
    }
}

/// Takes the permissions away from its own cgroup, its files, and one below where it stays.
pub(crate) fn closed_cgroups() {
    let starter = sys::pid();
    sys::fork(|| {
        sys::leave_session();
        let own = cgroup::own().expect("cgroup v2");
        let nested = own.join("closed").join("below");
        fs::create_dir_all(&nested).expect("a writable cgroup");
        fs::write(nested.join("cgroup.procs"), "0").expect("it takes us");
        for dir in [&nested, &own.join("closed"), &own] {
            for file in ["cgroup.kill", "cgroup.events", "cgroup.procs", "cgroup.freeze", ""] {
                let none = Permissions::from_mode(0o0);
                fs::set_permissions(dir.join(file), none).expect("a file of this test");
            }
        }
        outlive_the_leader(starter)
    });
    await_line("escapee");
}
