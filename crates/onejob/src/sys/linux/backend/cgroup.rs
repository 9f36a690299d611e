//! The Cgroup mechanism: the kernel holds the job together.
//!
//! A job is one cgroup below the job root. Its name begins with a prefix that the guards look for. An
//! enclosed job moves the caller to a fresh cgroup before it kills the others.

use std::{
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rustix::fs::{XattrFlags, fsetxattr};

use super::{cgroup_guarantees, cgroup_view::View, errors, spawn_lock::SpawnLock};
use crate::{
    Command, Error, Guarantees, Limits, Mechanism, Process, ProcessId, Result, Signal, Snapshot,
    Stats, StopReason,
    spec::{Enclosure, JobSpec},
    stop::Stoppable,
    sys::{
        Backend, Freezer, JobRecord, LimitControl, MechanismEntry, RecordTraits,
        linux::{
            cgroup::{
                adopt::adopt,
                dir::{means_removed, write_text},
                job_cgroup::JobCgroup,
                job_cgroups::JobCgroups,
                job_limits::cpu_time_error,
                members::Members,
                root::{JobRoot, unavailable},
                stats,
                wait::{Pauses, wait_until_empty},
            },
            deadline::{KILL_TIMEOUT, has_passed, wait_for},
            nostd::{
                cgroup::RELEASED,
                priority::is_crowded_now,
                procfs::Proc,
                syscall::{self, Errno, POLLIN, PollFd},
            },
            process::dropped_children,
            registry::{Record, RecordHeader},
            spawn::{join::join_cgroup_on_exec, local::spawn_local, remote::GuardSpawner},
        },
    },
};

pub(crate) const ENTRY: MechanismEntry = MechanismEntry {
    mechanism: Mechanism::Cgroup,
    guarantees_of: cgroup_guarantees::expected,
    create: |spec| Ok(Box::new(Cgroup::new(spec)?)),
    open: |record| Ok(Box::new(View::new(record)?)),
    explain: cgroup_guarantees::explain,
    record: RecordTraits { has_files: false, names_guards_late: true },
};

pub(crate) struct Cgroup {
    around: Enclosure,
    cgroups: JobCgroups,
    is_frozen: AtomicBool,
    spawn_lock: SpawnLock,
    record: Option<Record>,
    is_released: bool,
}

impl Cgroup {
    pub(crate) fn new(spec: &JobSpec) -> Result<Cgroup> {
        let root = JobRoot::current(spec.limits.resources(), spec.around)?;
        root.enable(spec.limits.resources()).map_err(unavailable)?;
        if spec.account {
            root.enable_accounting();
        }
        let mut job = Cgroup {
            around: spec.around,
            cgroups: JobCgroups::new(root, spec.limits),
            is_frozen: AtomicBool::new(false),
            spawn_lock: SpawnLock::default(),
            record: None,
            is_released: false,
        };
        let first = job.cgroups.current().map_err(|error| {
            job.root().forget();
            unavailable(error)
        })?;
        let begun = job.publish(spec).and_then(|()| match spec.around {
            Enclosure::None => Ok(()),
            Enclosure::Caller => first.move_caller_in(),
        });
        match begun {
            Ok(()) => Ok(job),
            Err(error) => {
                job.close();
                Err(error)
            }
        }
    }

    /// Writes the record of a listed job. Returns when the outer guard is running.
    fn publish(&mut self, spec: &JobSpec) -> Result<()> {
        let root = self.root();
        let guards = root.guards();
        if spec.around == Enclosure::Caller {
            guards.wait_ready()?;
        }
        if spec.is_listed() {
            let (id, proc) = (root.id_of(self.cgroups.number), Proc::open().ok());
            let header = RecordHeader {
                name: spec.name.clone(),
                base: Some(root.path().to_owned()),
                ..RecordHeader::new(id, Mechanism::Cgroup, spec.around, proc.as_ref())?
            };
            let note = spec.note.as_deref();
            let record = Record::publish(root.registry(), header, note, |header| {
                guards.wait_exec()?;
                header.guards = guards.known_ids();
                Ok(())
            });
            self.record = spec.published(record)?;
            if self.record.is_some() {
                self.cgroups.limits.set_listed();
            }
        }
        guards.wait_exec()
    }

    fn root(&self) -> &JobRoot {
        &self.cgroups.root
    }

    /// Adds the guards to the record. Their greeting arrives while the first member starts.
    fn record_guards(&self) {
        self.root().check_guards_once();
        if let Some(record) = self.record.as_ref().filter(|record| !record.names_guards()) {
            record.name_guards(self.root().guards().ids());
        }
    }

    /// Whether processes can be moved into this cgroup; the error gives the reason.
    fn check_join(&self, current: &JobCgroup) -> Result<()> {
        match self.root().remote {
            None if self.is_frozen(current)? => Err(errors::frozen()),
            None => Ok(()),
            Some(_) => Err(Error::unsupported(
                "the job is in a systemd scope, into which this process cannot move processes",
            )
            .with_hint("start processes there with Job::spawn")),
        }
    }

    /// Other processes can freeze and thaw a listed job.
    fn is_frozen(&self, current: &JobCgroup) -> Result<bool> {
        match self.record {
            Some(_) => Members(vec![current.dir.as_fd()]).are_frozen(),
            None => Ok(self.is_frozen.load(Ordering::Relaxed)),
        }
    }

    /// Whether this process has given up the privileges to use the cgroups of the job.
    fn is_out_of_reach(&self) -> bool {
        self.cgroups.last().is_some_and(|current| {
            let opened =
                syscall::openat(current.dir.as_raw_fd(), c"cgroup.kill", syscall::O_WRONLY);
            matches!(opened, Err(Errno::ACCES | Errno::PERM))
        })
    }

    fn wait_populated(&self, deadline: Option<Instant>) -> Result<bool> {
        for cgroup in self.cgroups.all() {
            match wait_until_empty(&cgroup, deadline) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(errno) if means_removed(errno) => {}
                Err(errno) => return Err(Error::os("watch the cgroup of the job", errno)),
            }
        }
        Ok(true)
    }

    /// The caller is a member, so the events of the cgroup cannot tell: waits for the other members one
    /// after the other.
    fn wait_others(&self, deadline: Option<Instant>) -> Result<bool> {
        let mut pauses = Pauses::new();
        loop {
            dropped_children::reap();
            let cgroups = self.cgroups.all();
            let members = members_of(&cgroups);
            let others = members.others()?;
            if others.is_empty() {
                return Ok(true);
            }
            let first = members.first_held(&others)?;
            if has_passed(deadline) {
                return Ok(first.is_none() && members.others()?.is_empty());
            }
            match first {
                Some(pidfd) => {
                    wait_for(&mut [PollFd::new(&pidfd, POLLIN)], deadline);
                }
                None => wait_for(&mut [], pauses.next(deadline)),
            }
        }
    }

    /// Ends the cgroups of a job that is closed.
    fn end(&self) {
        let root = self.root();
        let leave = || write_text(root.dir(), "cgroup.procs", "0");
        let cgroups = match self.around {
            // The caller cannot go back to the job root if controllers are enabled there by now. It then
            // stays in a cgroup of its own.
            Enclosure::Caller if leave().is_err() => {
                self.cgroups.move_caller_out().unwrap_or_default()
            }
            _ => self.cgroups.all(),
        };
        match self.cgroups.end(&cgroups) {
            Ok(()) => {}
            // Members that cannot die: the guards end them when they can.
            Err(error) if !error.survivors().is_empty() => {
                self.cgroups.all().iter().for_each(|cgroup| root.leave_to_guards(cgroup));
            }
            // Most likely this process is out of descriptors, or has given up the permission; the guards
            // have both.
            Err(_) => cgroups.iter().for_each(|cgroup| {
                root.end_by_guard(cgroup, KILL_TIMEOUT);
            }),
        }
    }
}

