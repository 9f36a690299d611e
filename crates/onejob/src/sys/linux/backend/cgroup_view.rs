//! A Cgroup job as another process sees it.
//!
//! All it does is the kernel's to grant, without the owner: the cgroups are found by their names.
//! They stay in place when they are emptied, since their end is the owner's to see.

use std::{
    ffi::CString,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use crate::{
    Accounting, Command, Error, Guarantees, Kill, Limits, OwnerDeath, Process, ProcessId,
    Resources, Result, Signal, Stats, StopReason,
    stop::Stoppable,
    sys::{
        Backend, Freezer, JobRecord, LimitControl,
        linux::{
            cgroup::{
                controllers,
                members::{self, Members, Pauses},
                root::{self, is_gone},
            },
            deadline::{KILL_TIMEOUT, has_passed, wait_for},
            nostd::{
                cgroup::{self as floor, Events},
                syscall::{POLLIN, PollFd},
            },
            process::privilege,
            registry::{Record, RecordWatch},
            spawn::local,
        },
    },
};

pub(crate) struct View {
    record: Record,
    base: OwnedFd,
    guarantees: Guarantees,
}

impl View {
    /// `guarantees` are those of every job in cgroups, without limits.
    pub(crate) fn new(record: Record, guarantees: Guarantees) -> Result<View> {
        let base = record.header.base.as_deref().unwrap_or("".as_ref());
        let base = root::open_base(base).map_err(|e| {
            Error::os(format!("find the cgroups of job {} in {}", record.id(), base.display()), e)
        })?;
        Ok(View { record, base, guarantees })
    }

    /// The cgroups of the job, as they are now.
    fn cgroups(&self) -> Result<Vec<(CString, OwnedFd)>> {
        root::cgroups_of(self.base.as_fd(), self.record.id())
            .map_err(|e| Error::os(format!("find the cgroups of job {}", self.record.id()), e))
    }

    /// Those of a job that is not over.
    fn live_cgroups(&self) -> Result<Vec<(CString, OwnedFd)>> {
        if self.record.is_over() {
            return Err(Error::stale(format!("the job {} has ended", self.record.id())));
        }
        self.cgroups()
    }

    /// The one that takes new members.
    fn current(&self) -> Result<OwnedFd> {
        let latest = self.live_cgroups()?.pop().map(|(_, dir)| dir);
        latest.ok_or_else(|| {
            Error::unsupported(format!("job {} was emptied by its owner", self.record.id()))
                .with_hint("only its owner can start the next member")
        })
    }

    /// The same, unless it is frozen.
    fn thawed(&self) -> Result<OwnedFd> {
        let current = self.current()?;
        match Members(vec![current.as_fd()]).are_frozen()? {
            true => Err(members::frozen_error()),
            false => Ok(current),
        }
    }

    /// Somebody besides us, to be waited for.
    fn watched_member(&self) -> Result<Option<Watched>> {
        let cgroups = self.cgroups()?;
        if !holds_us(&cgroups)? {
            return populated(&cgroups).map(|events| events.map(Watched::In));
        }
        let members = members_of(&cgroups);
        let others = members.others()?;
        match members.first_held(&others)? {
            Some(pidfd) => Ok(Some(Watched::Is(pidfd))),
            None if others.is_empty() => Ok(None),
            None => Ok(Some(Watched::NotHeld)),
        }
    }

    /// The kernel would kill us, too: everybody else one by one, until nobody is left.
    fn kill_others(&self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < KILL_TIMEOUT {
            let cgroups = self.cgroups()?;
            let members = members_of(&cgroups);
            let others = members.others()?;
            if others.is_empty() {
                return Ok(());
            }
            members.signal(Signal::KILL)?;
            let first = members.held(&others[..1])?.pop();
            let first = first.as_ref().map_or(-1, |(_, pidfd)| pidfd.as_raw_fd());
            let soon = Instant::now() + Duration::from_millis(50);
            wait_for(&mut [PollFd::new(first, POLLIN)], Some(soon));
        }
        let mut survivors = members_of(&self.cgroups()?).list()?;
        survivors.retain(|process| !process.is_caller);
        Err(Error::still_alive(survivors, start.elapsed()))
    }
}

/// Whose end is waited for.
enum Watched {
    In(Events),
    Is(OwnedFd),
    /// A process that has ended since, or that could not be opened.
    NotHeld,
}

impl Watched {
    fn poll_fd(&self) -> PollFd {
        match self {
            Watched::In(events) => events.poll_fd(),
            Watched::Is(pidfd) => PollFd::new(pidfd.as_raw_fd(), POLLIN),
            Watched::NotHeld => PollFd::new(-1, 0),
        }
    }
}

fn members_of(cgroups: &[(CString, OwnedFd)]) -> Members<'_> {
    Members(cgroups.iter().map(|(_, dir)| dir.as_fd()).collect())
}

