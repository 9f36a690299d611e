//! A program that answers line by line, in a sandbox: for owners that `testkit::Owner` cannot be.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        mpsc::{self, Receiver},
    },
    thread,
};

use testkit::{Bins, DEADLINE, Reply, Sandbox, eventually};

/// The program `odd-owner`, where any user can execute it.
pub fn odd_owner() -> PathBuf {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    let copy = || {
        let to = Bins::get().helper().with_file_name("odd-owner");
        let test = std::env::current_exe().expect("a path to this test");
        let dir = test.parent().and_then(Path::parent).expect("the directory of the programs");
        // By a program of its own: a file that is open for writing in a process that forks cannot
        // be executed.
        let copied = Command::new("cp").arg(dir.join("odd-owner")).arg(&to).status();
        assert!(copied.expect("cp").success(), "built with the others");
        to
    };
    COPY.get_or_init(copy).clone()
}

/// Killed when dropped.
#[derive(Debug)]
pub struct Driven {
    process: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Driven {
    /// Starts `program` in the sandbox. It says nothing by itself, or its first answer is yet to be
    /// asked for.
    pub fn start(
        sandbox: &mut Sandbox,
        program: &Path,
        change: impl FnOnce(&mut Command),
    ) -> Driven {
        let mut process = sandbox.start(program, |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            change(command);
        });
        let requests = process.stdin.take();
        let stdout = process.stdout.take().expect("piped");
        let (send, answers) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.map_while(|line| send.send(line).ok()).for_each(drop);
        });
        Driven { process, requests, answers }
    }

    /// The pid of what was started.
    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    #[track_caller]
    pub fn tell(&mut self, request: &str) {
        let pipe = self.requests.as_mut().expect("not closed");
        writeln!(pipe, "{request}").unwrap_or_else(|error| panic!("tell {request:?}: {error}"));
    }

    /// The next answer.
    ///
    /// # Errors
    /// What was answered with `err`.
    #[track_caller]
    pub fn answer(&mut self) -> Reply {
        let line = self.answers.recv_timeout(DEADLINE).expect("an answer");
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("ok", rest) => Ok(rest.to_owned()),
            ("err", rest) => Err(rest.to_owned()),
            _ => panic!("answered with {line:?}"),
        }
    }

    /// A request that must succeed.
    #[track_caller]
    pub fn ok(&mut self, request: &str) -> String {
        self.tell(request);
        self.answer().unwrap_or_else(|error| panic!("{request}: {error}"))
    }

    pub fn murder(&mut self) {
        self.process.kill().expect("a child of ours");
    }

    /// Closes its input and waits until it has ended.
    pub fn end(mut self) {
        drop(self.requests.take());
        eventually("the end of a driven program", || self.process.try_wait().expect("a child"));
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
