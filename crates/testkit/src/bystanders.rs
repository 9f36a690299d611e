//! The innocent, beside every case.

use std::process::{Child, Command, Stdio};

use crate::{Bins, Sandbox, proc};

/// Processes of the same program, user and session as a job's members, outside of it. A test that
/// finds one of them dead has failed.
#[derive(Debug)]
pub struct Bystanders {
    ours: Vec<Child>,
    of_the_cell: Option<(i32, u64)>,
}

impl Bystanders {
    /// Two of them: one in the process group `group`, the owner's, and one in a group of its own.
    #[track_caller]
    pub fn beside(cell: &Sandbox, group: i32) -> Bystanders {
        let actor = |group: i32| {
            let mut actor = Command::new(Bins::get().actor());
            actor.arg("sleep").arg(Bins::NOWHERE).stdin(Stdio::null()).stdout(Stdio::null());
            cell.start_beside(in_group(&mut actor, group))
        };
        let ours = vec![actor(group), actor(0)];
        let inside = cell.bystander().and_then(|pid| Some((pid, proc::start(pid)?)));
        let bystanders = Bystanders { ours, of_the_cell: inside };
        let first = bystanders.ours[0].id() as i32;
        assert!(proc::is_alive(first));
        #[cfg(unix)]
        assert_eq!(proc::group(first), group, "the owner's group");
        bystanders
    }

    /// # Panics
    /// If one was hit.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        for child in &mut self.ours {
            let ended = child.try_wait().expect("our child");
            assert_eq!(ended, None, "HIT a bystander: {}", child.id());
        }
        if let Some((pid, start)) = self.of_the_cell {
            let same = proc::start(pid) == Some(start);
            assert!(same && proc::is_alive(pid), "HIT the bystander inside the cell: {pid}");
        }
    }
}

#[cfg(unix)]
fn in_group(command: &mut Command, group: i32) -> &mut Command {
    std::os::unix::process::CommandExt::process_group(command, group)
}

/// All are in the console group of the test.
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
