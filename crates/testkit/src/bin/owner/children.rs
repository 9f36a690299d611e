//! The usual substitute for a job: the program kills its children. It shows that the tests detect the
//! difference.

use std::process::{Child, Command, Stdio};

use testkit::proc::Held;

use crate::Answer;

pub(crate) fn is_wanted() -> bool {
    std::env::var_os("ONEJOB_TEST_CONTAINMENT").is_some_and(|value| value == "killpg")
}

/// The children that were started, with open handles.
#[derive(Default)]
pub(crate) struct Group {
    children: Vec<Held>,
}

impl Group {
    pub(crate) fn spawn(&mut self, command: &mut Command, piped: bool) -> Result<Child, String> {
        if piped {
            command.stdout(Stdio::piped());
        }
        let child = command.spawn().map_err(|error| error.to_string())?;
        self.children.extend(Held::open(child.id() as i32));
        Ok(child)
    }

    pub(crate) fn answer(&mut self, request: &str, _: &[&str]) -> Answer {
        match request {
            "stop" | "kill" => self.end(),
            _ => return Err(format!("children cannot {request}")),
        }
        Ok(String::new())
    }

    fn end(&self) {
        self.children.iter().for_each(Held::terminate);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a command and ends it.
pub(crate) fn run(command: &[&str]) {
    let (program, args) = command.split_first().expect("a command");
    let mut group = Group::default();
    let child = group.spawn(Command::new(program).args(args), false);
    let mut child = child.expect("a program that starts");
    let status = child.wait().expect("a child of this process");
    drop(group);
    std::process::exit(status.code().unwrap_or(1));
}