fn members_of(cgroups: &[Arc<JobCgroup>]) -> Members<'_> {
    Members(cgroups.iter().map(|cgroup| cgroup.dir.as_fd()).collect())
}

impl Stoppable for Cgroup {
    fn terminate(&self, signal: Signal) -> Result<usize> {
        if self.around == Enclosure::None && is_crowded_now() {
            // Until all have been signalled, frozen members neither fork nor compete for the processor.
            for cgroup in self.cgroups.all() {
                let _ = write_text(cgroup.dir.as_fd(), "cgroup.freeze", "1");
            }
        }
        let signaled = self.signal(signal);
        let _ = self.signal(Signal::CONT);
        match self.thaw() {
            // The kill reaches frozen members as well.
            Err(error) if error.is_permission_denied() => {}
            thawed => thawed?,
        }
        match signaled {
            // This user may not signal any member; the kill needs no such permission.
            Err(error) if error.is_permission_denied() => Ok(0),
            signaled => signaled,
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        match self.around {
            Enclosure::None => self.wait_populated(deadline),
            Enclosure::Caller => self.wait_others(deadline),
        }
    }

    fn kill(&self) -> Result<()> {
        let cgroups = match self.around {
            Enclosure::None => self.cgroups.all(),
            Enclosure::Caller => self.cgroups.move_caller_out()?,
        };
        // A member that cannot die keeps those in other cgroups from nothing.
        let killed: Vec<_> = cgroups.iter().map(|cgroup| self.cgroups.kill(cgroup)).collect();
        killed.into_iter().collect::<Result<()>>()?;
        // Otherwise the empty cgroups are removed with the job, or by the guards.
        if self.around == Enclosure::Caller || !self.root().guards().any_alive() {
            self.cgroups.reclaim_killed();
        }
        self.is_frozen.store(false, Ordering::Relaxed);
        dropped_children::reap();
        Ok(())
    }

    fn limit_reached(&self) -> Result<Option<StopReason>> {
        match self.cgroups.is_cpu_time_exhausted() {
            true => Ok(Some(StopReason::CpuTime)),
            false => members_of(&self.cgroups.all()).limit_reached(self.cgroups.retired_stats()),
        }
    }
}

impl Backend for Cgroup {
    fn guarantees(&self) -> Guarantees {
        cgroup_guarantees::of_job(self.around, self.root(), self.is_out_of_reach())
    }

    fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
        let _not_stopped_meanwhile = self.spawn_lock.shared();
        if self.is_frozen(&*self.cgroups.current()?)? {
            return Err(errors::frozen());
        }
        const TRIES: usize = 8;
        let mut spawned = Err(errors::killed_meanwhile());
        for _ in 0..TRIES {
            let current = self.cgroups.current()?;
            spawned = match &self.root().remote {
                None => {
                    let memory = self.cgroups.limits.child_memory(&current);
                    spawn_local(command, Some(current.dir.as_fd()), memory)
                }
                Some(baseline) => {
                    let guards = &self.root().guards();
                    GuardSpawner { guards, baseline, is_view: false }
                        .spawn(command, Some(current.dir.as_fd()))
                }
            };
            // Another thread has killed the job meanwhile: the next cgroup is a fresh one.
            match &spawned {
                Err(error) if !error.is_exec() && current.takes_no_member() => {
                    spawned = Err(errors::killed_meanwhile());
                }
                _ => break,
            }
            self.cgroups.forget(&current);
        }
        self.record_guards();
        spawned.map_err(|error| match self.cgroups.is_cpu_time_exhausted() {
            true => cpu_time_error(),
            false => self.cgroups.limits.explain(error),
        })
    }

    fn join_on_exec(&self, command: &mut std::process::Command) -> Result<()> {
        let current = self.cgroups.current()?;
        self.check_join(&current)?;
        self.record_guards();
        join_cgroup_on_exec(command, current.dir.as_fd())
    }

