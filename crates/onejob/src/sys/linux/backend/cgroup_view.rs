//! A Cgroup job of another process.
//!
//! It needs nothing from the owner: the cgroups are found by their names, and the kernel decides what this
//! process may do with them. Cgroups that were emptied stay, because the owner removes them.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use super::{cgroup_guarantees, errors};
use crate::{
    Accounting, Command, Error, Guarantees, Kill, Limits, OwnerDeath, Process, ProcessId,
    Resources, Result, Signal, Snapshot, Stats, StopReason,
    stop::Stoppable,
    sys::{
        Backend, Freezer, JobRecord, LimitControl,
        linux::{
            cgroup::{
                adopt::adopt,
                controllers,
                dir::{is_removed, means_removed, open_cgroup},
                members::Members,
                names::{NamedCgroup, cgroups_of},
                wait::Pauses,
            },
            deadline::{KILL_TIMEOUT, has_passed, wait_for},
            nostd::{
                cgroup::{self as nostd_cgroup, Events},
                syscall::{POLLIN, PollFd},
            },
            process::privilege,
            registry::{Record, RecordWatch},
            spawn::{join::join_cgroup_on_exec, local::spawn_local},
        },
    },
};

pub(crate) struct View {
    record: Record,
    job_root: OwnedFd,
}

impl View {
    pub(crate) fn new(record: Record) -> Result<View> {
        let path = record.header.base.as_deref().unwrap_or("".as_ref());
        let job_root = open_cgroup(path).map_err(|e| {
            Error::os(format!("find the cgroups of job {} in {}", record.id(), path.display()), e)
        })?;
        Ok(View { record, job_root })
    }

    /// The cgroups of the job at this moment.
    fn cgroups(&self) -> Result<Vec<NamedCgroup>> {
        cgroups_of(self.job_root.as_fd(), self.record.id())
            .map_err(|e| Error::os(format!("find the cgroups of job {}", self.record.id()), e))
    }

    /// The same; an error if the job has ended.
    fn live_cgroups(&self) -> Result<Vec<NamedCgroup>> {
        if self.record.is_over() {
            return Err(Error::stale(format!("the job {} has ended", self.record.id())));
        }
        self.cgroups()
    }

    /// The cgroup for new members.
    fn current(&self) -> Result<OwnedFd> {
        let latest = self.live_cgroups()?.pop().map(|(_, dir)| dir);
        latest.ok_or_else(|| {
            Error::unsupported(format!(
                "the owner of job {} has killed all members and has not started another one",
                self.record.id()
            ))
            .with_hint("wait until its owner has started a member")
        })
    }

    /// The same, unless it is frozen.
    fn thawed(&self) -> Result<OwnedFd> {
        let current = self.current()?;
        match Members(vec![current.as_fd()]).are_frozen()? {
            true => Err(errors::frozen()),
            false => Ok(current),
        }
    }

    /// A member besides this process, to wait for its end; `None` if there is none.
    fn watched_member(&self) -> Result<Option<Watched>> {
        let cgroups = self.cgroups()?;
        if !contains_caller(&cgroups)? {
            return populated(&cgroups).map(|events| events.map(Watched::Cgroup));
        }
        let members = Members::of(&cgroups);
        let others = members.others()?;
        match members.first_held(&others)? {
            Some(pidfd) => Ok(Some(Watched::Process(pidfd))),
            None if others.is_empty() => Ok(None),
            None => Ok(Some(Watched::Unknown)),
        }
    }

    /// `cgroup.kill` would also kill this process: kills the other members one by one until none is left.
    fn kill_others(&self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < KILL_TIMEOUT {
            let cgroups = self.cgroups()?;
            let members = Members::of(&cgroups);
            let others = members.others()?;
            if others.is_empty() {
                return Ok(());
            }
            members.signal(Signal::KILL)?;
            let first = members.held(&others[..1])?.pop();
            let first = first.as_ref().map(|(_, pidfd)| pidfd);
            let soon = Instant::now() + Duration::from_millis(50);
            wait_for(&mut [PollFd::maybe(first, POLLIN)], Some(soon));
        }
        let mut survivors = Members::of(&self.cgroups()?).list()?;
        survivors.retain(|process| !process.is_caller);
        Err(Error::still_alive(survivors, start.elapsed()))
    }
}

