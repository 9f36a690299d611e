//! The Cgroup mechanism: the kernel holds the job together.
//!
//! A job is one cgroup below ours, its name starting with the prefix the guards look for. A kill
//! makes it unusable (see `docs/gotchas.md`, "born dead"), so the next member is put into a fresh
//! one; an enclosed job moves the caller to a fresh one first and then kills the others. What was
//! killed stays, empty, until it is in the way: it knows what its members had used.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

use rustix::fs::{XattrFlags, fsetxattr};

use super::cgroup_view::View;
use crate::{
    Accounting, Command, Containment, Error, Freeze, Guarantees, Kill, Limits, Mechanism,
    OwnerDeath, Process, ProcessId, Resources, Result, Signal, Stats, StopReason,
    job::{Enclosure, JobSpec},
    stop::Stoppable,
    sys::{
        Backend, Explanation, Freezer, JobRecord, LimitControl, MechanismEntry, RecordTraits,
        linux::{
            cgroup::{
                controllers as files,
                members::{self, EmptyEventGrace, Members, Pauses},
                root::{self, JobRoot, is_gone, write_text},
                stats,
            },
            deadline::{KILL_TIMEOUT, has_passed, milliseconds_until, wait_for},
            guard::cpu_time::CpuTimeLimit,
            nostd::{
                boost::is_crowd,
                cgroup::{self as floor, Events, RELEASED},
                procfs::Proc,
                syscall::{self, Errno, POLLIN, PollFd},
            },
            process::dropped_children,
            registry::{Record, RecordHeader},
            spawn::{
                baseline::GuardBaseline,
                local::{self, Memory},
            },
        },
    },
};

pub(crate) struct Cgroup {
    base: Arc<JobRoot>,
    /// Which one of the owner's, and how many cgroups it has had.
    number: u32,
    had: AtomicU32,
    around: Enclosure,
    /// The cgroups there are: the last one takes new members unless it was killed; others were, or are
    /// frozen around a caller who has left them.
    cgroups: Mutex<Vec<Arc<root::Cgroup>>>,
    frozen: AtomicBool,
    /// What the members of cgroups that are gone had used. Apart, for it is large.
    retired_stats: Box<Mutex<Stats>>,
    limits: Mutex<Limits>,
    /// Of the cgroup that takes new members: there is no other one in a job that has this.
    budget: Mutex<Option<CpuTimeLimit>>,
    record: Option<Record>,
    released: bool,
}

pub(crate) const ENTRY: MechanismEntry = MechanismEntry {
    mechanism: Mechanism::Cgroup,
    guarantees_of,
    create: |spec| Ok(Box::new(Cgroup::new(spec)?)),
    open: |record| Ok(Box::new(View::new(record, guarantees_without_limits())?)),
    explain,
    record: RecordTraits { has_files: false, names_guards_late: true },
};

fn guarantees_of(around: Enclosure) -> Guarantees {
    let limits = match around {
        Enclosure::None => root::possible_limits(),
        // A job over its CPU time is killed, and the caller is one of its members.
        Enclosure::Caller => root::possible_limits().without(Resources::CPU_TIME),
    };
    Guarantees { limits, ..guarantees_without_limits() }
}

/// To find out the limits, the cgroup of the caller is probed.
fn guarantees_without_limits() -> Guarantees {
    Guarantees {
        mechanism: Mechanism::Cgroup,
        containment: Containment::Tracked,
        kill: Kill::Atomic,
        owner_death: OwnerDeath::Guard,
        crosses_setuid: true,
        freeze: Freeze::Atomic,
        cpu_accounting: Accounting::All,
        memory_accounting: Accounting::None,
        io_accounting: Accounting::None,
        limits: Resources::NONE,
        spawned_by_guard: false,
        reaps_orphans: false,
    }
}

