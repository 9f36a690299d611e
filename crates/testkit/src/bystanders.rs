//! Bystanders: unrelated processes beside every test case.

use std::process::{Child, Command, Stdio};

use crate::{Bins, Sandbox, proc};

/// Processes with the same program, user and session as the members of a job, but outside of the job.
/// If a bystander dies, the test fails.
#[derive(Debug)]
pub struct Bystanders {
    outside: Vec<Child>,
    inside: Option<(i32, u64)>,
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
        let outside = vec![helper(group), helper(0)];
        let inside = sandbox.bystander().and_then(|pid| Some((pid, proc::start(pid)?)));
        let bystanders = Bystanders { outside, inside };
        let first = bystanders.outside[0].id() as i32;
        assert!(proc::is_alive(first));
        #[cfg(unix)]
        assert_eq!(proc::group(first), group, "the owner's group");
        bystanders
    }

    /// # Panics
    /// If a bystander has died.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        for child in &mut self.outside {
            let ended = child.try_wait().expect("a child of this process");
            assert_eq!(ended, None, "the bystander {} has ended", child.id());
        }
        if let Some((pid, start)) = self.inside {
            let same = proc::start(pid) == Some(start);
            assert!(
                same && proc::is_alive(pid),
                "the bystander {pid} inside the sandbox has ended"
            );
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
        for child in &mut self.outside {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
