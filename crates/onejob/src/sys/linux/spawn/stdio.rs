//! The standard streams of a command: the ends for the child, and the parent's ends of its pipes.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    process::{ChildStderr, ChildStdin, ChildStdout},
};

use rustix::{
    fs::{Mode, OFlags},
    pipe::{PipeFlags, pipe_with},
};

use crate::{Command, Error, Result, command::StdioKind, sys::linux::nostd::exec::Mapping};

pub(super) struct StdioPipes {
    /// For each stream the child's end, or `None` to inherit the stream.
    child: [Option<OwnedFd>; 3],
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl StdioPipes {
    pub(super) fn new(command: &Command) -> Result<StdioPipes> {
        let open = |stream: usize| {
            open(&command.stdio[stream].0, stream == 0).map_err(|e| {
                Error::os(format!("connect the standard streams of {:?}", command.program), e)
            })
        };
        let [(stdin, our_in), (stdout, our_out), (stderr, our_err)] =
            [open(0)?, open(1)?, open(2)?];
        Ok(StdioPipes {
            child: [stdin, stdout, stderr],
            stdin: our_in.map(ChildStdin::from),
            stdout: our_out.map(ChildStdout::from),
            stderr: our_err.map(ChildStderr::from),
        })
    }

    pub(super) fn mappings(&self) -> Vec<Mapping> {
        let streams = self.child.iter().enumerate();
        let changed = streams.filter_map(|(to, end)| end.as_ref().map(|end| (end.as_raw_fd(), to)));
        changed.map(|(from, to)| Mapping { from, to: to as i32 }).collect()
    }
}

/// The child's end and the parent's.
fn open(stdio: &StdioKind, is_input: bool) -> io::Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    match stdio {
        StdioKind::Inherit => Ok((None, None)),
        StdioKind::Null => {
            let access = if is_input { OFlags::RDONLY } else { OFlags::WRONLY };
            let null = rustix::fs::open("/dev/null", access | OFlags::CLOEXEC, Mode::empty())?;
            Ok((Some(null), None))
        }
        StdioKind::Piped => {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            let (child, parent) = if is_input { (reader, writer) } else { (writer, reader) };
            Ok((Some(child), Some(parent)))
        }
        StdioKind::Fd(fd) => Ok((Some(fd.as_fd().try_clone_to_owned()?), None)),
    }
}
