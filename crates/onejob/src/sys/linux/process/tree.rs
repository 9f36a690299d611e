//! The processes below any process of ours, without a job.

use std::{
    collections::HashSet,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    descendants::{self, Root, SignalTally},
    identity,
};
use crate::{
    Error, Process, ProcessId, Result, Signal,
    stop::Stoppable,
    sys::linux::{
        deadline::{KILL_TIMEOUT, has_passed, wait_for},
        nostd::{
            procfs::Proc,
            syscall::{self, Errno, POLLIN, PollFd, SIGCONT, SIGKILL, SIGSTOP},
            tree_walk::{Coverage, Found, Visitor},
        },
    },
};

/// A root and everybody who was ever met below it, each held by a pidfd: who loses its parent is
/// not lost to us.
pub(crate) struct Tree {
    proc: Proc,
    met: Mutex<Vec<HeldProcess>>,
}

struct HeldProcess {
    pid: u32,
    pidfd: OwnedFd,
}

/// Flags of `/proc/PID/stat` for a kernel thread (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

pub(crate) fn tree(root: &ProcessId) -> Result<Box<dyn Stoppable>> {
    let pid = root.pid;
    if pid == 1 {
        return Err(Error::invalid("process 1 is the init of everybody")
            .with_hint("name the process that started what is to end"));
    }
    if pid == std::process::id() {
        return Err(Error::invalid(format!("process {pid} is the calling process itself")));
    }
    let pidfd = identity::reopen(root)?;
    let proc = Proc::open().map_err(|e| {
        Error::os("open a /proc that shows this PID namespace", e)
            .with_hint("mount a fresh one: mount -t proc proc /proc")
    })?;
    if proc.stat(pid as i32).is_ok_and(|stat| stat.flags & KERNEL_THREAD != 0) {
        return Err(Error::invalid(format!("process {pid} is a kernel thread")));
    }
    match syscall::pidfd_send_signal(pidfd.as_raw_fd(), 0) {
        Err(Errno::SRCH) => return Err(Error::stale(format!("process {pid} is gone"))),
        Err(e) => {
            return Err(Error::os(format!("signal process {pid}"), e)
                .with_hint("it belongs to another user"));
        }
        Ok(()) => {}
    }
    Ok(Box::new(Tree { proc, met: Mutex::new(vec![HeldProcess { pid, pidfd }]) }))
}

/// A process and everybody below it but the calling one, to be looked at.
pub(crate) fn descendants(root: &ProcessId) -> Result<Vec<Process>> {
    let failed = |e| Error::os(format!("list the processes below {root}"), e);
    let pidfd = identity::reopen(root)?;
    let proc = Proc::open().map_err(|e| failed(e.into()))?;
    let mut found = vec![identity::describe(root.pid, pidfd.as_fd(), Some(&proc))];
    let root = Root { pid: root.pid as i32, pidfd: pidfd.as_fd() };
    found.extend(descendants::list(&proc, root).map_err(failed)?);
    Ok(found)
}

impl Tree {
    /// That of a process that is held already.
    pub(crate) fn new(root: Root<'_>) -> Result<Tree> {
        let proc = Proc::open().map_err(|e| Error::os("open /proc", e))?;
        let pidfd = root.pidfd.try_clone_to_owned().map_err(|e| Error::os("hold a process", e))?;
        Ok(Tree { proc, met: Mutex::new(vec![HeldProcess { pid: root.pid as u32, pidfd }]) })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<HeldProcess>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Vec<Process> {
        let met = self.lock();
        let alive = met.iter().filter(|met| !syscall::is_dead(met.pidfd.as_raw_fd()));
        alive.map(|met| identity::describe(met.pid, met.pidfd.as_fd(), Some(&self.proc))).collect()
    }

    /// Stops everybody, parents before their children, until nobody new is met: who is stopped
    /// starts nobody, and nobody below loses its parent. Answers how many were met anew.
    fn hold(&self) -> Result<usize> {
        let failed = |e: std::io::Error| Error::os("list the processes below", e);
        let mut met = self.lock();
        let before = met.len();
        let mut known: HashSet<u64> = HashSet::new();
        const ROUNDS: usize = 16;
        let mut failure = None;
        for _ in 0..ROUNDS {
            failure = None;
            let mut grown = Vec::new();
            let mut coverage = Coverage::Whole;
            for top in met.iter().filter(|met| !syscall::is_dead(met.pidfd.as_raw_fd())) {
                let _ = syscall::pidfd_send_signal(top.pidfd.as_raw_fd(), SIGSTOP);
                let root = Root { pid: top.pid as i32, pidfd: top.pidfd.as_fd() };
                let mut holder = Collector { known: &mut known, met: &mut grown };
                let of_it = descendants::visit(&self.proc, root, &mut holder).map_err(failed)?;
                if of_it != Coverage::Whole {
                    coverage = of_it;
                }
            }
            let anew = grown.len();
            met.extend(grown);
            if anew == 0 && coverage == Coverage::Whole {
                break;
            }
            failure = descendants::failure(coverage);
        }
        if let Some(errno) = failure {
            return Err(failed(errno.into()));
        }
        Ok(met.len() - before)
    }
}

struct Collector<'a> {
    known: &'a mut HashSet<u64>,
    met: &'a mut Vec<HeldProcess>,
}

impl Visitor for Collector<'_> {
    fn enter(&mut self, found: &Found<'_>) {
        let _ = syscall::pidfd_send_signal(found.pidfd, SIGSTOP);
        if !self.known.insert(found.pid as u64) {
            return;
        }
        // Without a descriptor to spare it is still stopped, and killed with its parents' round.
        if let Ok(pidfd) = descendants::pidfd_of(found).try_clone_to_owned() {
            self.met.push(HeldProcess { pid: found.pid as u32, pidfd });
        }
    }
}

impl Stoppable for Tree {
    fn terminate(&self, signal: Signal) -> Result<usize> {
        self.hold()?;
        let mut reached = SignalTally::new(signal);
        let met = self.lock();
        met.iter().for_each(|met| reached.send(met.pid as i32, met.pidfd.as_fd()));
        met.iter().for_each(|met| {
            let _ = syscall::pidfd_send_signal(met.pidfd.as_raw_fd(), SIGCONT);
        });
        drop(met);
        reached.count()
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        loop {
            let alive = {
                let met = self.lock();
                let alive = met.iter().find(|met| !syscall::is_dead(met.pidfd.as_raw_fd()));
                alive.map(|met| met.pidfd.try_clone())
            };
            let Some(alive) = alive else { return Ok(true) };
            let alive = alive.map_err(|e| Error::os("hold a process", e))?;
            if has_passed(deadline) {
                return Ok(false);
            }
            wait_for(&mut [PollFd::new(&alive, POLLIN)], deadline);
        }
    }

    fn kill(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            self.hold()?;
            let refused = {
                let met = self.lock();
                let kill = |met: &&HeldProcess| {
                    syscall::pidfd_send_signal(met.pidfd.as_raw_fd(), SIGKILL) == Err(Errno::PERM)
                };
                met.iter().filter(kill).count()
            };
            if self.wait(Some(Instant::now() + KILL_TIMEOUT / 20))? {
                return Ok(());
            }
            let alive = self.alive();
            if alive.len() == refused || start.elapsed() > KILL_TIMEOUT {
                return Err(Error::still_alive(alive, start.elapsed()));
            }
        }
    }
}