    fn adopt(&self, process: &ProcessId) -> Result<()> {
        let current = self.cgroups.current()?;
        self.check_join(&current)?;
        self.record_guards();
        adopt(current.dir.as_fd(), process)
    }

    fn processes(&self) -> Result<Vec<Process>> {
        members_of(&self.cgroups.all()).list()
    }

    fn pids(&self) -> Result<Vec<u32>> {
        members_of(&self.cgroups.all()).pids()
    }

    fn signal(&self, signal: Signal) -> Result<usize> {
        let _alone = self.spawn_lock.for_signal(signal);
        members_of(&self.cgroups.all()).signal(signal)
    }

    fn record(&self) -> Option<&dyn JobRecord> {
        self.record.as_ref().map(|record| record as &dyn JobRecord)
    }

    fn stats(&self) -> Result<Stats> {
        let cgroups = self.cgroups.all();
        let members = members_of(&cgroups);
        let used = stats::sum(self.cgroups.retired_stats(), members.usage()?);
        Ok(Stats { processes: members.pids()?.len(), ..used })
    }

    fn snapshot(&self) -> Result<Snapshot> {
        let retired = stats::cpu_time(&self.cgroups.retired_stats());
        members_of(&self.cgroups.all()).snapshot(retired)
    }

    fn release(&mut self) -> Result<()> {
        for cgroup in self.cgroups.all() {
            fsetxattr(&cgroup.dir, RELEASED, b"", XattrFlags::empty())
                .map_err(|e| Error::os("mark the cgroup of the job as released", e))?;
        }
        self.is_released = true;
        self.record.take().inspect(Record::remove);
        Ok(())
    }

    fn close(&mut self) {
        if self.is_released {
            // A cgroup with members stays until a later cleanup finds it empty.
            for cgroup in self.cgroups.take() {
                self.cgroups.remove_empty(&cgroup);
            }
            return;
        }
        self.end();
        // The owner may end next, and stopped guards would remain.
        self.root().guards().resume();
        // Last, because a job has ended when its record is gone.
        self.record.take().inspect(Record::remove);
        dropped_children::reap();
    }

    fn limits(&self) -> Option<&dyn LimitControl> {
        Some(self)
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        Some(self)
    }
}

impl LimitControl for Cgroup {
    fn get(&self) -> Result<Limits> {
        Ok(self.cgroups.current_limits())
    }

    fn set(&self, limits: &Limits) -> Result<()> {
        let missing = limits.resources().without(self.guarantees().limits);
        if !missing.is_empty() {
            return Err(Error::unsupported(format!("cannot limit {missing} of this job"))
                .with_hint(
                    "make the job with limits, so that it is made where they are possible",
                ));
        }
        self.root().enable(limits.resources())?;
        match self.cgroups.set_limits(limits)? {
            true => self.kill(),
            false => Ok(()),
        }
    }
}

impl Freezer for Cgroup {
    fn freeze(&self) -> Result<()> {
        let alone = self.spawn_lock.alone();
        let cgroups = match self.around {
            Enclosure::None => {
                self.cgroups.current()?;
                self.is_frozen.store(true, Ordering::Relaxed);
                self.cgroups.all()
            }
            // The caller leaves all other members behind. Processes that it starts later are not frozen.
            Enclosure::Caller => self.cgroups.move_caller_out()?,
        };
        let members = members_of(&cgroups);
        members.begin_frozen(true)?;
        drop(alone);
        members.wait_frozen(true)
    }

    fn thaw(&self) -> Result<()> {
        let cgroups = self.cgroups.all();
        let members = members_of(&cgroups);
        {
            let _alone = self.spawn_lock.alone();
            members.begin_frozen(false)?;
            self.is_frozen.store(false, Ordering::Relaxed);
        }
        members.wait_frozen(false)
    }
}