/// How jobs are made here, and which limits they can have.
fn explain(given: &mut Guarantees) -> Explanation {
    let Ok(found) = root::available_limits() else {
        return Explanation { reason: "this process may create cgroups".to_owned(), hint: None };
    };
    given.limits = found.limits;
    let reason = match found.in_a_scope {
        true => "systemd makes a scope for this user, and jobs are cgroups in it",
        false => "this process may create cgroups below its own",
    };
    let hint = found.lacking.map(|error| format!("more limits: {error}"));
    Explanation { reason: reason.to_owned(), hint }
}

impl Cgroup {
    pub(crate) fn new(spec: &JobSpec) -> Result<Cgroup> {
        let base = JobRoot::current(spec.limits.resources(), spec.around)?;
        base.enable(spec.limits.resources()).map_err(root::unavailable)?;
        if spec.account {
            base.account();
        }
        let mut job = Cgroup {
            number: base.next_job(),
            had: AtomicU32::new(0),
            base,
            around: spec.around,
            cgroups: Mutex::default(),
            frozen: AtomicBool::new(false),
            retired_stats: Box::default(),
            limits: Mutex::new(spec.limits),
            budget: Mutex::default(),
            record: None,
            released: false,
        };
        let first = job.current().map_err(|error| {
            job.base.forget();
            root::unavailable(error)
        })?;
        let begun = job.publish(spec).and_then(|()| match spec.around {
            Enclosure::None => Ok(()),
            Enclosure::Caller => job.move_caller_to(&first),
        });
        match begun {
            Ok(()) => Ok(job),
            Err(error) => {
                job.close();
                Err(error)
            }
        }
    }

    /// Makes the job known if it is to be: with a name it must be possible. One guard stands then.
    fn publish(&mut self, spec: &JobSpec) -> Result<()> {
        let guards = self.base.guards();
        if spec.around == Enclosure::Caller {
            guards.wait_ready()?;
        }
        if spec.is_listed() {
            let (id, proc) = (self.base.id_of(self.number), Proc::open().ok());
            let card = RecordHeader {
                name: spec.name.clone(),
                base: Some(self.base.path().to_owned()),
                ..RecordHeader::new(id, crate::Mechanism::Cgroup, spec.around, proc.as_ref())?
            };
            let note = spec.note.as_deref();
            self.record =
                spec.published(Record::publish(self.base.registry(), card, note, |card| {
                    guards.wait_exec()?;
                    card.guards = guards.known_ids();
                    Ok(())
                }))?;
        }
        guards.wait_exec()
    }

