//! A runtime directory and a folder for logs that are a test's own.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use crate::common::{Marked as _, ONEJOB, Scratch, eventually, onejob, outcome, pty::Pty, text};

pub(crate) struct Place {
    pub(crate) scratch: Scratch,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { scratch: Scratch::new() }
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.scratch.file("runtime")
    }

    /// Makes a command find the jobs of this place, and no others.
    pub(crate) fn put<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("ONEJOB_RUNTIME_DIR", self.runtime()).env("HOME", self.scratch.path());
        command.env("XDG_STATE_HOME", self.scratch.file("state"));
        command.current_dir(self.scratch.path()).marked(&self.scratch)
    }

    pub(crate) fn onejob(&self, args: &[&str]) -> Command {
        let mut command = onejob(args);
        self.put(&mut command);
        command
    }

    /// `onejob run --mechanism M -n NAME …`, started.
    pub(crate) fn run(&self, mechanism: &str, name: &str, args: &[&str]) -> Child {
        let words = [&["run", "--mechanism", mechanism, "-n", name][..], args].concat();
        let mut command = self.onejob(&words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// The same, with its job to be found.
    pub(crate) fn running(&self, mechanism: &str, name: &str, args: &[&str]) -> Child {
        let child = self.run(mechanism, name, args);
        self.awaits(name);
        child
    }

    /// Waits until the job's command runs.
    pub(crate) fn awaits(&self, name: &str) {
        eventually(&format!("the job {name}"), || {
            let said = self.says(&["tree", "--json", &format!("={name}")]);
            said.status.success()
                && text(&said.stdout).contains("\"pid\"")
                && text(&said.stdout).contains("\"command\"")
        });
    }

    pub(crate) fn says(&self, args: &[&str]) -> Output {
        outcome(&mut self.onejob(args))
    }

    /// A verb that must end so; what it writes on the two streams.
    #[track_caller]
    pub(crate) fn ends(&self, args: &[&str], code: i32) -> (String, String) {
        let output = self.says(args);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout} {stderr}");
        (stdout, stderr)
    }

    /// What a verb writes that must succeed without a word of talk.
    #[track_caller]
    pub(crate) fn data(&self, args: &[&str]) -> String {
        let (stdout, stderr) = self.ends(args, 0);
        assert_eq!(stderr, "", "{args:?}");
        stdout
    }

    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.data(args)).unwrap()
    }

    /// A shell in a terminal of its own.
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

    /// Waits until there are neither processes nor files of any job.
    pub(crate) fn is_deserted(&self) {
        self.scratch.marked_are_gone();
        let mut left = Vec::new();
        eventually("the runtime directory is empty", || {
            left = self.files();
            left.is_empty()
        });
    }
}
