//! The Cgroup mechanism: the kernel holds the job together.
//!
//! A job is one cgroup below ours, its name starting with the prefix the guards look for. A kill
//! makes it unusable (see `docs/gotchas.md`, "born dead"), so the next member is put into a fresh
//! one; an enclosed job moves the caller to a fresh one first and then kills the others.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::fs::{Mode, OFlags, XattrFlags, fsetxattr};

use super::{
    PATIENCE,
    below::Reached,
    child::reap_unwaited,
    floor::{
        call::{self, Errno, POLLIN, PollFd},
        cgroup::{self as floor, Events, RELEASED},
        proc::{self, Proc},
    },
    hierarchy::{self, Base, is_gone, read_text, write_text},
    identity, is_past, milliseconds_until, spawn, wait_for,
};
use crate::{
    Accounting, Command, Error, Guarantees, Limits, OwnerDeath, Process, ProcessId, Resources,
    Result, Signal, Stats, job::Around, name::Name, stop::Stoppable, sys::Mechanism,
};

pub(crate) struct Cgroup {
    base: Arc<Base>,
    around: Around,
    /// The cgroups in use: the last one takes new members; others are being ended or are frozen
    /// around a caller who has left them.
    cgroups: Mutex<Vec<Arc<hierarchy::Cgroup>>>,
    frozen: AtomicBool,
    /// What the members of ended cgroups had used.
    spent: Mutex<Stats>,
    limits: Mutex<Limits>,
    released: bool,
}