    /// Whoever finds the job is to see who guards it. They greet while the first member starts.
    fn record_guards(&self) {
        self.base.look_at_guards();
        if let Some(record) = self.record.as_ref().filter(|record| !record.names_guards()) {
            record.name_guards(self.base.guards().ids());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<root::Cgroup>>> {
        self.cgroups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<root::Cgroup>> {
        self.lock().clone()
    }

    fn take(&self) -> Vec<Arc<root::Cgroup>> {
        std::mem::take(&mut self.lock())
    }

    /// The cgroup for new members, made anew if the last one was killed.
    fn current(&self) -> Result<Arc<root::Cgroup>> {
        let mut cgroups = self.lock();
        self.reclaim_killed(&mut cgroups);
        if self.cpu_time_exhausted() {
            return Err(spent());
        }
        if let Some(current) = cgroups.last().filter(|last| !last.is_killed()) {
            return Ok(current.clone());
        }
        let fresh = Arc::new(self.make()?);
        if let Err(error) = self.watch_cpu_time(&fresh) {
            let _ = syscall::rmdirat(self.base.dir().as_raw_fd(), &fresh.name);
            return Err(error);
        }
        cgroups.push(fresh.clone());
        Ok(fresh)
    }

    /// Has a guard watch what is left of the CPU time, if that is limited.
    fn watch_cpu_time(&self, cgroup: &root::Cgroup) -> Result<()> {
        let most = self.limits.lock().unwrap_or_else(PoisonError::into_inner).cpu_time_max;
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        *budget = None;
        if let Some(most) = most {
            let used = stats::cpu_time(&self.retired_usage());
            let guards = self.base.serving_guards()?;
            let left = most.saturating_sub(used);
            *budget = Some(CpuTimeLimit::watch(&guards, cgroup.dir.as_fd(), left)?);
        }
        Ok(())
    }

    fn cpu_time_exhausted(&self) -> bool {
        let most = self.limits.lock().unwrap_or_else(PoisonError::into_inner).cpu_time_max;
        let budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let is_spent = budget.as_ref().is_some_and(CpuTimeLimit::is_exhausted);
        is_spent || most.is_some_and(|most| most <= stats::cpu_time(&self.retired_usage()))
    }

    /// Another process that can find the job can have changed its limits.
    fn refresh_limits(&self, cgroup: &root::Cgroup) {
        if self.record.is_some() {
            let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that cannot be read stand as they were set.
            if let Ok(standing) = files::effective_limits(cgroup.dir.as_fd(), &limits) {
                *limits = standing;
            }
        }
    }

    /// Has another budget watched, from now on.
    fn change_cpu_time_limit(&self, cgroups: MutexGuard<'_, Vec<Arc<root::Cgroup>>>) -> Result<()> {
        let had_spent = self.budget.lock().unwrap_or_else(PoisonError::into_inner).take();
        if had_spent.is_some_and(|budget| budget.is_exhausted()) {
            // Killed, and never to be used again.
            drop(cgroups);
            return self.kill();
        }
        match cgroups.last() {
            Some(current) => self.watch_cpu_time(current),
            None => Ok(()),
        }
    }

    /// What the members of ended cgroups had used.
    fn retired_usage(&self) -> Stats {
        *self.retired_stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others can limit a job that they can find.
    fn child_memory(&self, current: &root::Cgroup) -> Memory {
        let limits = *self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        match self.record {
            Some(_) => files::memory_of_a_child(current.dir.as_fd()),
            None if files::is_oom_group(&limits) => Memory::Copied,
            None => Memory::Shared,
        }
    }

    /// Has a guard start it, which is where we may not put anybody.
    fn spawn_remote(
        &self,
        command: &Command,
        current: &root::Cgroup,
        remote: &GuardBaseline,
    ) -> Result<crate::Child> {
        let guards = self.base.guards();
        if !guards.is_serving() {
            return Err(Error::unsupported(
                "the guard of the job, which starts members, was killed",
            )
            .with_hint("make another job"));
        }
        let inherited = remote.check(&guards, false)?;
        local::remote(command, &guards, &inherited, &remote.limits, Some(current.dir.as_fd()))
    }

    /// Why a process cannot get into this cgroup by a move, if it cannot.
    fn can_be_joined(&self, current: &root::Cgroup) -> Result<()> {
        match self.base.remote {
            // It would freeze before it executes its program, and whoever starts it waits for that.
            None if self.is_frozen(current)? => Err(members::frozen_error()),
            None => Ok(()),
            Some(_) => Err(Error::unsupported(
                "the job is in a scope of systemd's, where nobody can be moved to from here",
            )
            .with_hint("Job::spawn starts processes there")),
        }
    }

    /// A failed spawn that a limit of the job has made fail says so.
    fn explain_limit(&self, error: Error) -> Error {
        if self.cpu_time_exhausted() {
            return spent();
        }
        let limits = *self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        match (error.raw_os_error().map(Errno), limits.processes_max) {
            (Some(Errno::AGAIN), Some(most)) if !error.is_exec() => Error::limit_reached(
                format!("start a process: the job may have {most} processes and threads"),
                Some(io::Error::from_raw_os_error(Errno::AGAIN.0)),
            )
            .with_hint("wait until one has ended, or set another limit"),
            _ => error,
        }
    }

    fn make(&self) -> Result<root::Cgroup> {
        let cgroup = self.base.make(self.number, &self.had)?;
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        match files::write(cgroup.dir.as_fd(), &Limits::default(), &limits) {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                let _ = syscall::rmdirat(self.base.dir().as_raw_fd(), &cgroup.name);
                Err(error)
            }
        }
    }

    fn move_caller_to(&self, cgroup: &root::Cgroup) -> Result<()> {
        write_text(cgroup.dir.as_fd(), "cgroup.procs", "0")
            .map_err(|e| Error::os("move this process into the cgroup of its job", e))
    }

    /// Takes the caller of an enclosed job out to a fresh cgroup; answers those it left.
    fn move_caller_out(&self) -> Result<Vec<Arc<root::Cgroup>>> {
        // Locked first: limits set meanwhile are for the fresh one, too.
        let mut cgroups = self.lock();
        let fresh = Arc::new(self.make()?);
        let left = cgroups.clone();
        self.move_caller_to(&fresh)?;
        cgroups.push(fresh);
        Ok(left)
    }

    /// Kills and waits; an error has the members if it could not be emptied.
    fn kill_and_wait(&self, cgroup: &root::Cgroup) -> Result<()> {
        let failed = |e: Errno| Error::os(format!("end the cgroup {:?}", cgroup.name), e);
        let (start, dir) = (Instant::now(), cgroup.dir.as_raw_fd());
        cgroup.mark_kill_begun();
        let emptied = Events::open(dir).and_then(|events| {
            if events.is(b"populated 0")? {
                return Ok(true);
            }
            floor::kill(dir)?;
            wait_on(&events, cgroup, Some(start + KILL_TIMEOUT / 10))
        });
        let emptied = match emptied {
            Err(errno) if is_gone(errno) => Ok(true),
            Ok(false) => floor::empty(dir, KILL_TIMEOUT.as_millis() as i32),
            emptied => emptied,
        };
        if !emptied.map_err(failed)? {
            return Err(still_alive(cgroup, start));
        }
        cgroup.mark_ended();
        Ok(())
    }

    /// What this process may no longer do, since it has given up its privileges, a guard still may.
    fn take_down_or_have_ended(&self, cgroup: &root::Cgroup) -> Result<()> {
        match self.kill_and_wait(cgroup) {
            Err(error)
                if error.is_permission_denied() && self.base.end_by_guard(cgroup, KILL_TIMEOUT) =>
            {
                cgroup.mark_ended();
                Ok(())
            }
            taken_down => taken_down,
        }
    }

    /// Removes those that were killed, and remembers what their members had used. One that somebody
    /// was put into since then stays.
    fn reclaim_killed(&self, cgroups: &mut Vec<Arc<root::Cgroup>>) {
        cgroups.retain(|cgroup| {
            let dir = cgroup.dir.as_raw_fd();
            if !cgroup.is_killed() || floor::is_empty(dir) == Ok(false) {
                return true;
            }
            // As long as that cannot be read the cgroup stays: it is counted once it is gone.
            let Ok(used) = stats::usage(cgroup.dir.as_fd()) else { return true };
            let used = stats::past(used);
            self.refresh_limits(cgroup);
            if floor::remove(self.base.dir().as_raw_fd(), &cgroup.name).is_err() {
                return true;
            }
            let mut spent = self.retired_stats.lock().unwrap_or_else(PoisonError::into_inner);
            *spent = stats::sum(*spent, used);
            false
        });
    }

    /// Kills, waits and removes; the first that could not be emptied is an error with its members. All
    /// are killed before the first is waited for, and the same patience is for all of them.
    fn end(&self, cgroups: &[Arc<root::Cgroup>]) -> Result<()> {
        let start = Instant::now();
        let base = self.base.dir().as_raw_fd();
        if let [_, _, ..] = cgroups {
            for cgroup in cgroups {
                let _ = floor::kill(cgroup.dir.as_raw_fd());
            }
        }
        let mut first = Ok(());
        for cgroup in cgroups {
            let left = milliseconds_until(Some(start + KILL_TIMEOUT));
            match floor::end(base, &cgroup.name, left) {
                Ok(true) => {
                    self.lock().retain(|kept| !Arc::ptr_eq(kept, cgroup));
                    cgroup.mark_ended();
                }
                Ok(false) => first = first.and_then(|()| Err(still_alive(cgroup, start))),
                Err(e) => {
                    let failed = || Error::os(format!("end the cgroup {:?}", cgroup.name), e);
                    first = first.and_then(|()| Err(failed()));
                }
            }
        }
        first
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
        let mut pauses = Pauses::new();
        loop {
            dropped_children::reap();
            let cgroups = self.all();
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
                    wait_for(&mut [PollFd::new(pidfd.as_raw_fd(), POLLIN)], deadline);
                }
                // Gone since.
                None => wait_for(&mut [], pauses.next(deadline)),
            }
        }
    }
}

impl Cgroup {
    /// Others can freeze and thaw a job that they can find.
    fn is_frozen(&self, current: &root::Cgroup) -> Result<bool> {
        match self.record {
            Some(_) => Members(vec![current.dir.as_fd()]).are_frozen(),
            None => Ok(self.frozen.load(Ordering::Relaxed)),
        }
    }
}

impl Cgroup {
    /// Whether this process has given up what it takes to use the cgroups of the job.
    fn is_out_of_reach(&self) -> bool {
        let current = self.lock().last().cloned();
        current.is_some_and(|current| {
            let opened =
                syscall::openat(current.dir.as_raw_fd(), c"cgroup.kill", syscall::O_WRONLY);
            matches!(opened, Err(Errno::ACCES | Errno::PERM))
        })
    }
}

fn still_alive(cgroup: &root::Cgroup, start: Instant) -> Error {
    match Members(vec![cgroup.dir.as_fd()]).list() {
        Ok(survivors) => Error::still_alive(survivors, start.elapsed()),
        Err(error) => error,
    }
}

fn spent() -> Error {
    Error::limit_reached("start a process: the job has used up its CPU time", None)
        .with_hint("set another limit, or make another job")
}

/// Who is in these cgroups.
fn members_of(cgroups: &[Arc<root::Cgroup>]) -> Members<'_> {
    Members(cgroups.iter().map(|cgroup| cgroup.dir.as_fd()).collect())
}

