//! Finds members and guards from outside: by the sandbox, the tag in the command line, and the pidfds that
//! guards have of their owners.

use std::{fs, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use testkit::{GUARD, Sandbox, proc};

/// A process, distinguished from a later process with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    start: u64,
}

impl Identity {
    pub(crate) fn of(pid: i32) -> Option<Identity> {
        Some(Identity { pid, start: proc::start(pid)? })
    }

    pub(crate) fn is_alive(self) -> bool {
        proc::start(self.pid) == Some(self.start) && proc::is_alive(self.pid)
    }

    /// Does nothing if the process is gone, also if another process has its pid.
    pub(crate) fn signal(self, signal: Signal) {
        let pidfd = Pid::from_raw(self.pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        if let Some(Ok(pidfd)) = pidfd
            && proc::start(self.pid) == Some(self.start)
        {
            let _ = pidfd_send_signal(&pidfd, signal);
        }
    }
}

/// The guards of one job or owner. `None`: it was never seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) outer: Option<Identity>,
    pub(crate) inner: Option<Identity>,
}

impl Pair {
    pub(crate) fn both(self) -> impl Iterator<Item = Identity> {
        [self.inner, self.outer].into_iter().flatten()
    }
}

/// The words of a process's command line. If the leader thread has ended, another thread has them.
pub(crate) fn words(pid: i32) -> Vec<String> {
    let of = |thread: &str| fs::read(format!("/proc/{pid}/task/{thread}/cmdline")).ok();
    let mut text = of(&pid.to_string()).unwrap_or_default();
    if text.is_empty() {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut texts = threads.filter_map(|thread| of(thread.file_name().to_str()?));
        text = texts.find(|text| !text.is_empty()).unwrap_or_default();
    }
    let words = text.split(|byte| *byte == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The live processes in the sandbox with this tag, without those that have it in their arguments and are not
/// members: the injector of errors, `onejob exec`, and `onejob run`.
pub(crate) fn tagged(sandbox: &Sandbox, tag: &str) -> Vec<i32> {
    let mut all = sandbox.live_pids();
    all.retain(|pid| {
        let words = words(*pid);
        let is_not_a_member = match &words[..] {
            [_, verb, rest @ ..] => {
                verb == "inject"
                    || verb == "exec"
                    || verb == "run" && rest.first().is_some_and(|word| word == "--name")
            }
            _ => false,
        };
        !is_not_a_member && words.iter().any(|word| word == tag)
    });
    all
}

/// Every guard in the sandbox, with its parent.
fn guards(sandbox: &Sandbox) -> Vec<(Identity, i32)> {
    let living = sandbox.live().into_iter();
    let guards = living.filter_map(|living| Some((living.pid, living.stat?)));
    let guards = guards.filter(|(_, stat)| stat.comm == GUARD);
    guards.filter_map(|(pid, stat)| Some((Identity::of(pid)?, stat.ppid))).collect()
}

/// Whether it has a pidfd of this process, as the guards of an owner have.
fn watches(guard: i32, pid: i32) -> bool {
    let line = format!("Pid:\t{pid}");
    let infos = fs::read_dir(format!("/proc/{guard}/fdinfo")).into_iter().flatten().flatten();
    let texts = infos.filter_map(|info| fs::read_to_string(info.path()).ok());
    texts.into_iter().any(|text| text.lines().any(|found| found == line))
}

/// The guards of an owner. A single guard is a pair too.
pub(crate) fn pairs(sandbox: &Sandbox, owner: i32) -> Vec<Pair> {
    let mut its = guards(sandbox);
    its.retain(|(guard, _)| watches(guard.pid, owner));
    let is_its = |pid: i32| its.iter().find(|(guard, _)| guard.pid == pid).map(|(guard, _)| *guard);
    let mut pairs = Vec::new();
    for (guard, parent) in &its {
        if let Some(outer) = is_its(*parent) {
            pairs.push(Pair { outer: Some(outer), inner: Some(*guard) });
        }
    }
    for (guard, _) in &its {
        if !pairs.iter().any(|pair| pair.both().any(|other| other == *guard)) {
            // Only the outer guard leads a session.
            let led = proc::stat(guard.pid).is_some_and(|stat| stat.sid == guard.pid);
            let (outer, inner) = if led { (Some(*guard), None) } else { (None, Some(*guard)) };
            pairs.push(Pair { outer, inner });
        }
    }
    pairs
}

/// The inner guard above a member, and its outer guard.
pub(crate) fn pair_above(pid: i32) -> Option<Pair> {
    let is_guard = |pid: &i32| proc::stat(*pid).is_some_and(|stat| stat.comm == GUARD);
    let mut above = std::iter::successors(proc::parent(pid), |pid| proc::parent(*pid));
    let inner = above.by_ref().take_while(|pid| *pid > 1).find(is_guard)?;
    let outer = proc::parent(inner).filter(is_guard).and_then(Identity::of);
    Some(Pair { outer, inner: Identity::of(inner) })
}

/// Guards that use more than half of a processor for a while in which nothing happens.
pub(crate) fn spinning(sandbox: &Sandbox) -> Vec<i32> {
    const LOOK: Duration = Duration::from_millis(200);
    const LOOKS: usize = 4;
    let mut suspects: Vec<_> = guards(sandbox).into_iter().map(|(guard, _)| guard).collect();
    for _ in 0..LOOKS {
        let before: Vec<_> = suspects.iter().map(|guard| cpu_ticks(guard.pid)).collect();
        std::thread::sleep(LOOK);
        let used = suspects.iter().zip(before).filter(|(guard, before)| {
            cpu_ticks(guard.pid).saturating_sub(*before) > LOOK.as_millis() as u64 / 20
        });
        suspects = used.map(|(guard, _)| *guard).collect();
        if suspects.is_empty() {
            break;
        }
    }
    suspects.iter().map(|guard| guard.pid).collect()
}

/// The CPU time of a process, in clock ticks.
fn cpu_ticks(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, tail)| tail).split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// The dead children of `pid` that are not members: intermediate processes and guards, by their names.
pub(crate) fn our_zombies(pid: i32) -> Vec<String> {
    let children = proc::children(pid).into_iter();
    let dead = children.filter_map(|child| Some((child, proc::stat(child)?)));
    let ours = dead
        .filter(|(_, stat)| stat.state == 'Z' && [GUARD, "owner"].contains(&stat.comm.as_str()));
    ours.map(|(child, stat)| format!("{child} {}", stat.comm)).collect()
}

/// A line for each process, for the report of a failure.
pub(crate) fn describe(pids: &[i32]) -> String {
    let lines = pids.iter().map(|pid| {
        let stat = proc::stat(*pid);
        let stat = stat.map(|stat| {
            let proc::Stat { comm, state, ppid, pgid, sid, .. } = stat;
            format!("{comm} {state} ppid={ppid} pgid={pgid} sid={sid}")
        });
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let cgroup = cgroup.lines().find(|line| line.starts_with("0::")).unwrap_or("").to_owned();
        let wchan = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        format!("    {pid} {stat:?} {wchan} {cgroup} {}", words(*pid).join(" "))
    });
    lines.collect::<Vec<_>>().join("\n")
}