impl Cgroup {
    pub(super) fn new(around: Around, limits: &Limits) -> Result<Cgroup> {
        let base = Base::current()?;
        base.enable(limits.resources())?;
        let first = Arc::new(make(&base, limits)?);
        let job = Cgroup {
            base,
            around,
            cgroups: Mutex::new(vec![first.clone()]),
            frozen: AtomicBool::new(false),
            spent: Mutex::default(),
            limits: Mutex::new(*limits),
            released: false,
        };
        if around == Around::Caller
            && let Err(error) = job.move_caller_to(&first)
        {
            let _ = job.end(&job.take());
            return Err(error);
        }
        Ok(job)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<hierarchy::Cgroup>>> {
        self.cgroups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<hierarchy::Cgroup>> {
        self.lock().clone()
    }

    fn take(&self) -> Vec<Arc<hierarchy::Cgroup>> {
        std::mem::take(&mut self.lock())
    }

    /// The cgroup for new members, made anew if the last one was killed.
    fn current(&self) -> Result<Arc<hierarchy::Cgroup>> {
        let mut cgroups = self.lock();
        if let Some(current) = cgroups.last() {
            return Ok(current.clone());
        }
        let fresh = Arc::new(self.make()?);
        cgroups.push(fresh.clone());
        Ok(fresh)
    }

    fn make(&self) -> Result<hierarchy::Cgroup> {
        make(&self.base, &self.limits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn move_caller_to(&self, cgroup: &hierarchy::Cgroup) -> Result<()> {
        write_text(cgroup.dir.as_fd(), "cgroup.procs", "0")
            .map_err(|e| Error::os("move this process into the cgroup of its job", e))
    }

    /// Takes the caller of an enclosed job out to a fresh cgroup; answers those it left.
    fn step_out(&self) -> Result<Vec<Arc<hierarchy::Cgroup>>> {
        // Locked first: limits set meanwhile are for the fresh one, too.
        let mut cgroups = self.lock();
        let fresh = Arc::new(self.make()?);
        let left = cgroups.clone();
        self.move_caller_to(&fresh)?;
        cgroups.push(fresh);
        Ok(left)
    }

    /// Kills, waits and removes; the first that could not be emptied is an error with its members.
    fn end(&self, cgroups: &[Arc<hierarchy::Cgroup>]) -> Result<()> {
        let start = Instant::now();
        for cgroup in cgroups {
            let patience = PATIENCE.as_millis() as i32;
            let base = self.base.dir().as_raw_fd();
            let ended = floor::end(base, &cgroup.name, patience)
                .map_err(|e| Error::os(format!("end the cgroup {:?}", cgroup.name), e))?;
            if !ended {
                let survivors = self.list(&members_of(cgroup.dir.as_fd()), None);
                return Err(Error::still_alive(survivors, start.elapsed()));
            }
            self.lock().retain(|kept| !Arc::ptr_eq(kept, cgroup));
            cgroup.has_ended();
        }
        Ok(())
    }

    fn remember_use(&self, cgroup: &hierarchy::Cgroup) {
        // After the kill the members' last moments would be missing anyway; a few microseconds.
        let used = usage(cgroup.dir.as_fd());
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        *spent = sum(*spent, used);
    }

    /// Everybody in the job, the caller of an enclosed one too.
    fn members(&self) -> Vec<u32> {
        self.all().iter().flat_map(|cgroup| members_of(cgroup.dir.as_fd())).collect()
    }

    fn others(&self) -> Vec<u32> {
        let me = std::process::id();
        self.members().into_iter().filter(|pid| *pid != me).collect()
    }

    fn list(&self, pids: &[u32], proc: Option<&Proc>) -> Vec<Process> {
        let describe = |pid: &u32| {
            let pidfd = identity::pidfd_open(*pid).ok()?;
            Some(identity::describe(*pid, pidfd.as_fd(), proc))
        };
        pids.iter().filter_map(describe).collect()
    }

    /// Opens pidfds of the others and keeps those who are still listed afterwards: whoever has such
    /// a number now is a member, and a pidfd of somebody before it reaches nobody.
    fn held(&self, pids: &[u32]) -> Vec<(u32, OwnedFd)> {
        let open = |pid: &u32| Some((*pid, identity::pidfd_open(*pid).ok()?));
        let mut held: Vec<_> = pids.iter().filter_map(open).collect();
        let mut listed = self.others();
        listed.sort_unstable();
        held.retain(|(pid, _)| listed.binary_search(pid).is_ok());
        held
    }

    /// Without the caller the kernel's own word on emptiness is enough.
    fn wait_populated(&self, deadline: Option<Instant>) -> Result<bool> {
        for cgroup in self.all() {
            let waited = wait_until_empty(&cgroup, deadline);
            match waited {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(errno) if is_gone(errno) => {}
                Err(errno) => return Err(Error::os("watch the cgroup of the job", errno)),
            }
        }
        Ok(true)
    }

    /// The caller is in there: wait for one of the others after the other.
    fn wait_others(&self, deadline: Option<Instant>) -> Result<bool> {
        loop {
            reap_unwaited();
            let others = self.others();
            if others.is_empty() {
                return Ok(true);
            }
            let first = others.iter().find_map(|pid| self.held(&[*pid]).pop());
            if is_past(deadline) {
                return Ok(first.is_none() && self.others().is_empty());
            }
            if let Some((_, pidfd)) = first {
                wait_for(&mut [PollFd::new(pidfd.as_raw_fd(), POLLIN)], deadline);
            }
        }
    }

    fn set_frozen(&self, cgroups: &[Arc<hierarchy::Cgroup>], frozen: bool) -> Result<()> {
        let what = if frozen { "freeze the job" } else { "thaw the job" };
        let (word, event): (_, &[u8]) =
            if frozen { ("1", b"frozen 1") } else { ("0", b"frozen 0") };
        for cgroup in cgroups {
            let dir = cgroup.dir.as_fd();
            write_text(dir, "cgroup.freeze", word).map_err(|e| Error::os(what, e))?;
            let events = Events::open(dir.as_raw_fd()).map_err(|e| Error::os(what, e))?;
            let deadline = Instant::now() + PATIENCE;
            while !events.is(event).map_err(|e| Error::os(what, e))? {
                if is_past(Some(deadline)) {
                    let slow = io::Error::from(io::ErrorKind::TimedOut);
                    return Err(Error::os(what, slow).hint("a member is stuck in the kernel"));
                }
                events.wait(milliseconds_until(Some(deadline)));
            }
        }
        Ok(())
    }
}

/// A fresh cgroup with these limits.
fn make(base: &Base, limits: &Limits) -> Result<hierarchy::Cgroup> {
    let cgroup = base.make()?;
    match cgroup.set_limits(&Limits::default(), limits) {
        Ok(()) => Ok(cgroup),
        Err(error) => {
            let _ = call::rmdirat(base.dir().as_raw_fd(), &cgroup.name);
            Err(error)
        }
    }
}

/// Waits for the kernel to say that nobody is in a cgroup.
fn wait_until_empty(
    cgroup: &hierarchy::Cgroup,
    deadline: Option<Instant>,
) -> std::result::Result<bool, Errno> {
    let events = Events::open(cgroup.dir.as_raw_fd())?;
    loop {
        reap_unwaited();
        if events.is(b"populated 0")? {
            return Ok(true);
        }
        if is_past(deadline) {
            return Ok(false);
        }
        wait_for(&mut [events.poll_fd(), cgroup.end_poll_fd()], deadline);
    }
}

/// The members of a cgroup and of everything below it; numbers that are none here (members from
/// outside our PID namespace) are left out.
fn members_of(cgroup: BorrowedFd<'_>) -> Vec<u32> {
    let mut members = Vec::new();
    collect(cgroup.as_raw_fd(), &mut members, 0);
    members
}

fn collect(cgroup: i32, members: &mut Vec<u32>, depth: usize) {
    if let Ok(file) = call::openat(cgroup, c"cgroup.procs", 0) {
        let _ = proc::read_numbers(&file, &mut |pid| {
            members.extend(u32::try_from(pid).ok().filter(|pid| *pid != 0));
        });
    }
    let Ok(listing) = call::openat(cgroup, c".", call::O_DIRECTORY) else { return };
    let mut below = Vec::new();
    let _ = proc::entries(&listing, &mut |name: &CStr, is_dir| {
        if is_dir && !name.to_bytes().starts_with(b".") {
            below.push(name.to_owned());
        }
    });
    const DEEPEST: usize = 200;
    for name in below.iter().filter(|_| depth < DEEPEST) {
        if let Ok(deeper) = floor::open(cgroup, name) {
            collect(deeper.raw(), members, depth + 1);
        }
    }
}

/// What `cpu.stat` and, with the memory controller, `memory.peak` say.
fn usage(cgroup: BorrowedFd<'_>) -> Stats {
    let cpu = read_text(cgroup, "cpu.stat").unwrap_or_default();
    let microseconds = |key: &str| {
        let value = cpu.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        value.map(Duration::from_micros)
    };
    let peak = read_text(cgroup, "memory.peak").ok();
    Stats {
        cpu_user: microseconds("user_usec "),
        cpu_system: microseconds("system_usec "),
        memory_peak: peak.and_then(|text| text.trim().parse().ok()),
        processes: 0,
    }
}

fn sum(a: Stats, b: Stats) -> Stats {
    let add = |a: Option<Duration>, b: Option<Duration>| match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    };
    Stats {
        cpu_user: add(a.cpu_user, b.cpu_user),
        cpu_system: add(a.cpu_system, b.cpu_system),
        memory_peak: a.memory_peak.max(b.memory_peak),
        processes: a.processes + b.processes,
    }
}

impl Stoppable for Cgroup {
    fn ask(&self, signal: Signal) -> Result<usize> {
        let asked = match self.signal(signal) {
            // Nobody lets us: the kill will do without.
            Err(error) if error.is_permission_denied() => 0,
            answer => answer?,
        };
        let _ = self.signal(Signal::CONT);
        self.thaw()?;
        Ok(asked)
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        match self.around {
            Around::Others => self.wait_populated(deadline),
            Around::Caller => self.wait_others(deadline),
        }
    }

    fn kill(&self) -> Result<()> {
        let cgroups = match self.around {
            Around::Others => self.all(),
            Around::Caller => self.step_out()?,
        };
        cgroups.iter().for_each(|cgroup| self.remember_use(cgroup));
        self.end(&cgroups)?;
        self.frozen.store(false, Ordering::Relaxed);
        reap_unwaited();
        Ok(())
    }
}

impl Mechanism for Cgroup {
    fn guarantees(&self) -> Guarantees {
        let mut promised = super::promise(crate::Mechanism::Cgroup, self.around);
        if !self.base.guards().stand() {
            promised.owner_death = OwnerDeath::None;
        }
        if self.base.limits().contains(Resources::MEMORY) {
            promised.memory_accounting = Accounting::Everyone;
        }
        promised
    }

    fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
        if self.frozen.load(Ordering::Relaxed) {
            // A child born frozen never gets to its program, and we would wait for that.
            return Err(
                Error::unsupported("a frozen job cannot take new members").hint("thaw it first")
            );
        }
        const TRIES: usize = 8;
        let mut spawned = Err(Error::os("start a process", io::Error::from(Errno::NODEV)));
        for _ in 0..TRIES {
            let current = self.current()?;
            spawned = spawn::local(command, Some(current.dir.as_fd()));
            let gone = spawned.as_ref().err().filter(|error| !error.is_exec());
            let gone = gone.and_then(Error::raw_os_error).map(Errno);
            // Killed and removed between our look and the clone: the next one is fresh.
            if gone != Some(Errno::NODEV) {
                break;
            }
            self.lock().retain(|kept| !Arc::ptr_eq(kept, &current));
        }
        spawned
    }

    fn join_on_exec(&self, command: &mut std::process::Command) -> Result<()> {
        use std::os::unix::process::CommandExt as _;
        let current = self.current()?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let procs = rustix::fs::openat(&current.dir, "cgroup.procs", flags, Mode::empty())
            .map_err(|e| Error::os("open the cgroup of the job", e))?;
        let join = move || Ok(call::write(procs.as_raw_fd(), b"0").map(drop)?);
        // SAFETY: one write, which is async-signal-safe.
        unsafe { command.pre_exec(join) };
        Ok(())
    }

    fn adopt(&self, process: &ProcessId) -> Result<()> {
        if process.pid == 1 {
            return Err(Error::invalid("process 1 cannot be a member of a job"));
        }
        let pidfd = identity::reopen(process)?;
        let current = self.current()?;
        let pid = process.pid;
        write_text(current.dir.as_fd(), "cgroup.procs", &pid.to_string()).map_err(|e| {
            if e.raw_os_error() == Some(Errno::SRCH.0) {
                return Error::stale(format!("process {pid} is gone"));
            }
            Error::os(format!("move process {pid} into the cgroup of the job"), e)
        })?;
        if call::pidfd_send_signal(pidfd.as_raw_fd(), 0) != Err(Errno::SRCH) {
            // It was there all the time, so it was it that was moved.
            return Ok(());
        }
        self.give_back(pid, &current);
        Err(Error::stale(format!("process {pid} is gone")))
    }

    fn processes(&self) -> Result<Vec<Process>> {
        let mut listed = self.list(&self.members(), Proc::open().ok().as_ref());
        // A number read there may have been a stranger's by the time it was opened: only who has
        // one that is listed afterwards, too, is shown.
        let mut members = self.members();
        members.sort_unstable();
        listed.retain(|process| members.binary_search(&process.pid()).is_ok());
        Ok(listed)
    }

    fn pids(&self) -> Result<Vec<u32>> {
        Ok(self.members())
    }

    fn signal(&self, signal: Signal) -> Result<usize> {
        // So that descriptors suffice for any job.
        const AT_ONCE: usize = 256;
        const ROUNDS: usize = 16;
        let mut reached = Reached::new(signal);
        for _ in 0..ROUNDS {
            let mut others = self.others();
            others.retain(|pid| !reached.known.contains(&(*pid as i32)));
            if others.is_empty() {
                break;
            }
            for some in others.chunks(AT_ONCE) {
                for (pid, pidfd) in self.held(some) {
                    reached.send(pid as i32, pidfd.as_raw_fd());
                }
            }
        }
        reached.count()
    }

    fn name(&self) -> Option<&Name> {
        None
    }

    fn limits(&self) -> Result<Limits> {
        Ok(*self.limits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_limits(&self, limits: &Limits) -> Result<()> {
        let lacking = limits.resources().without(self.guarantees().limits);
        if !lacking.is_empty() {
            return Err(Error::unsupported(format!("this job cannot be limited in {lacking}"))
                .hint("limits need a job made as root in the root of a pure cgroup v2 hierarchy"));
        }
        self.base.enable(limits.resources())?;
        // Held to the end, so that a cgroup made meanwhile gets the new ones or is among these.
        let cgroups = self.lock();
        let mut set = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        for (done, cgroup) in cgroups.iter().enumerate() {
            if let Err(error) = cgroup.set_limits(&set, limits) {
                for changed in cgroups.iter().take(done + 1) {
                    let _ = changed.set_limits(limits, &set);
                }
                return Err(error);
            }
        }
        *set = *limits;
        Ok(())
    }

    fn freeze(&self) -> Result<()> {
        let cgroups = match self.around {
            Around::Others => {
                self.current()?;
                self.frozen.store(true, Ordering::Relaxed);
                self.all()
            }
            // What the caller starts from now on is not frozen; all others are left behind.
            Around::Caller => self.step_out()?,
        };
        self.set_frozen(&cgroups, true)
    }

    fn thaw(&self) -> Result<()> {
        self.set_frozen(&self.all(), false)?;
        self.frozen.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn stats(&self) -> Result<Stats> {
        let spent = *self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let used = self.all().iter().fold(spent, |all, cgroup| sum(all, usage(cgroup.dir.as_fd())));
        Ok(Stats { processes: self.members().len(), ..used })
    }

    fn release(&mut self) -> Result<()> {
        for cgroup in self.all() {
            fsetxattr(&cgroup.dir, RELEASED, b"", XattrFlags::empty())
                .map_err(|e| Error::os("mark the cgroup of the job as released", e))?;
        }
        self.released = true;
        Ok(())
    }

    fn close(&mut self) {
        let base = self.base.dir().as_raw_fd();
        if self.released {
            // Empty ones go; the others stay until somebody sweeps them, once they are empty.
            for cgroup in self.take() {
                let _ = call::rmdirat(base, &cgroup.name);
            }
            return;
        }
        let go_home = || write_text(self.base.dir(), "cgroup.procs", "0");
        let cgroups = match self.around {
            Around::Caller if go_home().is_err() => {
                // The way back is barred (a controller was enabled there): stay, but alone.
                self.step_out().unwrap_or_default()
            }
            _ => self.all(),
        };
        if self.end(&cgroups).is_err() {
            // Out of descriptors, most likely; the guards have their own.
            cgroups.iter().for_each(|cgroup| self.base.have_ended(cgroup, PATIENCE));
        }
        reap_unwaited();
    }
}

impl Cgroup {
    /// Somebody took the number over just before the move: it goes back to where its parent is,
    /// which is where it was born.
    fn give_back(&self, pid: u32, current: &hierarchy::Cgroup) {
        let moved = members_of(current.dir.as_fd()).contains(&pid);
        let proc = Proc::open().ok().filter(|_| moved);
        let parent = proc.and_then(|proc| proc.stat(pid as i32).ok()).map(|stat| stat.parent);
        let home = parent.and_then(|parent| hierarchy::cgroup_of(parent).ok());
        let home = home.and_then(|path| {
            rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
        });
        if let Some(home) = home {
            let _ = write_text(home.as_fd(), "cgroup.procs", &pid.to_string());
        }
    }
}
