//! An enclosed job whose members cannot be listed, because no `/proc` of this PID namespace is mounted.
//!
//! Orphans are re-parented to the caller, so it has a live child as long as a member lives, and
//! `waitid(2)` reports that. PID 1 signals all members by `kill(-1)`: they are the other processes of its
//! PID namespace. Another caller only reaches the processes that it has started, and their process groups.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::{
    Accounting, Command, Containment, Error, Freeze, Guarantees, Kill, Mechanism, OwnerDeath,
    Process, Resources, Result, Signal, Stats,
    spec::JobSpec,
    stop::Stoppable,
    sys::{
        Backend,
        linux::{
            deadline::{KILL_TIMEOUT, has_passed, wait_for},
            nostd::syscall::{self, Errno, POLLIN, PollFd},
            process::{child::signal_group, dropped_children},
            spawn::local::{ChildMemory, spawn_local},
        },
    },
};

pub(super) struct Unlisted {
    is_pid_1: bool,
    /// The processes that were started, as long as their `Child` exists.
    started: Mutex<Vec<(u32, Weak<OwnedFd>)>>,
    is_released: bool,
    /// Why the members cannot be listed.
    reason: String,
}

/// Children with any exit signal (`__WALL`).
const ALL_CHILDREN: WaitIdOptions = WaitIdOptions::from_bits_retain(0x4000_0000);

/// Whether `waitid(2)` with these options finds children of this process. It reaps none.
fn has_children(options: WaitIdOptions) -> Result<bool> {
    let options = options | ALL_CHILDREN | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match rustix::io::retry_on_intr(|| waitid(WaitId::All, options)) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::CHILD) => Ok(false),
        Err(e) => Err(Error::os("look for children of this process", e)),
    }
}

/// Whether a child lives. Zombies never continue, so the kernel does not count them here.
fn has_live_child() -> Result<bool> {
    has_children(WaitIdOptions::CONTINUED)
}

/// Whether there is any child, zombies included.
pub(super) fn has_child() -> Result<bool> {
    has_children(WaitIdOptions::EXITED)
}

impl Unlisted {
    /// For a caller to which orphans are re-parented already. `why` is the error of the listing.
    pub(super) fn new(spec: &JobSpec, why: Error) -> Result<Unlisted> {
        if spec.name.is_some() {
            return Err(why);
        }
        let started = Mutex::default();
        let is_pid_1 = std::process::id() == 1;
        Ok(Unlisted { is_pid_1, started, is_released: false, reason: why.to_string() })
    }

    fn cannot(&self, what: &str) -> Error {
        Error::unsupported(format!("cannot {what}: {}", self.reason))
    }

    /// The processes that were started and live.
    fn started(&self) -> Vec<(u32, Arc<OwnedFd>)> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.retain(|(_, held)| held.strong_count() > 0);
        let held = started.iter().filter_map(|(pid, held)| Some((*pid, held.upgrade()?)));
        held.filter(|(_, pidfd)| !syscall::is_dead(pidfd.as_raw_fd())).collect()
    }

    /// Whether any process was signalled.
    fn signal_all(&self, signal: Signal) -> Result<bool> {
        if !has_live_child()? {
            return Ok(false);
        }
        let sent =
            if self.is_pid_1 { signal_namespace(signal) } else { self.signal_started(signal) };
        match sent {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(e) => Err(Error::os(format!("send {signal} to any member of the job"), e)),
        }
    }

    fn signal_started(&self, signal: Signal) -> std::result::Result<(), Errno> {
        let mut result = Err(Errno::SRCH);
        for (pid, pidfd) in self.started() {
            let (pidfd, number) = (pidfd.as_raw_fd(), signal.as_raw());
            // A process that leads no group gets the signal alone.
            let sent = signal_group(pid, pidfd, number)
                .or_else(|_| syscall::pidfd_send_signal(pidfd, number));
            result = result.or(sent);
        }
        result
    }

    /// Kills the other processes of the PID namespace until no child lives.
    fn kill_namespace(&self) -> Result<()> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        let mut pause = Pause::default();
        loop {
            self.signal_all(Signal::KILL)?;
            if self.wait_briefly(&mut pause, Some(deadline))? {
                return Ok(());
            }
            if has_passed(Some(deadline)) {
                return Err(self.cannot("name the members that are still alive"));
            }
        }
    }

    /// Kills the processes that were started.
    fn kill_started(&self) -> Result<()> {
        let deadline = Some(Instant::now() + KILL_TIMEOUT);
        self.signal_all(Signal::KILL)?;
        for (_, pidfd) in self.started() {
            wait_for(&mut [PollFd::new(&pidfd, POLLIN)], deadline);
        }
        match self.wait(Some(Instant::now()))? {
            true => Ok(()),
            false => Err(self.cannot("find the other members, which are still alive")),
        }
    }

    /// Waits until a started process ends, or for a while; returns whether no child lives.
    fn wait_briefly(&self, pause: &mut Pause, deadline: Option<Instant>) -> Result<bool> {
        dropped_children::reap();
        if !has_live_child()? {
            return Ok(true);
        }
        let started = self.started();
        let mut fds: Vec<_> = started.iter().map(|(_, pidfd)| PollFd::new(pidfd, POLLIN)).collect();
        wait_for(&mut fds, Some(pause.until(deadline)));
        Ok(!has_live_child()?)
    }
}