/// Waits for the kernel to say that nobody is in a cgroup.
fn wait_until_empty(
    cgroup: &root::Cgroup,
    deadline: Option<Instant>,
) -> std::result::Result<bool, Errno> {
    wait_on(&Events::open(cgroup.dir.as_raw_fd())?, cgroup, deadline)
}

fn wait_on(
    events: &Events,
    cgroup: &root::Cgroup,
    deadline: Option<Instant>,
) -> std::result::Result<bool, Errno> {
    let dir = cgroup.dir.as_raw_fd();
    let hasty = EmptyEventGrace::new();
    loop {
        dropped_children::reap();
        if events.is(b"populated 0")? {
            return Ok(true);
        }
        if has_passed(deadline) {
            return Ok(false);
        }
        let (somebody, deadline) = hasty.also(dir, deadline);
        let somebody = PollFd::new(somebody.as_ref().map_or(-1, syscall::Fd::raw), POLLIN);
        wait_for(&mut [events.poll_fd(), cgroup.end_poll_fd(), somebody], deadline);
    }
}

impl Stoppable for Cgroup {
    fn terminate(&self, signal: Signal) -> Result<usize> {
        if self.around == Enclosure::None && is_crowd() {
            // Frozen members neither start others nor want the processor until all have been signalled.
            for cgroup in self.all() {
                let _ = write_text(cgroup.dir.as_fd(), "cgroup.freeze", "1");
            }
        }
        let asked = self.signal(signal);
        let _ = self.signal(Signal::CONT);
        match self.thaw() {
            // The kill reaches frozen members as well.
            Err(error) if error.is_permission_denied() => {}
            thawed => thawed?,
        }
        match asked {
            // No member may be signalled by this user: the kill does without.
            Err(error) if error.is_permission_denied() => Ok(0),
            asked => asked,
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
            Enclosure::None => self.all(),
            Enclosure::Caller => self.move_caller_out()?,
        };
        // One with a member that cannot die keeps no other alive.
        let ended: Vec<_> =
            cgroups.iter().map(|cgroup| self.take_down_or_have_ended(cgroup)).collect();
        ended.into_iter().collect::<Result<()>>()?;
        // What stays behind empty goes with the job, or by the guards.
        if self.around == Enclosure::Caller || !self.base.guards().any_alive() {
            self.reclaim_killed(&mut self.lock());
        }
        self.frozen.store(false, Ordering::Relaxed);
        dropped_children::reap();
        Ok(())
    }

