//! The Subreaper mechanism, which needs no privilege: the members are the processes below a guard.
//!
//! The inner guard is a child subreaper and the parent of the processes that the job starts, so every
//! orphan below it is re-parented to it, and the job is empty when it has no children. This process
//! lists, signals and kills the members from outside, walking down from the guard; the guard starts and
//! reaps them, and reports how they ended.
//!
//! An enclosed job has no guard, since a running process cannot get another ancestor: see
//! [`enclosed`].

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use super::{
    enclosed::{self, Enclosed},
    errors,
    tracked::{self, Ownership, RecordPlace, Tracked, is_dead, usable_proc},
};
use crate::{
    Command, Error, Guarantees, Kill, Mechanism, OwnerDeath, Process, Result, Signal, Snapshot,
    Stats,
    spec::{Enclosure, JobSpec},
    stop::Stoppable,
    sys::{
        Backend, Explanation, Freezer, JobRecord, MechanismEntry, RecordTraits,
        linux::{
            deadline::{KILL_TIMEOUT, has_passed},
            guard::{client::Guards, launch::GuardConfig},
            nostd::protocol,
            process::{
                descendants::{self, Root},
                dropped_children, identity, privilege,
                tree::Tree,
            },
            registry::{Record, version::guard_failed},
            spawn::{baseline::GuardBaseline, remote::GuardSpawner},
        },
    },
    trace::event,
};

pub(crate) struct Subreaper {
    tracked: Tracked,
    guards: Guards,
    /// The children that the guards have started for this process, as long as their `Child` exists. With
    /// both guards killed, only these and the processes below them can be found.
    started: Mutex<Vec<(u32, Weak<OwnedFd>)>>,
    /// Of the owner since the guards were started; a view reads it for the first spawn.
    baseline: OnceLock<GuardBaseline>,
}

pub(crate) const ENTRY: MechanismEntry = MechanismEntry {
    mechanism: Mechanism::Subreaper,
    guarantees_of: |around| match around {
        Enclosure::None => guarantees(),
        Enclosure::Caller => enclosed::guarantees(std::process::id()),
    },
    create: |spec| match spec.around {
        Enclosure::None => Ok(Box::new(Subreaper::new(spec)?)),
        Enclosure::Caller => enclosed::create(spec),
    },
    open: |record| match record.header.around {
        Enclosure::None => Ok(Box::new(Subreaper::open(record)?)),
        Enclosure::Caller => Ok(Box::new(Enclosed::open(record)?)),
    },
    explain,
    record: RecordTraits { has_files: true, names_guards_late: false },
};

fn guarantees() -> Guarantees {
    tracked::guarantees_of(Enclosure::None, OwnerDeath::Guard)
}

fn explain(given: &mut Guarantees) -> Explanation {
    let (reason, hint) = match given.crosses_setuid {
        true => ("needs no privilege; with CAP_KILL it reaches members of every user", None),
        false => (
            "needs no privilege",
            Some(
                "members that change their user cannot be killed; the cgroup mechanism can kill them",
            ),
        ),
    };
    Explanation { reason: reason.to_owned(), hint: hint.map(str::to_owned) }
}

impl Subreaper {
    fn new(spec: &JobSpec) -> Result<Subreaper> {
        let tracked = Tracked::new(usable_proc()?);
        let place = RecordPlace::of(spec)?;
        let guards = Guards::launch(GuardConfig {
            cgroups: None,
            records: spec.is_listed().then_some((&place.registry, &place.owner)),
            bus: None,
        })?;
        let baseline = OnceLock::from(GuardBaseline::current()?);
        let mut job = Subreaper { tracked, guards, started: Mutex::default(), baseline };
        if let Err(error) = job.publish(spec, &place) {
            job.close();
            return Err(error);
        }
        Ok(job)
    }

