//! A client of the program `owner`, which owns a job.

use std::{process::Command, thread, time::Duration};

use crate::{Bins, DEADLINE, Environment, LineProcess, Reply, Sandbox, eventually, proc};

/// A process inside a sandbox that uses the library as its requests demand, one request per line. It ends
/// at the end of its standard input.
#[derive(Debug)]
pub struct Owner {
    process: LineProcess,
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

    /// Starts an owner with a changed command, for example with another variable.
    #[track_caller]
    pub fn start_with(
        sandbox: &mut Sandbox,
        environment: Environment,
        change: impl FnOnce(&mut Command),
    ) -> Owner {
        let mut process = LineProcess::start(sandbox, &Bins::get().owner(), change);
        let inner = process.receive("the start").expect("a greeting");
        let inner = inner.parse().expect("a pid");
        let pid = eventually("the owner", || sandbox.outer_pid(inner));
        Owner { process, pid, inner, environment }
    }

    /// The outer pid of the leader of the process group that it was started in.
    pub fn group(&self) -> i32 {
        proc::group(self.pid)
    }

    /// Sends a request without waiting for the answer.
    #[track_caller]
    pub fn send(&mut self, request: &str) {
        self.process.send(request);
    }

    /// Waits for the answer to the oldest request without an answer.
    ///
    /// # Errors
    /// The text of an `err` answer.
    #[track_caller]
    pub fn receive(&mut self, to: &str) -> Reply {
        self.process.receive(to)
    }

    /// Whether an answer came within `timeout`.
    pub fn has_reply(&mut self, timeout: Duration) -> Option<String> {
        self.process.line(timeout).ok()
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The text of an `err` answer.
    #[track_caller]
    pub fn request(&mut self, request: &str) -> Reply {
        self.process.request(request)
    }

    /// Sends a request that must succeed.
    #[track_caller]
    pub fn ok(&mut self, request: &str) -> String {
        self.process.ok(request)
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

    fn end_within(&mut self, timeout: Duration) {
        if !self.process.end_within(timeout) {
            eprintln!("the owner {} does not end, so it is killed", self.pid);
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