    fn limit_reached(&self) -> Option<StopReason> {
        match self.cpu_time_exhausted() {
            true => Some(StopReason::CpuTime),
            false => members_of(&self.all()).limit_reached(self.retired_usage()),
        }
    }
}

impl Backend for Cgroup {
    fn guarantees(&self) -> Guarantees {
        let mut promised = guarantees_of(self.around);
        if !self.base.guards().any_alive() {
            promised.owner_death = OwnerDeath::None;
        }
        let of_caller = match self.around {
            Enclosure::None => Resources::NONE,
            Enclosure::Caller => Resources::CPU_TIME,
        };
        promised.limits = self.base.limits().without(of_caller);
        if self.base.accounts("memory") {
            promised.memory_accounting = Accounting::All;
        }
        if self.base.accounts("io") {
            promised.io_accounting = Accounting::All;
        }
        let guards_answer = self.base.guards().is_serving();
        if !guards_answer {
            promised.limits = promised.limits.without(Resources::CPU_TIME);
        }
        if self.is_out_of_reach() {
            promised.freeze = Freeze::None;
            promised.limits = Resources::NONE;
            promised.cpu_accounting = Accounting::None;
            promised.memory_accounting = Accounting::None;
            promised.io_accounting = Accounting::None;
            if !guards_answer {
                promised.kill = Kill::BestEffort;
                promised.crosses_setuid = false;
            }
        }
        promised
    }

    fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
        if self.is_frozen(&*self.current()?)? {
            return Err(members::frozen_error());
        }
        const TRIES: usize = 8;
        let mut spawned = Err(members::killed_meanwhile());
        for _ in 0..TRIES {
            let current = self.current()?;
            spawned = match &self.base.remote {
                None => {
                    let memory = self.child_memory(&current);
                    local::local(command, Some(current.dir.as_fd()), memory)
                }
                Some(remote) => self.spawn_remote(command, &current, remote),
            };
            // Another thread has killed the job since we looked for the cgroup: the next one is fresh.
            match &spawned {
                Err(error) if !error.is_exec() && current.takes_no_member() => {
                    spawned = Err(members::killed_meanwhile());
                }
                _ => break,
            }
            self.lock().retain(|kept| !Arc::ptr_eq(kept, &current));
        }
        self.record_guards();
        spawned.map_err(|error| self.explain_limit(error))
    }

    fn join_on_exec(&self, command: &mut std::process::Command) -> Result<()> {
        let current = self.current()?;
        self.can_be_joined(&current)?;
        self.record_guards();
        local::join_on_exec(command, current.dir.as_fd())
    }

    fn adopt(&self, process: &ProcessId) -> Result<()> {
        let current = self.current()?;
        self.can_be_joined(&current)?;
        self.record_guards();
        members::adopt(current.dir.as_fd(), process)
    }

    fn processes(&self) -> Result<Vec<Process>> {
        members_of(&self.all()).list()
    }

    fn pids(&self) -> Result<Vec<u32>> {
        members_of(&self.all()).pids()
    }

    fn signal(&self, signal: Signal) -> Result<usize> {
        members_of(&self.all()).signal(signal)
    }

    fn record(&self) -> Option<&dyn JobRecord> {
        self.record.as_ref().map(|record| record as &dyn JobRecord)
    }

    fn stats(&self) -> Result<Stats> {
        let cgroups = self.all();
        let members = members_of(&cgroups);
        let used = stats::sum(self.retired_usage(), members.usage()?);
        Ok(Stats { processes: members.pids()?.len(), ..used })
    }

    fn release(&mut self) -> Result<()> {
        for cgroup in self.all() {
            fsetxattr(&cgroup.dir, RELEASED, b"", XattrFlags::empty())
                .map_err(|e| Error::os("mark the cgroup of the job as released", e))?;
        }
        self.released = true;
        self.record.take().inspect(Record::remove);
        Ok(())
    }

    fn close(&mut self) {
        let base = self.base.dir().as_raw_fd();
        if self.released {
            // Empty ones go; the others stay until somebody sweeps them, once they are empty.
            for cgroup in self.take() {
                let _ = syscall::rmdirat(base, &cgroup.name);
            }
            return;
        }
        let go_home = || write_text(self.base.dir(), "cgroup.procs", "0");
        let cgroups = match self.around {
            Enclosure::Caller if go_home().is_err() => {
                // The way back is barred (a controller was enabled there): stay, but alone.
                self.move_caller_out().unwrap_or_default()
            }
            _ => self.all(),
        };
        match self.end(&cgroups) {
            Ok(()) => {}
            // Members that cannot die: the guards see to their end.
            Err(error) if !error.survivors().is_empty() => {
                self.lock().iter().for_each(|cgroup| self.base.leave_to_guards(cgroup));
            }
            // Out of descriptors, most likely; the guards have their own.
            // Or without the permission, which they still have.
            Err(_) => cgroups.iter().for_each(|cgroup| {
                self.base.end_by_guard(cgroup, KILL_TIMEOUT);
            }),
        }
        // The owner may end next, and guards that were stopped would stay so.
        self.base.guards().go_on();
        // Last: a job is over when its record is gone.
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
        self.lock().last().inspect(|current| self.refresh_limits(current));
        Ok(*self.limits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, limits: &Limits) -> Result<()> {
        let lacking = limits.resources().without(self.guarantees().limits);
        if !lacking.is_empty() {
            return Err(Error::unsupported(format!("this job cannot be limited in {lacking}"))
                .with_hint("a job that is made with limits is put where they can be had"));
        }
        self.base.enable(limits.resources())?;
        // Held to the end, so that a cgroup made meanwhile gets the new ones or is among these.
        let mut cgroups = self.lock();
        self.reclaim_killed(&mut cgroups);
        cgroups.last().inspect(|current| self.refresh_limits(current));
        let was = {
            let mut set = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            for (done, cgroup) in cgroups.iter().enumerate() {
                if let Err(error) = files::write(cgroup.dir.as_fd(), &set, limits) {
                    for changed in cgroups.iter().take(done) {
                        let _ = files::write(changed.dir.as_fd(), limits, &set);
                    }
                    return Err(error);
                }
            }
            std::mem::replace(&mut *set, *limits)
        };
        match was.cpu_time_max == limits.cpu_time_max {
            true => Ok(()),
            false => self.change_cpu_time_limit(cgroups),
        }
    }
}

impl Freezer for Cgroup {
    fn freeze(&self) -> Result<()> {
        let cgroups = match self.around {
            Enclosure::None => {
                self.current()?;
                self.frozen.store(true, Ordering::Relaxed);
                self.all()
            }
            // What the caller starts from now on is not frozen; all others are left behind.
            Enclosure::Caller => self.move_caller_out()?,
        };
        members_of(&cgroups).set_frozen(true)
    }

    fn thaw(&self) -> Result<()> {
        members_of(&self.all()).set_frozen(false)?;
        self.frozen.store(false, Ordering::Relaxed);
        Ok(())
    }
}