/// The object whose end is waited for.
enum Watched {
    Cgroup(Events),
    Process(OwnedFd),
    /// A process that has ended meanwhile.
    Unknown,
}

impl Watched {
    fn poll_fd(&self) -> PollFd<'_> {
        match self {
            Watched::Cgroup(events) => events.poll_fd(),
            Watched::Process(pidfd) => PollFd::new(pidfd, POLLIN),
            Watched::Unknown => PollFd::NONE,
        }
    }
}

/// Whether the calling process is a member.
fn contains_caller(cgroups: &[NamedCgroup]) -> Result<bool> {
    Ok(Members::of(cgroups).pids()?.contains(&std::process::id()))
}

/// The events of the first cgroup with members.
fn populated(cgroups: &[NamedCgroup]) -> Result<Option<Events>> {
    for (_, dir) in cgroups {
        let events = Events::open(dir.as_raw_fd());
        match events.and_then(|events| Ok((events.is(b"populated 0")?, events))) {
            Ok((true, _)) => {}
            Ok((false, events)) => return Ok(Some(events)),
            Err(errno) if means_removed(errno) => {}
            Err(errno) => return Err(Error::os("watch the cgroup of the job", errno)),
        }
    }
    Ok(None)
}

/// Thaws a cgroup unless it has been removed.
fn thaw_emptied(cgroup: BorrowedFd<'_>) {
    let members = Members(vec![cgroup]);
    if members.are_frozen().unwrap_or(true) {
        let _ = members.set_frozen(false);
    }
}

impl Stoppable for View {
    fn terminate(&self, signal: Signal) -> Result<usize> {
        let signaled = match self.signal(signal) {
            Err(error) if error.is_permission_denied() => 0,
            signaled => signaled?,
        };
        let _ = self.signal(Signal::CONT);
        Members::of(&self.cgroups()?).set_frozen(false)?;
        Ok(signaled)
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        let watch = RecordWatch::new(&self.record)?.also(self.job_root.as_fd())?;
        let mut pauses = Pauses::new();
        loop {
            if self.record.is_over() || watch.finish_if_abandoned(&self.record) {
                return Ok(true);
            }
            let Some(watched) = self.watched_member()? else { return Ok(true) };
            if has_passed(deadline) {
                return Ok(false);
            }
            let until = match watched {
                Watched::Unknown => pauses.next(deadline),
                _ => deadline,
            };
            watch.wait(vec![watched.poll_fd()], until);
        }
    }

    fn kill(&self) -> Result<()> {
        let cgroups = self.cgroups()?;
        if contains_caller(&cgroups)? {
            return self.kill_others();
        }
        let start = Instant::now();
        if let [_, _, ..] = cgroups[..] {
            // All are killed before the first wait: a member that cannot die delays no other.
            for (_, dir) in &cgroups {
                let _ = nostd_cgroup::kill(dir.as_raw_fd());
            }
        }
        for (name, dir) in &cgroups {
            let emptied = nostd_cgroup::empty(dir.as_fd().into(), KILL_TIMEOUT.as_millis() as i32)
                .map_err(|e| Error::os(format!("end the cgroup {name:?}"), e))?;
            if !emptied {
                let survivors = Members(vec![dir.as_fd()]).list()?;
                return Err(Error::still_alive(survivors, start.elapsed()));
            }
            // It takes new members from now on, even if it was frozen when it was killed.
            thaw_emptied(dir.as_fd());
        }
        Ok(())
    }

    fn limit_reached(&self) -> Result<Option<StopReason>> {
        Members::of(&self.cgroups()?).limit_reached(Stats::default())
    }
}

