//! The methods that put a child into its cgroup, and the order in which they are tried.

use super::failure::failure;
use crate::{Command, Error, Result};

/// How a child gets into its cgroup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CloneMethod {
    /// `clone3` creates it in the cgroup.
    IntoCgroup,
    /// The old `clone`; the child writes itself to `cgroup.procs` before anything else.
    ThenJoin,
}

/// The result of one method.
pub(super) enum SpawnAttempt<T> {
    Started(T),
    /// The child failed at this stage with this error, and has been reaped.
    Failed(u32, i32),
    /// A seccomp filter or the kernel refuses the method, or the kernel killed the child before its first
    /// instruction: kernels up to 6.18 do so when the cgroups of caller and child have seen different
    /// numbers of kills.
    Refused,
}

/// Starts a child with the first method that is not refused.
pub(super) fn spawn_by<T>(
    command: &Command,
    mut attempt: impl FnMut(CloneMethod) -> Result<SpawnAttempt<T>>,
) -> Result<T> {
    for method in [CloneMethod::IntoCgroup, CloneMethod::ThenJoin] {
        match attempt(method)? {
            SpawnAttempt::Started(child) => return Ok(child),
            SpawnAttempt::Failed(stage, errno) => return Err(failure(command, stage, errno)),
            SpawnAttempt::Refused => {}
        }
    }
    let killed = std::io::Error::other("the kernel killed the child before its first instruction");
    Err(Error::os(format!("start a process for {:?}", command.program), killed))
}
