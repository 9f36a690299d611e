//! The usual substitute for a job: one process group, and `killpg`. It shows that the tests detect the
//! difference.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::Answer;

pub(crate) fn is_wanted() -> bool {
    std::env::var_os("ONEJOB_TEST_CONTAINMENT").is_some_and(|value| value == "killpg")
}

/// The process group of the first process that was started.
#[derive(Default)]
pub(crate) struct Group {
    leader: Option<u32>,
}

impl Group {
    /// Starts `command` in the group.
    pub(crate) fn spawn(&mut self, command: &mut Command, piped: bool) -> Result<Child, String> {
        if piped {
            command.stdout(Stdio::piped());
        }
        command.process_group(self.leader.map_or(0, |leader| leader as i32));
        let child = command.spawn().map_err(|error| error.to_string())?;
        self.leader.get_or_insert(child.id());
        Ok(child)
    }

    pub(crate) fn answer(&mut self, request: &str, args: &[&str]) -> Answer {
        match request {
            "stop" => {
                self.signal(Signal::TERM);
                let grace = args.first().and_then(|millis| millis.parse().ok()).unwrap_or(0);
                self.wait(Duration::from_millis(grace));
                self.end();
            }
            "kill" => self.end(),
            _ => return Err(format!("a process group cannot {request}")),
        }
        Ok(String::new())
    }

    fn end(&self) {
        self.signal(Signal::KILL);
        // The zombie of the leader, which this process reaps, keeps the group in existence.
        self.wait(Duration::from_millis(300));
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.pid() {
            let _ = kill_process_group(leader, signal);
        }
    }

    fn wait(&self, timeout: Duration) {
        let start = Instant::now();
        let exists = || self.pid().is_some_and(|leader| test_kill_process_group(leader).is_ok());
        while exists() && start.elapsed() < timeout {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.leader? as i32)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a command and kills its process group when it has ended.
pub(crate) fn run(command: &[&str]) {
    let (program, args) = command.split_first().expect("a command");
    let mut group = Group::default();
    let child = group.spawn(Command::new(program).args(args), false);
    let mut child = child.expect("a program that starts");
    let status = child.wait().expect("a child of this process");
    drop(group);
    std::process::exit(status.code().unwrap_or(1));
}
