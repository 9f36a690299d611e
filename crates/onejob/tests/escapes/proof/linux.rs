//! Checks in `/proc` that a member is in its special state.

use testkit::{Helper, Sandbox, proc};

pub(crate) const MECHANISMS: &[&str] = &["cgroup", "subreaper"];

#[track_caller]
pub(crate) fn left_the_session(helper: &Helper) {
    assert!(has_left_the_session(helper), "{helper:?} did not leave the session");
}

#[track_caller]
pub(crate) fn has_left_the_session(helper: &Helper) -> bool {
    helper.stat().sid != proc::stat("self").expect("this process").sid
}

#[track_caller]
pub(crate) fn leads_a_group(helper: &Helper) {
    assert_eq!(helper.stat().pgid, helper.pid, "{helper:?}");
}

/// The process that forked it is not its parent any more.
#[track_caller]
pub(crate) fn is_orphaned(helper: &Helper) {
    let ppid = helper.stat().ppid;
    assert_ne!(Some(ppid), helper.starter, "{helper:?} still has its starter as its parent");
}

#[track_caller]
pub(crate) fn holds_the_pipe_of(helper: &Helper, main: &Helper) {
    let stdout = proc::link(helper.pid, "fd/1").expect("readable");
    assert!(stdout.to_string_lossy().starts_with("pipe:"), "{}", stdout.display());
    assert_eq!(proc::link(main.pid, "fd/1"), Some(stdout), "the pipe of the main process");
}

/// The guards of the job that `holder` holds. The outer one has no parent in the sandbox, and the inner one is
/// its child. The guards of a nested job are members: they are in the cgroup of the job, or below its guards.
pub(crate) fn guards(sandbox: &Sandbox, holder: i32) -> Vec<i32> {
    let living = sandbox.live_pids();
    let group = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    // In a scope the guards have a cgroup of their own.
    let is_beside = |pid: i32| group(pid).is_some_and(|path| path.trim().ends_with("/guards"));
    let is_guard = |pid: i32| proc::stat(pid).is_some_and(|stat| stat.comm == "onejob-guard");
    let parent = |pid: i32| proc::stat(pid).map_or(0, |stat| stat.ppid);
    let outside = |pid: i32| is_guard(pid) && (group(pid) == group(holder) || is_beside(pid));
    let outer = living.iter().filter(|pid| outside(**pid) && !living.contains(&parent(**pid)));
    let outer: Vec<_> = outer.copied().collect();
    let inner = living.iter().filter(|pid| outside(**pid) && outer.contains(&parent(**pid)));
    inner.chain(&outer).copied().collect()
}
