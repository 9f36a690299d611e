//! Scenarios about the state a process is in. Every escapee also leaves the session, so that a
//! kill of the process group alone misses each of them.

use std::{env, fs, os::unix::process::CommandExt, process::Command, thread, time::Duration};

use crate::{
    arg, await_line, beside, cgroup, invocation, report,
    sys::{self, Pid, rest},
    trees::daemonise,
};

/// Forks the escapee, which leaves the session, announces itself and then calls a function.
fn escapee(act: impl FnOnce()) -> Pid {
    let starter = sys::pid();
    sys::fork(|| {
        sys::leave_session();
        report("escapee", starter);
        act();
        rest()
    })
}

/// Ignores all termination requests that can be ignored.
pub(crate) fn stubborn() {
    let starter = sys::pid();
    sys::fork(|| {
        sys::leave_session();
        sys::ignore(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
        report("escapee", starter);
        rest()
    });
}

pub(crate) fn stopped() {
    escapee(|| {
        // SAFETY: raise has no preconditions.
        unsafe { libc::raise(libc::SIGSTOP) };
    });
}

pub(crate) fn closed() {
    escapee(|| {
        // SAFETY: what is closed here is not used any more: this process only sleeps from now on.
        unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
    });
}

pub(crate) fn renamed() {
    let starter = sys::pid();
    sys::fork(|| {
        let mut body = Command::new("/proc/self/exe");
        body.arg0("[kworker/0:1]").arg("renamed-body").arg(&invocation().report);
        let error = body.arg(starter.to_string()).env_clear().exec();
        panic!("failed to exec myself: {error}");
    });
}

/// The part after the exec of [`renamed`].
pub(crate) fn renamed_body() {
    sys::leave_session();
    assert_eq!(env::vars_os().count(), 0, "the environment is not empty");
    // A parser that splits /proc/PID/stat at blanks reads a stopped child of init here.
    rustix::thread::set_name(c") T 1 1 (x").expect("a short name");
    report("escapee", arg(0).parse().expect("a pid"));
    rest()
}

/// A parent that is blocked in vfork, and the child that blocks it.
pub(crate) fn vfork() {
    let starter = sys::pid();
    sys::fork(|| {
        sys::leave_session();
        report("vforker", starter);
        sys::vfork(|| {
            sys::leave_session();
            report("escapee", sys::parent());
            rest()
        });
        rest()
    });
}

/// The leader thread has ended, another thread goes on.
pub(crate) fn leader_gone() {
    let starter = sys::pid();
    sys::fork(|| {
        sys::leave_session();
        thread::spawn(move || {
            report("escapee", starter);
            rest()
        });
        sys::exit_thread()
    });
}

/// A member that is a subreaper for the orphans below it.
pub(crate) fn subreaper() {
    let starter = sys::pid();
    sys::fork(|| {
        sys::leave_session();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("Linux 3.4");
        report("subreaper", starter);
        daemonise("escapee", sys::pid());
        rest()
    });
}

/// A member makes a cgroup below its own, puts its child there and freezes it.
pub(crate) fn subcgroup() {
    sys::fork(|| {
        let dir = cgroup::own().expect("cgroup v2").join("made-by-a-member");
        let child = sys::fork(|| {
            sys::leave_session();
            report("escapee", sys::parent());
            rest()
        });
        // Once frozen it cannot announce itself any more.
        await_line("escapee");
        fs::create_dir(&dir).expect("a writable cgroup");
        fs::write(dir.join("cgroup.procs"), child.to_string()).expect("a movable child");
        fs::write(dir.join("cgroup.freeze"), "1").expect("a freezable cgroup");
        rest()
    });
}

/// Children that have ended and are not waited for.
pub(crate) fn zombies() {
    escapee(|| {
        for _ in 0..20 {
            let starter = sys::pid();
            sys::fork(|| report("zombie", starter));
        }
    });
}

/// A grandchild that keeps the standard output of the main process open.
pub(crate) fn hold_stdout() {
    sys::fork(|| {
        escapee(|| {});
        rest()
    });
}

/// A child that any process of the same user may trace; the tracer is started separately.
pub(crate) fn traceable() {
    escapee(sys::allow_tracers);
}

/// A child that is held in a ptrace stop by another child.
pub(crate) fn traced() {
    let starter = sys::pid();
    let tracee = escapee(sys::allow_tracers);
    // Once traced it cannot announce itself any more.
    await_line("escapee");
    sys::fork(|| {
        sys::leave_session();
        sys::trace(tracee).expect("a traceable sibling");
        report("tracer", starter);
        rest()
    });
}

/// `setuid REPORT FILE`: FILE is a copy of this program that is setuid root.
pub(crate) fn setuid() {
    let starter = sys::pid();
    sys::fork(|| {
        let mut body = Command::new(arg(0));
        let error =
            body.arg("setuid-body").arg(&invocation().report).arg(starter.to_string()).exec();
        panic!("failed to exec {}: {error}", arg(0));
    });
    // A member that can be killed, beside the one that cannot.
    sys::fork(|| {
        report("sibling", starter);
        rest()
    });
}

/// The part after the exec of [`setuid`].
pub(crate) fn setuid_body() {
    // SAFETY: a plain system call in a process with one thread. All three: a signal is allowed
    // as long as the real or the saved one is still that of the sender.
    let root = unsafe { libc::setresuid(0, 0, 0) } == 0;
    assert!(root, "{:?} is not setuid root", env::current_exe());
    sys::leave_session();
    report("escapee", arg(0).parse().expect("a pid"));
    // The user of the test cannot kill it: it ends when a file is made.
    while !beside(".end").exists() {
        thread::sleep(Duration::from_millis(5));
    }
    sys::exit(0)
}