    /// Lists the job if that is requested; the guards are ready then. Otherwise they find the first
    /// request when they begin.
    fn publish(&mut self, spec: &JobSpec, place: &RecordPlace) -> Result<()> {
        let guards = &self.guards;
        self.tracked.publish(spec, place, |header| {
            // Sent first: the guards find it when they begin, and are not woken for it.
            let socket = Record::listener(&place.registry, &header.id)?;
            let failed = |e| Error::os("pass the socket of the job to its guard", e);
            guards.listen(socket.as_fd()).map_err(|e| guards.start_error_or(failed(e)))?;
            guards.wait_ready()?;
            header.guards = Some(guards.ids());
            Ok(())
        })?;
        self.guards.wait_exec()?;
        self.baseline.get().inspect(|baseline| _ = baseline.examine(&self.guards));
        Ok(())
    }

    /// A view of the job of another process.
    fn open(record: Record) -> Result<Subreaper> {
        let guards = record.connect()?;
        let tracked = Tracked::view(record)?;
        Ok(Subreaper { tracked, guards, started: Mutex::default(), baseline: OnceLock::new() })
    }

    /// The guard that the members are below now; `None` if the guards have ended the job.
    fn root(&self) -> Result<Option<Root<'_>>> {
        match self.guards.root() {
            Some((pid, pidfd)) => Ok(Some(Root { pid, pidfd })),
            None if self.guards_finished() => Ok(None),
            None => Err(self.guards.start_error_or(guards_killed_error())),
        }
    }

    /// Acts on the processes below the root, and again below the next root if that one ended meanwhile.
    /// Returns `empty` if there is none.
    fn below<T>(&self, empty: T, act: impl Fn(Root<'_>) -> Result<T>) -> Result<T> {
        const ROOTS: usize = 3;
        for _ in 0..ROOTS {
            let Some(root) = self.root()? else { return Ok(empty) };
            match act(root) {
                Err(_) if is_dead(root.pidfd) => {}
                result => return result,
            }
        }
        Err(guards_killed_error())
    }

    fn baseline(&self) -> Result<&GuardBaseline> {
        if self.baseline.get().is_none() {
            let baseline = GuardBaseline::of(&self.guards)?;
            // It is that of the guard only if the guard has its pid still.
            if !self.guards.is_serving() {
                return Err(guards_killed_error());
            }
            let _ = self.baseline.set(baseline);
        }
        self.baseline.get().ok_or_else(guards_killed_error)
    }

    /// Whether the guards have ended because the job is empty, and were not killed. Only the owner gets
    /// their last message; a view reads the record.
    fn guards_finished(&self) -> bool {
        self.guards.had_finished() || self.tracked.is_over()
    }

    /// Microseconds of user and system time of the members that the guard has reaped.
    fn reaped_usage(&self) -> Result<[u64; 2]> {
        // The owner of another job can be frozen with its guards: a listing of all jobs must not wait.
        const VIEW_TIMEOUT: Duration = Duration::from_secs(1);
        let usage = match (self.guards.is_serving(), self.tracked.is_view()) {
            (false, _) => Ok([0; 2]),
            (true, true) => self.guards.ask_within(protocol::USAGE, VIEW_TIMEOUT),
            (true, false) => self.guards.ask(protocol::USAGE),
        };
        usage.map_err(|e: io::Error| guard_failed("read the CPU time of the reaped members", e))
    }

    /// Makes the guard reap the members that have ended.
    fn reap_dead(&self) {
        dropped_children::reap();
        if self.guards.is_serving() {
            let _ = self.guards.ask(protocol::SYNC);
        }
    }

    /// Waits for the outer guard if the inner one is dead: it is ending the job and knows when it is
    /// empty.
    fn wait_for_outer(&self, deadline: Option<Instant>) -> Option<Result<bool>> {
        if self.guards.is_serving() {
            return None;
        }
        event!(debug, "guards: the inner one is dead, the outer one ends the job");
        if !self.guards.wait_gone(deadline) {
            return Some(Ok(false));
        }
        Some(if self.guards_finished() { Ok(true) } else { Err(self.kill_started()) })
    }

    /// Makes the guard kill, which has the privileges that this process had when it made the job.
    fn kill_by_guard(&self) -> Result<()> {
        const PAUSE: Duration = Duration::from_millis(10);
        let start = Instant::now();
        loop {
            let [met, refused] = match self.guards.ask(protocol::KILL) {
                // The outer guard ends the job then.
                Err(_) if !self.guards.is_serving() => return self.kill(),
                round => round.map_err(|e| guard_failed("have the guard kill the members", e))?,
            };
            if self.wait(Some(Instant::now() + PAUSE))? {
                return Ok(());
            }
            if met > 0 && met == refused || start.elapsed() > KILL_TIMEOUT {
                return Err(Error::still_alive(self.processes()?, start.elapsed()));
            }
        }
    }

    /// With both guards killed, kills the children that this process has started and all below them.
    /// The error names the survivors, or states that there may be other members.
    fn kill_started(&self) -> Error {
        let start = Instant::now();
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let held = started.iter().filter_map(|(pid, held)| Some((*pid, held.upgrade()?)));
        let mut survivors = Vec::new();
        for (pid, pidfd) in held {
            let root = Root { pid: pid as i32, pidfd: pidfd.as_fd() };
            match Tree::new(root).and_then(|tree| tree.kill()) {
                Ok(()) => {}
                Err(error) if error.survivors().is_empty() => return error,
                Err(error) => survivors.extend_from_slice(error.survivors()),
            }
        }
        match survivors[..] {
            [] => guards_killed_error(),
            _ => {
                Error::still_alive(survivors, start.elapsed()).with_hint("both guards were killed")
            }
        }
    }
}

