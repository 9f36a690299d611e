//! Restores the terminal.

use std::fs;

use onejob::{Job, Signal};
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
    io::Errno,
    process::{Pid, test_kill_process_group},
    termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp},
};

use super::signals;

/// The controlling terminal, with onejob in its foreground when onejob started.
pub(crate) struct Terminal {
    tty: OwnedFd,
    /// onejob's process group; `None` if its leader is outside the PID namespace and has no number here.
    group: Option<Pid>,
    modes: Termios,
}

impl Terminal {
    /// `None` without a controlling terminal, or if onejob is in the background.
    pub(crate) fn in_foreground() -> Option<Terminal> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let tty = rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()?;
        // SAFETY: getpgrp(2) touches no memory. It returns 0 for a group from outside the PID
        // namespace.
        let own = unsafe { libc::getpgrp() };
        let group = match tcgetpgrp(&tty) {
            Ok(group) if group.as_raw_pid() == own => Some(group),
            // Both groups are from outside. PID 1 of a namespace is never in the background.
            Err(Errno::OPNOTSUPP) if own == 0 && super::is_pid_1() => None,
            _ => return None,
        };
        let modes = tcgetattr(&tty).ok()?;
        Some(Terminal { tty, group, modes })
    }

    /// Returns the foreground to onejob's process group if a member of the job had taken it, and
    /// restores the modes if `with_modes` is set. Does nothing if another process group has the
    /// foreground by now (a shell's, after Ctrl-Z and `bg`).
    pub(crate) fn restore(&self, job: &Job, with_modes: bool) {
        let (Ok(foreground), Some(group)) = (tcgetpgrp(&self.tty), self.group) else { return };
        if foreground == group && !with_modes {
            return;
        }
        // Both calls send SIGTTOU to a caller in the background.
        signals::while_blocked(Signal::TTOU, || {
            if foreground != group
                && (has_non_members(foreground, job) || tcsetpgrp(&self.tty, group).is_err())
            {
                return;
            }
            if with_modes {
                let _ = tcsetattr(&self.tty, OptionalActions::Now, &self.modes);
            }
        });
    }
}

/// Gives up the controlling terminal if it is standard input, so that CMD's session can acquire it.
/// Returns the signals that the kernel sends to this process for that.
pub(crate) fn release_terminal() -> Vec<Signal> {
    // SAFETY: TIOCNOTTY takes no argument; getsid(2) and getpid(2) touch no memory.
    let (released, leads) =
        unsafe { (libc::ioctl(0, libc::TIOCNOTTY) == 0, libc::getsid(0) == libc::getpid()) };
    if released && leads { vec![Signal::HUP, Signal::CONT] } else { Vec::new() }
}

/// Whether a process in this process group is not a member of the job.
fn has_non_members(group: Pid, job: &Job) -> bool {
    if test_kill_process_group(group) == Err(Errno::SRCH) {
        return false;
    }
    let members = job.processes().unwrap_or_default();
    // Without /proc nothing is known: do not take the foreground.
    let Ok(processes) = fs::read_dir("/proc") else { return true };
    let mut pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.any(|pid: u32| {
        is_in_group(pid, group) && !members.iter().any(|member| member.pid() == pid)
    })
}

/// Whether this process is in this group and not a zombie.
fn is_in_group(pid: u32, group: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The process name may contain any character, a parenthesis too.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let mut fields = fields.split(' ');
    let state = fields.next();
    let process_group = fields.nth(1).and_then(|field| field.parse().ok());
    process_group == Some(group.as_raw_nonzero().get()) && !matches!(state, Some("Z" | "X"))
}
