//! The error of a child that failed before it executed its program.

use std::io;

use crate::{Command, Error, sys::linux::nostd::exec::Stage};

/// The error for a child that failed at this stage.
pub(super) fn failure(command: &Command, stage: u32, errno: i32) -> Error {
    let program = &command.program;
    let cause = io::Error::from_raw_os_error(errno);
    let what = |text: &str| {
        Error::os(format!("{text} for {program:?}"), io::Error::from_raw_os_error(errno))
    };
    match stage {
        stage if stage == Stage::Exec as u32 => Error::exec(format!("execute {program:?}"), cause),
        stage if stage == Stage::Join as u32 => what("join the cgroup of the job"),
        stage if stage == Stage::Descriptors as u32 => what("place the descriptors"),
        stage if stage == Stage::Limits as u32 => what("set the resource limits"),
        stage if stage == Stage::Attributes as u32 => {
            what("apply the scheduling and memory settings of the calling thread").with_hint(
                "the guard that starts the process lacks the privilege: create a new job, with a \
                 new guard",
            )
        }
        stage if stage == Stage::Credentials as u32 => what("change the user or group"),
        stage if stage == Stage::Directory as u32 => {
            let dir = command.current_dir.as_deref().unwrap_or(".".as_ref());
            Error::os(format!("change to the directory {dir:?} for {program:?}"), cause)
        }
        stage if stage == Stage::Group as u32 => what("change the process group or session"),
        stage if stage == Stage::Hook as u32 => what("run the pre_exec step"),
        _ => what("start a process"),
    }
}
