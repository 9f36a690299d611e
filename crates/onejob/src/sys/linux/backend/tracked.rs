//! The common part of the jobs that the Subreaper mechanism holds together: those below a pair of guards
//! and those around their owner.
//!
//! Their members are the processes below a root, found by walking down from it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{errors, spawn_lock::SpawnLock};
use crate::{
    Accounting, Containment, Error, Freeze, Guarantees, Kill, Mechanism, OwnerDeath, Process,
    Resources, Result, Signal, Snapshot, Stats,
    spec::{Enclosure, JobSpec},
    sys::{
        JobRecord,
        linux::{
            nostd::{
                priority::is_crowded_now,
                procfs::Proc,
                syscall::{self, Errno},
            },
            process::{
                cpu_time::cpu_time,
                descendants::{self, Root, StoppedProcess},
                identity, privilege, snapshot,
            },
            registry::{self, Record, RecordHeader},
        },
    },
};

/// Enters a process into the list of frozen processes, before a freeze stops it.
pub(super) type RecordFrozen<'a> = &'a mut dyn FnMut(i32, BorrowedFd<'_>) -> io::Result<()>;

/// The relation of this process to a job.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    Owner,
    /// The job belongs to another process.
    View,
    /// This process has given the job up.
    Released,
}

pub(super) struct Tracked {
    pub(super) proc: Proc,
    pub(super) ownership: Ownership,
    pub(super) record: Option<Record>,
    pub(super) spawn_lock: SpawnLock,
    /// The members that a freeze has stopped; those of a listed job are in its record instead.
    frozen: Mutex<Vec<OwnedFd>>,
}

/// The place and the id of a new record; empty for a job that is not listed.
pub(super) struct RecordPlace {
    pub(super) registry: PathBuf,
    /// The part of the id that all jobs of this owner share.
    pub(super) owner: String,
}

impl RecordPlace {
    pub(super) fn of(spec: &JobSpec) -> Result<RecordPlace> {
        let (owner, registry) = match spec.is_listed() {
            true => (registry::fresh_owner()?, registry::place()),
            false => Default::default(),
        };
        Ok(RecordPlace { registry, owner })
    }
}

/// The guarantees of a job with this enclosure.
pub(super) fn guarantees_of(around: Enclosure, owner_death: OwnerDeath) -> Guarantees {
    Guarantees {
        mechanism: Mechanism::Subreaper,
        containment: Containment::Tracked,
        kill: Kill::Converging,
        owner_death,
        crosses_setuid: privilege::crosses_users(),
        freeze: Freeze::Signals,
        cpu_accounting: match around {
            Enclosure::None => Accounting::Reaped,
            // The owner reaps its other children, too: their time cannot be separated.
            Enclosure::Caller => Accounting::Live,
        },
        memory_accounting: Accounting::None,
        io_accounting: Accounting::None,
        limits: Resources::NONE,
        spawned_by_guard: around == Enclosure::None,
        reaps_orphans: true,
    }
}

impl Tracked {
    pub(super) fn new(proc: Proc) -> Tracked {
        let (spawn_lock, frozen) = Default::default();
        Tracked { proc, ownership: Ownership::Owner, record: None, spawn_lock, frozen }
    }

    /// A view of the job with this record.
    pub(super) fn view(record: Record) -> Result<Tracked> {
        let tracked = Tracked::new(usable_proc()?);
        Ok(Tracked { ownership: Ownership::View, record: Some(record), ..tracked })
    }

    pub(super) fn is_view(&self) -> bool {
        self.ownership == Ownership::View
    }

    /// Publishes the record of a job that is to be listed. `complete` gets its header last.
    pub(super) fn publish(
        &mut self,
        spec: &JobSpec,
        place: &RecordPlace,
        complete: impl FnOnce(&mut RecordHeader) -> Result<()>,
    ) -> Result<()> {
        if !spec.is_listed() {
            return Ok(());
        }
        let publish = || {
            let id = format!("{}1", place.owner);
            let proc = Some(&self.proc);
            let mut header = RecordHeader::new(id, Mechanism::Subreaper, spec.around, proc)?;
            header.name = spec.name.clone();
            Record::publish(&place.registry, header, spec.note.as_deref(), complete)
        };
        self.record = spec.published(publish())?;
        Ok(())
    }

    pub(super) fn job_record(&self) -> Option<&dyn JobRecord> {
        self.record.as_ref().map(|record| record as &dyn JobRecord)
    }

    /// Whether the owner has closed the job, as far as a record shows it.
    pub(super) fn is_over(&self) -> bool {
        self.record.as_ref().is_some_and(Record::is_over)
    }

    /// Removes the record, so that other processes can no longer find the job.
    pub(super) fn remove_record(&mut self) {
        self.record.take().inspect(Record::remove);
    }

    /// Reduces the guarantees to those that hold for signals sent by the process `pid` and to it.
    pub(super) fn check_reach(guarantees: &mut Guarantees, pid: i32, pidfd: BorrowedFd<'_>) {
        guarantees.crosses_setuid &= privilege::process_crosses_users(pid);
        // Members begin with the user and the security context of the process that starts them.
        if !privilege::may_signal(pidfd) {
            guarantees.kill = Kill::BestEffort;
            guarantees.freeze = Freeze::None;
            guarantees.crosses_setuid = false;
        }
    }

