//! A program in a test that is driven by lines: a request per line in, an answer per line out.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use crate::{DEADLINE, Sandbox, eventually::within};

/// The answer to a request: the text after `ok` or `err`.
pub type Reply = Result<String, String>;

/// The program ends at the end of its standard input. It is killed when this is dropped.
#[derive(Debug)]
pub struct LineProcess {
    process: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl LineProcess {
    /// Starts `program` in the sandbox. `change` can add arguments and variables.
    #[track_caller]
    pub fn start(
        sandbox: &mut Sandbox,
        program: &Path,
        change: impl FnOnce(&mut Command),
    ) -> LineProcess {
        LineProcess::of(sandbox.start(program, |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            change(command);
        }))
    }

    /// A child with pipes as its standard input and output.
    ///
    /// # Panics
    /// If the child has no such pipes.
    pub fn of(mut process: Child) -> LineProcess {
        let requests = process.stdin.take();
        let stdout = process.stdout.take().expect("piped");
        let (send, answers) = mpsc::channel();
        // A thread reads, so that a test can wait for a line with a deadline.
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.map_while(|line| send.send(line).ok()).for_each(drop);
        });
        LineProcess { process, requests, answers }
    }

    /// The pid of the child that was started: in a namespace sandbox that of `sandbox-init`.
    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// Sends a request without waiting for the answer.
    ///
    /// # Errors
    /// If the program has closed its standard input.
    ///
    /// # Panics
    /// If the input was closed by [`close`](LineProcess::close).
    pub fn try_send(&mut self, request: &str) -> io::Result<()> {
        writeln!(self.requests.as_mut().expect("not closed"), "{request}")
    }

    /// Sends a request without waiting for the answer.
    #[track_caller]
    pub fn send(&mut self, request: &str) {
        self.try_send(request).unwrap_or_else(|error| panic!("send {request:?}: {error}"));
    }

    /// The next line of its output.
    ///
    /// # Errors
    /// If no line came within `timeout`, or the output has ended.
    pub fn line(&mut self, timeout: Duration) -> Result<String, RecvTimeoutError> {
        self.answers.recv_timeout(timeout)
    }

    /// Waits for the answer to the oldest request without an answer.
    ///
    /// # Errors
    /// The text of an `err` answer.
    #[track_caller]
    pub fn receive(&mut self, to: &str) -> Reply {
        let line = match self.line(DEADLINE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("no answer to {to:?} after {DEADLINE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the process ended after {to:?}"),
        };
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("ok", rest) => Ok(rest.to_owned()),
            ("err", rest) => Err(rest.to_owned()),
            _ => panic!("the answer to {to:?} is {line:?}"),
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The text of an `err` answer.
    #[track_caller]
    pub fn request(&mut self, request: &str) -> Reply {
        self.send(request);
        self.receive(request)
    }

    /// Sends a request that must succeed.
    #[track_caller]
    pub fn ok(&mut self, request: &str) -> String {
        self.request(request).unwrap_or_else(|error| panic!("{request}: {error}"))
    }

    /// Closes its standard input.
    pub fn close(&mut self) {
        drop(self.requests.take());
    }

    /// Its status, if it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("a child of this process")
    }

    /// Kills the child that was started.
    pub fn kill(&mut self) {
        self.process.kill().expect("a child of this process");
    }

    /// Closes its input and waits until it has ended.
    #[track_caller]
    pub fn end(mut self) {
        let pid = self.pid();
        assert!(self.end_within(DEADLINE), "process {pid} does not end after its input has ended");
    }

    /// Closes its input and waits until it has ended, for at most `timeout`.
    pub fn end_within(&mut self, timeout: Duration) -> bool {
        self.close();
        within(timeout, || self.try_wait()).is_some()
    }
}

impl Drop for LineProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
