//! The options that tie the process tree to something else.

use clap::Args;

use super::{
    LIFETIME,
    values::{ValueError, descriptor},
};
use crate::{
    failure::Failure,
    os::{Lifeline, LifelineProcess},
    supervise::watch_process,
};

#[derive(Args, Debug, Default)]
pub(crate) struct LifelineOptions {
    /// Stop the whole tree when the other end of descriptor FD is closed, and exit with 129
    ///
    /// FD is a pipe, a socket or a terminal. onejob does not read from it, so CMD can: with 0, over
    /// ssh or kubectl exec, the tree does not outlive the connection. End of file on a pipe counts as
    /// closed, so use 1 with ssh -n. The word parent is the same as --with parent.
    #[arg(long, value_name = "FD", value_parser = lifeline, allow_negative_numbers = true,
          help_heading = LIFETIME)]
    lifeline: Option<LifelineOption>,

    /// Stop the whole tree when a process exits (the word parent, or a pid), and exit with 129
    ///
    /// The parent is the process that started onejob: whatever ends it, SIGKILL included, the tree does
    /// not outlive it.
    #[arg(long, value_name = "PROCESS", value_parser = process, allow_negative_numbers = true,
          help_heading = LIFETIME)]
    with: Option<LifelineProcess>,
}

#[derive(Debug, Clone, Copy)]
enum LifelineOption {
    Descriptor(i32),
    Parent,
}

impl LifelineOptions {
    /// To be called before this process opens any file: it could get the number of the descriptor.
    ///
    /// # Errors
    /// If something cannot be a lifeline, or is lost already.
    pub(crate) fn take(&self) -> Result<Vec<Lifeline>, Failure> {
        let lifeline = self.lifeline.map(|option| match option {
            LifelineOption::Descriptor(number) => Lifeline::take(number).map_err(Failure::new),
            LifelineOption::Parent => watch_process(LifelineProcess::Parent),
        });
        lifeline.into_iter().chain(self.with.map(watch_process)).collect()
    }
}

fn lifeline(text: &str) -> Result<LifelineOption, ValueError> {
    match text {
        "parent" => Ok(LifelineOption::Parent),
        _ => descriptor(text).map(LifelineOption::Descriptor),
    }
}

/// The process of `--with`.
pub(crate) fn process(text: &str) -> Result<LifelineProcess, ValueError> {
    match text {
        "parent" => Ok(LifelineProcess::Parent),
        _ => match text.parse() {
            Ok(pid) if pid > 0 && i32::try_from(pid).is_ok() && !text.starts_with('+') => {
                Ok(LifelineProcess::Pid(pid))
            }
            _ => Err(ValueError::expected(
                "this is not a process",
                "the word parent, or a pid as ps shows it",
            )),
        },
    }
}
