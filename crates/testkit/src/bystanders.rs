//! Bystanders: unrelated processes beside every test case.

use std::process::{Child, Command, Stdio};

use crate::{Bins, Sandbox, proc};

/// Processes with the same program, user and session as the members of a job, but outside of the job.
/// If a bystander dies, the test fails.
#[derive(Debug)]
pub struct Bystanders {
    ours: Vec<Child>,
    of_the_sandbox: Option<(i32, u64)>,
}

impl Bystanders {
    /// Starts two: one in `group`, the process group of the owner, and one in its own group.
    #[track_caller]
    pub fn beside(sandbox: &Sandbox, group: i32) -> Bystanders {
        let helper = |group: i32| {
            let mut helper = Command::new(Bins::get().helper());
            helper.arg("sleep").arg(Bins::NOWHERE).stdin(Stdio::null()).stdout(Stdio::null());
            sandbox.start_beside(in_group(&mut helper, group))
        };
        let ours = vec![helper(group), helper(0)];
        let inside = sandbox.bystander().and_then(|pid| Some((pid, proc::start(pid)?)));
        let bystanders = Bystanders { ours, of_the_sandbox: inside };
        let first = bystanders.ours[0].id() as i32;
        assert!(proc::is_alive(first));
        #[cfg(unix)]
        assert_eq!(proc::group(first), group, "the owner's group");
        bystanders
    }

    /// # Panics
    /// If a bystander has died.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        for child in &mut self.ours {
            let ended = child.try_wait().expect("our child");
            assert_eq!(ended, None, "HIT a bystander: {}", child.id());
        }
        if let Some((pid, start)) = self.of_the_sandbox {
            let same = proc::start(pid) == Some(start);
            assert!(same && proc::is_alive(pid), "HIT the bystander inside the sandbox: {pid}");
        }
    }
}

#[cfg(unix)]
fn in_group(command: &mut Command, group: i32) -> &mut Command {
    std::os::unix::process::CommandExt::process_group(command, group)
}

/// All processes are in the console process group of the test.
#[cfg(windows)]
fn in_group(command: &mut Command, _: i32) -> &mut Command {
    command
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        for child in &mut self.ours {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