impl Backend for View {
    fn guarantees(&self) -> Guarantees {
        let mut promised = cgroup_guarantees::without_limits();
        let is_outside = self.cgroups().and_then(|cgroups| Ok(!contains_caller(&cgroups)?));
        if !is_outside.unwrap_or(false) {
            // A member kills the others one by one, if it may signal them.
            promised.kill = Kill::Converging;
            promised.crosses_setuid = privilege::crosses_users();
        }
        if !self.record.is_guarded() {
            promised.owner_death = OwnerDeath::None;
        }
        // The guard that watches the CPU time takes requests from the owner only.
        promised.limits =
            controllers::enabled_limits(self.job_root.as_fd()).without(Resources::CPU_TIME);
        if promised.limits.contains(Resources::MEMORY) {
            promised.memory_accounting = Accounting::All;
        }
        promised
    }

    fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
        const TRIES: usize = 8;
        let mut spawned = Err(errors::killed_meanwhile());
        for _ in 0..TRIES {
            let current = self.thawed()?;
            let memory = controllers::child_memory(current.as_fd());
            spawned = spawn_local(command, Some(current.as_fd()), memory);
            // Its owner has removed the cgroup meanwhile.
            match &spawned {
                Err(error) if !error.is_exec() && is_removed(current.as_fd()) => {
                    spawned = Err(errors::killed_meanwhile());
                }
                _ => break,
            }
        }
        spawned.map_err(|error| match error.is_permission_denied() && !error.is_exec() {
            true => {
                error.with_hint("this process may not move processes into the cgroup of the job")
            }
            false => error,
        })
    }

    fn join_on_exec(&self, command: &mut std::process::Command) -> Result<()> {
        join_cgroup_on_exec(command, self.thawed()?.as_fd())
    }

    fn adopt(&self, process: &ProcessId) -> Result<()> {
        adopt(self.thawed()?.as_fd(), process)
    }

    fn processes(&self) -> Result<Vec<Process>> {
        Members::of(&self.cgroups()?).list()
    }

    fn pids(&self) -> Result<Vec<u32>> {
        Members::of(&self.cgroups()?).pids()
    }

    fn signal(&self, signal: Signal) -> Result<usize> {
        Members::of(&self.cgroups()?).signal(signal)
    }

    fn record(&self) -> Option<&dyn JobRecord> {
        Some(&self.record)
    }

    fn stats(&self) -> Result<Stats> {
        let cgroups = self.cgroups()?;
        let members = Members::of(&cgroups);
        Ok(Stats { processes: members.pids()?.len(), ..members.usage()? })
    }

    fn snapshot(&self) -> Result<Snapshot> {
        Members::of(&self.cgroups()?).snapshot(Duration::ZERO)
    }

    fn release(&mut self) -> Result<()> {
        Err(errors::not_owner())
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
    /// Without the limit on the total CPU time, which no file of the cgroup has.
    fn get(&self) -> Result<Limits> {
        controllers::read(self.current()?.as_fd())
    }

    /// The owner reads them from the files, and sets them for the next cgroup of the job.
    fn set(&self, limits: &Limits) -> Result<()> {
        let current = self.current()?;
        let missing = limits.resources().without(self.guarantees().limits);
        if !missing.is_empty() {
            return Err(Error::unsupported(format!("cannot limit {missing} of this job"))
                .with_hint(
                    "the controllers must be available to the owner of the job; only the owner can \
                     set a limit on the total CPU time",
                ));
        }
        controllers::write(current.as_fd(), &controllers::read(current.as_fd())?, limits)
    }
}

impl Freezer for View {
    fn freeze(&self) -> Result<()> {
        let cgroups = self.live_cgroups()?;
        if contains_caller(&cgroups)? {
            return Err(errors::freezes_caller());
        }
        Members::of(&cgroups).set_frozen(true)
    }

    fn thaw(&self) -> Result<()> {
        Members::of(&self.live_cgroups()?).set_frozen(false)
    }
}