    pub(super) fn list(&self, root: Root<'_>) -> Result<Vec<Process>> {
        descendants::list(&self.proc, root).map_err(list_failed)
    }

    pub(super) fn snapshot(&self, root: Root<'_>) -> Result<Snapshot> {
        descendants::list_with_stat(&self.proc, root).map(snapshot::of).map_err(list_failed)
    }

    pub(super) fn pids(&self, root: Root<'_>) -> Result<Vec<u32>> {
        descendants::pids(&self.proc, root).map_err(list_failed)
    }

    /// The usage of these members, and what the reaped ones had used, in microseconds of user and system
    /// time.
    pub(super) fn stats(&self, members: &[Process], reaped: [u64; 2]) -> Result<Stats> {
        let [mut user, mut system] = reaped;
        for member in members.iter().filter(|member| !member.is_caller) {
            let [more_user, more_system] = cpu_time(&self.proc, &member.id)
                .map_err(|e| Error::os(format!("read the CPU time of process {member}"), e))?;
            (user, system) = (user + more_user, system + more_system);
        }
        Ok(Stats {
            cpu_user: Some(Duration::from_micros(user)),
            cpu_system: Some(Duration::from_micros(system)),
            processes: members.len(),
            ..Stats::default()
        })
    }

    /// Whether the job is frozen, by this process or through the record by another one.
    pub(super) fn is_frozen(&self) -> Result<bool> {
        match &self.record {
            Some(record) => record.is_frozen(),
            None => Ok(!self.frozen.lock().unwrap_or_else(PoisonError::into_inner).is_empty()),
        }
    }

    /// Freezes the job. `stop` stops the members and returns those that it has stopped.
    pub(super) fn freeze(
        &self,
        stop: impl FnOnce(RecordFrozen<'_>) -> Result<Vec<StoppedProcess>>,
    ) -> Result<()> {
        let Some(record) = &self.record else {
            let stopped = stop(&mut |_, _| Ok(()))?;
            descendants::wait_stopped(&self.proc, &stopped, &|| Ok(false))?;
            let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
            frozen.extend(stopped.into_iter().map(|process| process.pidfd));
            return Ok(());
        };
        let list = record.freezing()?;
        let stopped = stop(&mut |pid: i32, pidfd: BorrowedFd<'_>| {
            list.add(&identity::of_pidfd(pid as u32, pidfd, Some(&self.proc)))
        })?;
        let thaw = || descendants::thaw(stopped.iter().map(AsFd::as_fd));
        match list.persist() {
            // A thaw by another process ends the wait.
            Ok(true) => {
                let is_thawed = || record.is_frozen().map(|is_frozen| !is_frozen);
                descendants::wait_stopped(&self.proc, &stopped, &is_thawed)
            }
            // Another process has thawed the job meanwhile, but not these members.
            Ok(false) => thaw().map_err(thaw_failed),
            Err(e) => {
                let _ = thaw();
                Err(Error::os("freeze the job", e))
            }
        }
    }

    /// Continues the members that a freeze has stopped.
    pub(super) fn thaw(&self) -> Result<()> {
        match &self.record {
            Some(record) => record.thaw(|ids| {
                let held = ids.iter().filter_map(|id| identity::find(id).transpose());
                let stopped = held.collect::<Result<Vec<_>>>()?;
                descendants::thaw(stopped.iter().map(OwnedFd::as_fd)).map_err(thaw_failed)
            }),
            None => {
                let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
                descendants::thaw(frozen.iter().map(OwnedFd::as_fd)).map_err(thaw_failed)?;
                frozen.clear();
                Ok(())
            }
        }
    }

    pub(super) fn not_owner(&self) -> Result<()> {
        if self.is_view() { Err(errors::not_owner()) } else { Ok(()) }
    }
}

fn list_failed(error: io::Error) -> Error {
    Error::os("list the members of the job", error)
}

fn thaw_failed(error: io::Error) -> Error {
    Error::os("thaw the job", error)
}

/// Sends the signal and then SIGCONT with `send`, which signals every member. `stop` stops the members
/// first if there are many: no member reacts before all have the signal.
pub(super) fn terminate(
    signal: Signal,
    stop: impl FnOnce() -> Result<()>,
    send: impl Fn(Signal) -> Result<usize>,
) -> Result<usize> {
    if is_crowded_now() {
        let _ = stop();
    }
    let sent = send(signal);
    let _ = send(Signal::CONT);
    match sent {
        // No member may be signalled by this user: the kill reports it.
        Err(error) if error.is_permission_denied() => Ok(0),
        sent => sent,
    }
}

/// A `/proc` that shows the PID namespace of this process.
pub(super) fn usable_proc() -> Result<Proc> {
    const HINT: &str = "mount it: mount -t proc proc /proc";
    Proc::open().map_err(|errno| match errno {
        Errno::STALE => {
            Error::unsupported("/proc shows a PID namespace that this process is not in")
                .with_hint(HINT)
        }
        Errno::NOENT | Errno::NOTDIR => Error::unsupported("/proc is not mounted").with_hint(HINT),
        errno => Error::os("open /proc", errno),
    })
}

/// Whether the process has ended.
pub(super) fn is_dead(pidfd: BorrowedFd<'_>) -> bool {
    syscall::is_dead(pidfd.as_raw_fd())
}
