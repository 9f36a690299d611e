//! Checks from outside whether a process is in a job.

use std::fs;

use testkit::{Sandbox, proc};

/// Checks its cgroup, or that a guard is among its ancestors.
#[track_caller]
pub(crate) fn is_inside(sandbox: &Sandbox, mechanism: &str, pid: i32) {
    if mechanism == "cgroup" {
        let its = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("alive");
        let own = sandbox.cgroup().and_then(|dir| dir.file_name());
        // In a sandbox without a cgroup the job is in a scope.
        let own = own.map_or("scope", |own| own.to_str().expect("UTF-8"));
        let job = format!("{own}/onejob-");
        assert!(its.contains(&job), "{its} is not below {job}");
        return;
    }
    let parent = |pid: &i32| proc::stat(pid).map(|stat| stat.ppid).filter(|pid| *pid > 0);
    let mut above = std::iter::successors(parent(&pid), parent);
    let is_guard = |pid: i32| proc::stat(pid).is_some_and(|stat| stat.comm == "onejob-guard");
    assert!(above.any(is_guard), "no guard above {pid}");
}