/// Whether the calling process is a member.
fn holds_us(cgroups: &[(CString, OwnedFd)]) -> Result<bool> {
    Ok(members_of(cgroups).pids()?.contains(&std::process::id()))
}

/// What tells of a change in the first cgroup with members.
fn populated(cgroups: &[(CString, OwnedFd)]) -> Result<Option<Events>> {
    for (_, dir) in cgroups {
        let events = Events::open(dir.as_raw_fd());
        match events.and_then(|events| Ok((events.is(b"populated 0")?, events))) {
            Ok((true, _)) => {}
            Ok((false, events)) => return Ok(Some(events)),
            Err(errno) if is_gone(errno) => {}
            Err(errno) => return Err(Error::os("watch the cgroup of the job", errno)),
        }
    }
    Ok(None)
}

/// A cgroup that has gone meanwhile needs no thaw.
fn thaw_emptied(cgroup: BorrowedFd<'_>) {
    let members = Members(vec![cgroup]);
    if members.are_frozen().unwrap_or(true) {
        let _ = members.set_frozen(false);
    }
}

impl Stoppable for View {
    fn terminate(&self, signal: Signal) -> Result<usize> {
        let asked = match self.signal(signal) {
            Err(error) if error.is_permission_denied() => 0,
            answer => answer?,
        };
        let _ = self.signal(Signal::CONT);
        members_of(&self.cgroups()?).set_frozen(false)?;
        Ok(asked)
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        let watch = RecordWatch::new(&self.record)?.also(self.base.as_fd())?;
        let mut pauses = Pauses::new();
        loop {
            if self.record.is_over() || watch.finish_if_abandoned(&self.record) {
                return Ok(true);
            }
            let Some(somebody) = self.watched_member()? else { return Ok(true) };
            if has_passed(deadline) {
                return Ok(false);
            }
            let until = match somebody {
                Watched::NotHeld => pauses.next(deadline),
                _ => deadline,
            };
            watch.wait(vec![somebody.poll_fd()], until);
        }
    }

    fn kill(&self) -> Result<()> {
        let cgroups = self.cgroups()?;
        if holds_us(&cgroups)? {
            return self.kill_others();
        }
        let start = Instant::now();
        if let [_, _, ..] = cgroups[..] {
            // One with a member that cannot die keeps no other alive.
            for (_, dir) in &cgroups {
                let _ = floor::kill(dir.as_raw_fd());
            }
        }
        for (name, dir) in &cgroups {
            let emptied = floor::empty(dir.as_raw_fd(), KILL_TIMEOUT.as_millis() as i32)
                .map_err(|e| Error::os(format!("end the cgroup {name:?}"), e))?;
            if !emptied {
                let survivors = Members(vec![dir.as_fd()]).list()?;
                return Err(Error::still_alive(survivors, start.elapsed()));
            }
            // It takes new members from now on, also if those before were killed frozen.
            thaw_emptied(dir.as_fd());
        }
        Ok(())
    }

    fn limit_reached(&self) -> Option<StopReason> {
        let cgroups = self.cgroups().unwrap_or_default();
        members_of(&cgroups).limit_reached(Stats::default())
    }
}