/// No descriptor becomes ready when an orphan ends, and the caller may handle SIGCHLD itself: so the
/// children are looked at again after a growing time.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Pause(Duration::from_millis(1))
    }
}

impl Pause {
    const LONGEST: Duration = Duration::from_millis(64);

    fn until(&mut self, deadline: Option<Instant>) -> Instant {
        let until = Instant::now() + self.0;
        self.0 = (2 * self.0).min(Pause::LONGEST);
        deadline.map_or(until, |deadline| until.min(deadline))
    }
}

/// Sends a signal to every process of the PID namespace but this one, which is its PID 1.
fn signal_namespace(signal: Signal) -> std::result::Result<(), Errno> {
    // SAFETY: `signal` is one that our own type knows, real-time ones included.
    let signal = unsafe { rustix::process::Signal::from_raw_unchecked(signal.as_raw()) };
    // The "group" of PID 1 is kill(-1).
    kill_process_group(Pid::INIT, signal).map_err(|e| Errno(e.raw_os_error()))
}

impl Stoppable for Unlisted {
    fn terminate(&self, signal: Signal) -> Result<usize> {
        let signaled = self.signal(signal);
        let _ = self.signal_all(Signal::CONT);
        match signaled {
            // No member may be signalled by this user: the kill reports it.
            Err(error) if error.is_permission_denied() => Ok(0),
            signaled => signaled,
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        let mut pause = Pause::default();
        loop {
            if has_passed(deadline) {
                dropped_children::reap();
                return Ok(!has_live_child()?);
            }
            if self.wait_briefly(&mut pause, deadline)? {
                return Ok(true);
            }
        }
    }

    fn kill(&self) -> Result<()> {
        if self.is_pid_1 { self.kill_namespace() } else { self.kill_started() }
    }
}

impl Backend for Unlisted {
    fn guarantees(&self) -> Guarantees {
        let (containment, kill, owner_death) = match self.is_pid_1 {
            true => (Containment::Tracked, Kill::Converging, OwnerDeath::Kernel),
            false => (Containment::Grouped, Kill::BestEffort, OwnerDeath::None),
        };
        Guarantees {
            mechanism: Mechanism::Subreaper,
            containment,
            kill,
            owner_death,
            // Capabilities are read in `/proc`.
            crosses_setuid: false,
            freeze: Freeze::None,
            cpu_accounting: Accounting::None,
            memory_accounting: Accounting::None,
            io_accounting: Accounting::None,
            limits: Resources::NONE,
            spawned_by_guard: false,
            reaps_orphans: true,
        }
    }

    fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
        let child = spawn_local(command, None, ChildMemory::Shared)?;
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.push(child.sys().downgrade());
        Ok(child)
    }

    fn join_on_exec(&self, _: &mut std::process::Command) -> Result<()> {
        Ok(())
    }

    fn processes(&self) -> Result<Vec<Process>> {
        Err(self.cannot("list the members of the job"))
    }

    fn pids(&self) -> Result<Vec<u32>> {
        Err(self.cannot("list the members of the job"))
    }

    /// The processes that `kill(-1)` reaches are not counted: 1 stands for at least one.
    fn signal(&self, signal: Signal) -> Result<usize> {
        self.signal_all(signal).map(usize::from)
    }

    fn stats(&self) -> Result<Stats> {
        Err(self.cannot("read what the members have used"))
    }

    fn release(&mut self) -> Result<()> {
        self.is_released = true;
        Ok(())
    }

    fn close(&mut self) {
        if !self.is_released {
            let _ = self.kill();
        }
    }
}
