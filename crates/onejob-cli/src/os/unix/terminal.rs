//! The terminal is handed back as it was found.

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

/// A controlling terminal whose foreground we held when we started.
pub(crate) struct Terminal {
    tty: OwnedFd,
    /// Our process group, unless it is one from outside our PID namespace, which has no number.
    group: Option<Pid>,
    modes: Termios,
}

impl Terminal {
    /// The controlling terminal, if there is one and its foreground is ours.
    pub(crate) fn held() -> Option<Terminal> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let tty = rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()?;
        // SAFETY: asks for a number, which is 0 for a group from outside our PID namespace.
        let ours = unsafe { libc::getpgrp() };
        let group = match tcgetpgrp(&tty) {
            Ok(group) if group.as_raw_pid() == ours => Some(group),
            // Both are from outside. The first process of a namespace is nobody's background.
            Err(Errno::OPNOTSUPP) if ours == 0 && super::is_first() => None,
            _ => return None,
        };
        let modes = tcgetattr(&tty).ok()?;
        Some(Terminal { tty, group, modes })
    }

    /// Takes the foreground back if the job had taken it, and the modes if they are to be restored.
    /// A foreground that somebody else has been given meanwhile (a shell, by Ctrl-Z and `bg`) is
    /// left alone, with its modes.
    pub(crate) fn give_back(&self, job: &Job, with_modes: bool) {
        let (Ok(holder), Some(group)) = (tcgetpgrp(&self.tty), self.group) else { return };
        if holder == group && !with_modes {
            return;
        }
        // Both calls stop a caller in the background, which we are if the job took the foreground.
        signals::while_blocked(Signal::TTOU, || {
            if holder != group
                && (has_outsiders(holder, job) || tcsetpgrp(&self.tty, group).is_err())
            {
                return;
            }
            if with_modes {
                let _ = tcsetattr(&self.tty, OptionalActions::Now, &self.modes);
            }
        });
    }
}

/// Gives up the controlling terminal, if standard input is it, so that CMD's session can have it;
/// which signals that is going to send us.
pub(crate) fn leave_terminal() -> Vec<Signal> {
    // SAFETY: a request without an argument; and two that ask for numbers.
    let (left, leads) =
        unsafe { (libc::ioctl(0, libc::TIOCNOTTY) == 0, libc::getsid(0) == libc::getpid()) };
    if left && leads { vec![Signal::HUP, Signal::CONT] } else { Vec::new() }
}

/// Whether somebody lives in this process group who is no member of the job.
fn has_outsiders(group: Pid, job: &Job) -> bool {
    if test_kill_process_group(group) == Err(Errno::SRCH) {
        return false;
    }
    let members = job.processes().unwrap_or_default();
    // Without a /proc to look at, taking nothing is the safe answer.
    let Ok(processes) = fs::read_dir("/proc") else { return true };
    let mut pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.any(|pid: u32| lives_in(pid, group) && !members.iter().any(|member| member.pid() == pid))
}

/// Whether this process is in this group and more than a zombie.
fn lives_in(pid: u32, group: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name may contain anything, a parenthesis too.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let mut fields = fields.split(' ');
    let state = fields.next();
    let its_group = fields.nth(1).and_then(|field| field.parse().ok());
    its_group == Some(group.as_raw_nonzero().get()) && !matches!(state, Some("Z" | "X"))
}