impl Backend for View {
    fn guarantees(&self) -> Guarantees {
        let mut promised = self.guarantees;
        if !self.cgroups().and_then(|cgroups| holds_us(&cgroups)).is_ok_and(|holds| !holds) {
            // One by one, then, and only if they may be signalled.
            promised.kill = Kill::Converging;
            promised.crosses_setuid = privilege::crosses_users();
        }
        if !self.record.is_guarded() {
            promised.owner_death = OwnerDeath::None;
        }
        // The guard that watches CPU time listens to the owner alone.
        promised.limits = root::limits_below(self.base.as_fd()).without(Resources::CPU_TIME);
        if promised.limits.contains(Resources::MEMORY) {
            promised.memory_accounting = Accounting::All;
        }
        promised
    }

    fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
        const TRIES: usize = 8;
        let mut spawned = Err(members::killed_meanwhile());
        for _ in 0..TRIES {
            let current = self.thawed()?;
            let memory = controllers::memory_of_a_child(current.as_fd());
            spawned = local::local(command, Some(current.as_fd()), memory);
            // Removed by its owner since we looked for the cgroup.
            match &spawned {
                Err(error) if !error.is_exec() && root::is_removed(current.as_fd()) => {
                    spawned = Err(members::killed_meanwhile());
                }
                _ => break,
            }
        }
        spawned.map_err(|error| match error.is_permission_denied() && !error.is_exec() {
            true => {
                error.with_hint("from here we may not put processes into the cgroup of the job")
            }
            false => error,
        })
    }

    fn join_on_exec(&self, command: &mut std::process::Command) -> Result<()> {
        local::join_on_exec(command, self.thawed()?.as_fd())
    }

    fn adopt(&self, process: &ProcessId) -> Result<()> {
        members::adopt(self.thawed()?.as_fd(), process)
    }

    fn processes(&self) -> Result<Vec<Process>> {
        members_of(&self.cgroups()?).list()
    }

    fn pids(&self) -> Result<Vec<u32>> {
        members_of(&self.cgroups()?).pids()
    }

    fn signal(&self, signal: Signal) -> Result<usize> {
        members_of(&self.cgroups()?).signal(signal)
    }

    fn record(&self) -> Option<&dyn JobRecord> {
        Some(&self.record)
    }

    fn stats(&self) -> Result<Stats> {
        let cgroups = self.cgroups()?;
        let members = members_of(&cgroups);
        Ok(Stats { processes: members.pids()?.len(), ..members.usage()? })
    }

    fn release(&mut self) -> Result<()> {
        Err(members::not_owner_error())
    }

    fn close(&mut self) {}

    fn limits(&self) -> Option<&dyn LimitControl> {
        Some(self)
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        Some(self)
    }
}

impl LimitControl for View {
    /// But for the one of CPU time, which the kernel does not know.
    fn get(&self) -> Result<Limits> {
        controllers::read(self.current()?.as_fd())
    }

    /// The owner reads them where they are written, and gives them to the next cgroup.
    fn set(&self, limits: &Limits) -> Result<()> {
        let current = self.current()?;
        let lacking = limits.resources().without(self.guarantees().limits);
        if !lacking.is_empty() {
            return Err(Error::unsupported(format!(
                "this job cannot be limited in {lacking} by us"
            ))
            .with_hint(
                "what its owner cannot have is not to be had, and CPU time is its own to set",
            ));
        }
        controllers::write(current.as_fd(), &controllers::read(current.as_fd())?, limits)
    }
}

impl Freezer for View {
    fn freeze(&self) -> Result<()> {
        let cgroups = self.live_cgroups()?;
        if holds_us(&cgroups)? {
            return Err(members::freezes_caller_error());
        }
        members_of(&cgroups).set_frozen(true)
    }

    fn thaw(&self) -> Result<()> {
        members_of(&self.live_cgroups()?).set_frozen(false)
    }
}
