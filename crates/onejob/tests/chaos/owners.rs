//! The clients of the owners and commands of a round.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::RecvTimeoutError,
};

use testkit::{Bins, LineProcess, Sandbox};

use crate::{deadline, eventually, plan::Inject, verifier::Identity};

/// A program `owner` with several jobs.
#[derive(Debug)]
pub(crate) struct Owner {
    process: LineProcess,
    errors: PathBuf,
    pub(crate) identity: Identity,
    /// Whether the plan has ended it.
    pub(crate) is_ended: bool,
}

/// The answer to each of several requests.
pub(crate) type Answers = Vec<Result<String, String>>;

impl Owner {
    pub(crate) fn start(
        sandbox: &mut Sandbox,
        dir: &Path,
        name: &str,
        inject: Option<&Inject>,
    ) -> Owner {
        let errors = dir.join(format!("{name}.stderr"));
        let file = File::create(&errors).expect("a scratch directory");
        let (program, args) = injected(dir, name, inject, Bins::get().owner());
        let mut process = LineProcess::start(sandbox, &program, |command| {
            command.args(args).arg("--slots").stderr(file);
        });
        let hello = process.line(deadline()).expect("a greeting");
        let inner = hello.trim_start_matches("+ ").parse().expect("a pid");
        let identity = eventually("the owner", || sandbox.outer_pid(inner).and_then(Identity::of));
        Owner { process, errors, identity, is_ended: false }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        // An owner that was killed does not read any more.
        let _ = self.process.try_send(line);
    }

    /// The answers to a line; `None` if the owner has ended.
    pub(crate) fn answers(&mut self, line: &str) -> Option<Answers> {
        let text = match self.process.line(deadline()) {
            Ok(text) => text,
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("the owner {} HANGS: no answer to {line:?}", self.identity.pid)
            }
        };
        let answers = text.split(" & ").map(|answer| match answer.split_at_checked(2) {
            Some(("+ ", text)) => Ok(text.to_owned()),
            Some(("- ", text)) => Err(text.to_owned()),
            _ => panic!("{line:?} was answered with {text:?}"),
        });
        Some(answers.collect())
    }

    /// One request and its answer.
    pub(crate) fn ask(&mut self, line: &str) -> Option<Result<String, String>> {
        self.tell(line);
        self.answers(line)?.pop()
    }

    pub(crate) fn close(&mut self) {
        self.process.close();
    }

    pub(crate) fn awaits_end(&mut self) -> ExitStatus {
        eventually("the end of an owner", || self.process.try_wait())
    }

    /// Its standard error.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }
}

/// A process `onejob` with any subcommand.
#[derive(Debug)]
pub(crate) struct Onejob {
    process: Child,
    output: PathBuf,
    pub(crate) what: String,
    /// Whether the plan has killed it.
    pub(crate) is_killed: bool,
}

impl Onejob {
    pub(crate) fn start(
        sandbox: &mut Sandbox,
        dir: &Path,
        number: usize,
        words: &[String],
        inject: Option<&Inject>,
    ) -> Onejob {
        let output = dir.join(format!("onejob{number}.out"));
        let file = File::create(&output).expect("a scratch directory");
        let name = format!("onejob{number}");
        let (program, args) = injected(dir, &name, inject, Bins::get().onejob());
        let process = sandbox.start(&program, |command: &mut Command| {
            command.args(args).args(words).stdin(Stdio::null());
            command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
        });
        let what = words.join(" ");
        Onejob { process, output, what, is_killed: false }
    }

    /// The pid of the child: the program itself, or in a namespace the process that has started it.
    pub(crate) fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("a child of this process")
    }

    pub(crate) fn awaits_end(&mut self) -> ExitStatus {
        let what = format!("the end of onejob {} ({})", self.what, self.process.id());
        eventually(&what, || self.ended())
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }
}

impl Drop for Onejob {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Errors are injected as long as this file exists.
pub(crate) fn control(dir: &Path) -> PathBuf {
    dir.join("inject")
}

fn injected(
    dir: &Path,
    name: &str,
    inject: Option<&Inject>,
    program: PathBuf,
) -> (PathBuf, Vec<String>) {
    let Some(inject) = inject else { return (program, Vec::new()) };
    let seed = name.bytes().map(u64::from).fold(inject.seed, u64::wrapping_add);
    let words = [
        "inject".to_owned(),
        control(dir).display().to_string(),
        seed.to_string(),
        inject.times.to_string(),
        inject.burst.to_string(),
        inject.errors.to_owned(),
        program.display().to_string(),
    ];
    (Bins::get().helper(), words.into())
}
