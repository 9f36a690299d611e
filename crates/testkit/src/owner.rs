//! A client of the program `owner`, which owns a job.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use crate::{Bins, DEADLINE, Environment, Sandbox, eventually, eventually::within, proc};

/// The answer to a request: the text after `ok` or `err`.
pub type Reply = Result<String, String>;

/// A process inside a sandbox that uses the library as its requests say, one request per line. It ends
/// at the end of its standard input.
#[derive(Debug)]
pub struct Owner {
    process: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
    /// Its pid outside.
    pub pid: i32,
    /// Its pid in its own namespace.
    pub inner: i32,
    environment: Environment,
}

impl Owner {
    /// Starts an owner without a job.
    #[track_caller]
    pub fn start(sandbox: &mut Sandbox, environment: Environment) -> Owner {
        Owner::start_with(sandbox, environment, |_| ())
    }

    /// Starts an owner with a changed command, for example with another environment.
    #[track_caller]
    pub fn start_with(
        sandbox: &mut Sandbox,
        environment: Environment,
        change: impl FnOnce(&mut Command),
    ) -> Owner {
        let mut process = sandbox.start(&Bins::get().owner(), |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            change(command);
        });
        let requests = process.stdin.take();
        let answers = lines(process.stdout.take().expect("piped"));
        let mut owner = Owner { process, requests, answers, pid: 0, inner: 0, environment };
        let hello = owner.receive("the start").expect("a greeting");
        owner.inner = hello.parse().expect("a pid");
        owner.pid = eventually("the owner", || sandbox.outer_pid(owner.inner));
        owner
    }

    /// The outer pid of the leader of the process group that it was started in.
    pub fn group(&self) -> i32 {
        proc::group(self.pid)
    }

    /// Sends a request without waiting for the answer.
    #[track_caller]
    pub fn send(&mut self, request: &str) {
        let pipe = self.requests.as_mut().expect("not closed");
        writeln!(pipe, "{request}").unwrap_or_else(|error| panic!("tell {request:?}: {error}"));
    }

    /// Waits for the answer to the oldest request without an answer.
    ///
    /// # Errors
    /// The text of an `err` answer.
    #[track_caller]
    pub fn receive(&mut self, to: &str) -> Reply {
        let line = match self.answers.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("no answer to {to:?} after {DEADLINE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the owner died of {to:?}"),
        };
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("ok", rest) => Ok(rest.to_owned()),
            ("err", rest) => Err(rest.to_owned()),
            _ => panic!("the owner answered {to:?} with {line:?}"),
        }
    }

    /// Whether an answer came within `patience`.
    pub fn has_reply(&mut self, patience: Duration) -> Option<String> {
        self.answers.recv_timeout(patience).ok()
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

    /// Makes a job with the mechanism of the environment, and waits until its guards are ready.
    #[track_caller]
    pub fn new_job(&mut self) {
        let mechanism = self.environment.mechanism();
        self.ok(&format!("new {mechanism}"));
        // This makes the job check its guards. A plain process group has none and returns an error.
        let _ = self.request("guarantees");
    }

    /// The members that the library lists, by their inner pids.
    #[track_caller]
    pub fn list(&mut self) -> Vec<i32> {
        numbers(&self.ok("list"))
    }

    /// Kills the owner alone, at once.
    #[track_caller]
    pub fn kill(&mut self) {
        assert!(self.is_alive(), "the owner is gone already");
        proc::kill(self.pid);
    }

    /// Lets it end and waits for that.
    pub fn end(mut self) {
        self.end_within(DEADLINE);
    }

    fn end_within(&mut self, patience: Duration) {
        drop(self.requests.take());
        if within(patience, || self.process.try_wait().ok()?).is_none() {
            eprintln!("the owner {} does not end, so it is killed", self.pid);
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    /// Whether it is alive.
    pub fn is_alive(&self) -> bool {
        proc::is_alive(self.pid)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A failed test need not wait long for an owner that hangs.
        self.end_within(if thread::panicking() { Duration::from_secs(2) } else { DEADLINE });
    }
}

/// The numbers in an answer.
pub fn numbers(answer: &str) -> Vec<i32> {
    answer.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// A thread reads, so that a test can wait for a line with a deadline.
fn lines(pipe: ChildStdout) -> Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}
