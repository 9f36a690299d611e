//! A runtime directory and a log directory for one test.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use crate::common::{Marked as _, ONEJOB, Scratch, eventually, onejob, outcome, pty::Pty, text};

pub(crate) struct Fixture {
    pub(crate) scratch: Scratch,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture { scratch: Scratch::new() }
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.scratch.file("runtime")
    }

    /// Makes a command find the jobs of this fixture, and no others.
    pub(crate) fn apply_to<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("ONEJOB_RUNTIME_DIR", self.runtime()).env("HOME", self.scratch.path());
        command.env("XDG_STATE_HOME", self.scratch.file("state"));
        command.current_dir(self.scratch.path()).marked(&self.scratch)
    }

    pub(crate) fn onejob(&self, args: &[&str]) -> Command {
        let mut command = onejob(args);
        self.apply_to(&mut command);
        command
    }

    /// Starts `onejob run --mechanism M -n NAME …`.
    pub(crate) fn run(&self, mechanism: &str, name: &str, args: &[&str]) -> Child {
        let words = [&["run", "--mechanism", mechanism, "-n", name][..], args].concat();
        let mut command = self.onejob(&words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// The same; returns when the job is listed.
    pub(crate) fn start(&self, mechanism: &str, name: &str, args: &[&str]) -> Child {
        let child = self.run(mechanism, name, args);
        self.wait_for_job(name);
        child
    }

    /// Waits until the job's command runs.
    pub(crate) fn wait_for_job(&self, name: &str) {
        eventually(&format!("the job {name}"), || {
            let said = self.output_of(&["tree", "--json", &format!("={name}")]);
            said.status.success()
                && text(&said.stdout).contains("\"pid\"")
                && text(&said.stdout).contains("\"argv\"")
        });
    }

    pub(crate) fn output_of(&self, args: &[&str]) -> Output {
        outcome(&mut self.onejob(args))
    }

    /// Runs a subcommand that must exit with this status. Returns standard output and error.
    #[track_caller]
    pub(crate) fn expect_status(&self, args: &[&str], code: i32) -> (String, String) {
        let output = self.output_of(args);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout} {stderr}");
        (stdout, stderr)
    }

    /// Runs a subcommand that must succeed without a message. Returns standard output.
    #[track_caller]
    pub(crate) fn stdout_of(&self, args: &[&str]) -> String {
        let (stdout, stderr) = self.expect_status(args, 0);
        assert_eq!(stderr, "", "{args:?}");
        stdout
    }

    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.stdout_of(args)).unwrap()
    }

    /// A shell on a new terminal.
    pub(crate) fn terminal(&self) -> Pty {
        let mut pty = Pty::bash(&self.scratch);
        let state = "XDG_STATE_HOME=\"$DIR/state\" HOME=\"$DIR\"";
        let mark = self.scratch.mark();
        pty.send(&format!(
            "export ONEJOB_RUNTIME_DIR=\"$DIR/runtime\" {state} {mark}; echo rea''dy\n"
        ));
        pty.expect("ready");
        pty.expect("READY> ");
        assert!(fs::exists(ONEJOB).unwrap());
        pty
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.runtime()).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// Waits until the jobs have left neither processes nor files.
    pub(crate) fn assert_empty(&self) {
        self.scratch.marked_are_gone();
        let mut left = Vec::new();
        eventually("the runtime directory is empty", || {
            left = self.files();
            left.is_empty()
        });
    }
}