/// Whether a kill has failed because this process has no permission to signal a survivor.
fn may_not_kill(error: &Error) -> bool {
    let held = error.survivors().iter().filter_map(|process| identity::find(&process.id).ok()?);
    held.into_iter().any(|pidfd| !privilege::may_signal(pidfd.as_fd()))
}

fn guards_killed_error() -> Error {
    Error::unsupported(
        "both guards of the job were killed: members that had left the tree below the processes \
         started by this owner can no longer be found",
    )
    .with_hint("the cgroup mechanism does not depend on its guards")
}

impl Stoppable for Subreaper {
    fn terminate(&self, signal: Signal) -> Result<usize> {
        let stop = || self.below((), |root| descendants::hold(&self.tracked.proc, root));
        tracked::terminate(signal, stop, |signal| self.signal(signal))
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        loop {
            if let Some(result) = self.wait_for_outer(deadline) {
                return result;
            }
            let Some(root) = self.root()? else { return Ok(true) };
            match descendants::wait(&self.tracked.proc, root, deadline, &|| self.reap_dead()) {
                Ok(true) => return Ok(true),
                Ok(false) if has_passed(deadline) => return Ok(false),
                // The inner guard has ended: the outer one is the root now.
                Ok(false) => {}
                Err(error) if self.wait_for_outer(Some(Instant::now())).is_none() => {
                    return Err(Error::os("wait for the members of the job", error));
                }
                Err(_) => {}
            }
        }
    }

    fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        if let Some(result) = self.wait_for_outer(Some(deadline)) {
            return match result {
                Ok(false) => Err(Error::still_alive(self.processes()?, KILL_TIMEOUT)),
                result => result.map(drop),
            };
        }
        let Some(root) = self.root()? else { return Ok(()) };
        match descendants::kill(&self.tracked.proc, root, &|| self.wait(Some(Instant::now()))) {
            Err(error) if !self.tracked.is_view() && may_not_kill(&error) => {
                self.kill_by_guard()?
            }
            killed => killed?,
        }
        // Clears the list of frozen processes: they are dead.
        let _ = self.tracked.thaw();
        Ok(())
    }
}

