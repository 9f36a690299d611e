//! Children that change their user.

use std::os::unix::process::CommandExt;

use onejob::Command;

use crate::{
    common::{alone, await_guards, for_each_mechanism, guards, job},
    output,
};

#[test]
fn a_child_changes_its_user_only_itself() {
    if !rustix::process::geteuid().is_root() {
        return testkit::skip("only root can change users");
    }
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let text = |command: &mut Command| output(&job, command);
        let id = ["-c", "id -u; id -g; id -G"];
        assert_eq!(
            text(Command::new("sh").args(id).uid(54321).gid(54322)),
            "54321\n54322\n54322\n"
        );
        let with_groups =
            text(Command::new("sh").args(id).uid(54321).gid(54322).groups(&[7, 8, 9]));
        assert_eq!(with_groups, "54321\n54322\n54322 7 8 9\n");
        assert!(rustix::process::geteuid().is_root(), "the owner's user has changed");
    });
}

/// A child that changes its user does not make the guards undumpable: the kernel does that to all processes that
/// share the memory of a process that changes its user.
#[test]
fn guards_stay_readable_after_a_setuid_child() {
    const NAME: &str = "users::guards_stay_readable_after_a_setuid_child";
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can change its user");
        return;
    }
    // With this capability the test could read undumpable processes too.
    const CAP_SYS_PTRACE: i32 = 19;
    let drop_it = || {
        // SAFETY: takes numbers.
        match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_PTRACE) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: one system call.
    if !alone(NAME, |test| _ = unsafe { test.pre_exec(drop_it) }) {
        return;
    }
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        // The guards are found by reading their descriptors, which needs dumpable processes.
        let open = await_guards();
        let mut command = Command::new("true");
        let mut child = job.spawn(command.uid(54321).gid(54322).groups(&[7])).expect("started");
        assert!(child.wait().expect("a status").success());
        // A guard of the mechanism before may be among them, and exit meanwhile. A guard that cannot be read
        // stays so.
        testkit::eventually(&format!("{mechanism}: readable guards"), || {
            let now = guards();
            let has_exited = |guard: &i32| {
                testkit::proc::stat(*guard).is_none_or(|stat| matches!(stat.state, 'Z' | 'X'))
            };
            (now.len() >= 2 && open.iter().all(|guard| now.contains(guard) || has_exited(guard)))
                .then_some(())
        });
    });
}
