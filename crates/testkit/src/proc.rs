//! `/proc`, read without onejob.

use std::{fs, os::fd::OwnedFd, path::PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The fields of `/proc/PID/stat` that identify a process and its parent, group and session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Its name, which may contain anything.
    pub comm: String,
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`.
    pub state: char,
    /// Its parent.
    pub ppid: i32,
    /// Its process group.
    pub pgid: i32,
    /// Its session.
    pub sid: i32,
    /// In clock ticks since boot.
    pub start: u64,
}

/// Reads the fields of a process or, as `PID/task/TID`, of a thread; `None` if it does not exist.
pub fn stat(pid: impl std::fmt::Display) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(text: &str) -> Option<Stat> {
    // The name may contain blanks and parentheses: it ends at the last one.
    let (head, tail) = text.rsplit_once(')')?;
    let fields: Vec<_> = tail.split_whitespace().collect();
    Some(Stat {
        comm: head.split_once('(')?.1.to_owned(),
        state: fields.first()?.chars().next()?,
        ppid: fields.get(1)?.parse().ok()?,
        pgid: fields.get(2)?.parse().ok()?,
        sid: fields.get(3)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// Whether any thread of the process is alive. A dead leader thread shows `Z` while others run.
pub fn is_alive(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| stat(format!("{pid}/task/{}", thread.file_name().display())))
        .any(|stat| !matches!(stat.state, 'Z' | 'X' | 'x'))
}

/// Its parent.
pub fn parent(pid: i32) -> Option<i32> {
    stat(pid).map(|stat| stat.ppid)
}

/// A value that distinguishes it from a later process with the same pid: its start time.
pub fn start(pid: i32) -> Option<u64> {
    stat(pid).map(|stat| stat.start)
}

/// Its process group.
pub fn group(pid: i32) -> i32 {
    stat(pid).map_or(0, |stat| stat.pgid)
}

/// Kills the process alone; does nothing if it is gone.
pub fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

/// Sends it `SIGTERM`.
pub fn terminate(pid: i32) {
    signal(pid, Signal::TERM);
}

/// Sends it `signal`; does nothing if it is gone.
pub fn signal(pid: i32, signal: Signal) {
    if let Ok(pidfd) = open(pid) {
        let _ = pidfd_send_signal(&pidfd, signal);
    }
}

fn open(pid: i32) -> rustix::io::Result<OwnedFd> {
    pidfd_open(Pid::from_raw(pid).ok_or(rustix::io::Errno::INVAL)?, PidfdFlags::empty())
}

/// Stops all of these processes, and returns when all are stopped at one time: a guard continues another
/// one that it sees stopped. A process that is gone is left alone.
#[track_caller]
pub fn stop_together(pids: &[i32]) {
    let runs = |pid: &i32| stat(*pid).is_some_and(|stat| !matches!(stat.state, 'T' | 'Z' | 'X'));
    crate::eventually("processes that are stopped at one time", || {
        let running: Vec<_> = pids.iter().copied().filter(runs).collect();
        running.iter().for_each(|pid| signal(*pid, Signal::STOP));
        running.is_empty().then_some(())
    });
}

/// Kills these processes so that none of them does anything after the first one is dead, and waits until
/// all are dead: if there are several, they are stopped first. A single process is not stopped: a guard
/// continues another guard that is stopped.
///
/// An owner must be the last one: its end orphans its process group, and the kernel then continues the
/// stopped processes of this group.
///
/// # Panics
/// If one of them is not alive.
#[track_caller]
pub fn kill_together(pids: &[i32]) {
    let held: Vec<_> = pids.iter().map(|pid| open(*pid).expect("a living process")).collect();
    if pids.len() > 1 {
        stop_together(pids);
    }
    for pidfd in &held {
        pidfd_send_signal(pidfd, Signal::KILL).expect("a living process");
    }
    for pid in pids {
        crate::eventually("a dead process", || (!is_alive(*pid)).then_some(()));
    }
}

/// A line of `/proc/PID/status`, such as `SigIgn` or `Uid`.
pub fn status(pid: i32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Whether `signal` is in the set `field` of `/proc/PID/status`: `SigIgn`, `SigBlk`, `SigCgt`.
pub fn has_signal(pid: i32, field: &str, signal: i32) -> bool {
    let set = status(pid, field).and_then(|hex| u64::from_str_radix(&hex, 16).ok());
    set.is_some_and(|set| set >> (signal - 1) & 1 == 1)
}

/// Its pid in its own PID namespace.
pub fn inner_pid(pid: i32) -> Option<i32> {
    status(pid, "NSpid")?.split_whitespace().last()?.parse().ok()
}

/// The target of a link below `/proc/PID`.
pub fn link(pid: i32, name: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/{name}")).ok()
}

/// All processes.
pub fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The processes whose parent is `pid`, the dead ones included.
pub fn children(pid: i32) -> Vec<i32> {
    all().into_iter().filter(|child| stat(child).is_some_and(|stat| stat.ppid == pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name with blanks and parentheses is parsed correctly.
    #[test]
    fn stat_name_with_blanks_and_parentheses() {
        let tail = "S 7 8 9 0 -1 0 0 0 0 0 0 0 0 0 0 0 0 0 4711 0";
        let stat = parse(&format!("42 () T 1 1 (x) {tail}")).unwrap();
        assert_eq!((&*stat.comm, stat.state, stat.ppid), (") T 1 1 (x", 'S', 7));
        assert_eq!((stat.pgid, stat.sid, stat.start), (8, 9, 4711));
    }

    /// This process is alive and the kernel threads parent is not.
    #[test]
    fn liveness_of_this_process_and_of_pid_0() {
        assert!(is_alive(std::process::id() as i32));
        assert!(!is_alive(i32::MAX));
    }
}