impl Backend for Subreaper {
    fn guarantees(&self) -> Guarantees {
        let mut guarantees = guarantees();
        match self.guards.root() {
            Some((pid, pidfd)) => Tracked::check_reach(&mut guarantees, pid, pidfd),
            None => {
                guarantees.owner_death = OwnerDeath::None;
                guarantees.crosses_setuid = false;
            }
        }
        if !self.tracked.is_view() && self.guards.is_serving() {
            // The guard kills what the owner may not.
            guarantees.kill = Kill::Converging;
        }
        guarantees
    }

    fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
        if self.tracked.is_view() && self.tracked.is_over() {
            let id = self.tracked.record.as_ref().map_or("", Record::id);
            return Err(Error::stale(format!("the job {id} has ended")));
        }
        let _not_stopped_meanwhile = self.tracked.spawn_lock.shared();
        if self.tracked.is_frozen()? {
            return Err(errors::frozen());
        }
        let (guards, is_view) = (&self.guards, self.tracked.is_view());
        let spawner = GuardSpawner { guards, baseline: self.baseline()?, is_view };
        let child = spawner.spawn(command, None)?;
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if started.len() == started.capacity() {
            started.retain(|(_, held)| held.strong_count() > 0);
        }
        started.push(child.sys().downgrade());
        Ok(child)
    }

    fn join_on_exec(&self, _: &mut std::process::Command) -> Result<()> {
        Err(Error::unsupported(
            "the subreaper mechanism cannot start a std::process::Command inside a job",
        )
        .with_hint("use onejob::Command, or the cgroup mechanism"))
    }

    fn processes(&self) -> Result<Vec<Process>> {
        self.below(Vec::new(), |root| self.tracked.list(root))
    }

    fn pids(&self) -> Result<Vec<u32>> {
        self.below(Vec::new(), |root| self.tracked.pids(root))
    }

    fn signal(&self, signal: Signal) -> Result<usize> {
        let _alone = self.tracked.spawn_lock.for_signal(signal);
        self.below(0, |root| descendants::signal(&self.tracked.proc, root, None, signal))
    }

    fn record(&self) -> Option<&dyn JobRecord> {
        self.tracked.job_record()
    }

    fn stats(&self) -> Result<Stats> {
        let reaped = self.reaped_usage()?;
        self.tracked.stats(&self.processes()?, reaped)
    }

    fn snapshot(&self) -> Result<Snapshot> {
        // The members can be listed also if the guard does not reply.
        let reaped = self.reaped_usage().ok();
        let snapshot = self.below(Snapshot::default(), |root| self.tracked.snapshot(root))?;
        let live = snapshot.cpu_time.unwrap_or_default();
        let cpu_time = reaped.map(|[user, system]| live + Duration::from_micros(user + system));
        Ok(Snapshot { cpu_time, ..snapshot })
    }

    fn release(&mut self) -> Result<()> {
        self.tracked.not_owner()?;
        // First: a wait in another process takes the end of the guards for the end of the job.
        self.tracked.remove_record();
        if !self.guards.release_and_wait(KILL_TIMEOUT) {
            let timed_out = io::Error::from(io::ErrorKind::TimedOut);
            return Err(Error::os("release the job: wait for the end of its guards", timed_out));
        }
        self.tracked.ownership = Ownership::Released;
        Ok(())
    }

    fn close(&mut self) {
        if self.tracked.ownership != Ownership::Owner {
            return;
        }
        // The guards go on to kill survivors, without a limit.
        let patience = if self.kill().is_ok() { KILL_TIMEOUT } else { Duration::ZERO };
        self.guards.end(patience);
        // Last: a job is over when its record is gone.
        self.tracked.remove_record();
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        Some(self)
    }
}

impl Freezer for Subreaper {
    fn freeze(&self) -> Result<()> {
        let _alone = self.tracked.spawn_lock.alone();
        self.tracked.freeze(|record| {
            let record = RefCell::new(record);
            self.below(Vec::new(), |root| {
                let proc = &self.tracked.proc;
                descendants::freeze(proc, root, None, &mut *record.borrow_mut())
            })
        })
    }

    fn thaw(&self) -> Result<()> {
        self.tracked.thaw()
    }
}
