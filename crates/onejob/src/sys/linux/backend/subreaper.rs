//! The Subreaper mechanism: no privilege at all.
//!
//! The inner guard is a subreaper and the parent of what the job starts, so every orphan below it
//! comes back to it, and when it has no children the job is empty. We look, signal and kill from
//! outside, walking down from it; it starts, reaps and tells.
//!
//! An enclosed job has no guard, since a running process cannot gain an ancestor: the caller itself
//! becomes the subreaper.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use rustix::process::{Pid, set_child_subreaper};

use super::errors;
use crate::{
    Accounting, Command, Containment, Error, Freeze, Guarantees, Kill, Mechanism, OwnerDeath,
    Process, Resources, Result, Signal, Stats,
    job::{Enclosure, JobSpec},
    stop::Stoppable,
    sys::{
        Backend, Explanation, Freezer, JobRecord, MechanismEntry, RecordTraits,
        linux::{
            deadline::KILL_TIMEOUT,
            guard::{client::Guards, launch::GuardConfig},
            nostd::{
                boost::is_crowd,
                procfs::Proc,
                protocol,
                syscall::{self, Errno},
            },
            process::{
                cpu_time::cpu_time,
                descendants::{self, Root},
                dropped_children, identity, privilege,
                tree::Tree,
            },
            registry::{self, Record, RecordHeader, version::guard_failed},
            spawn::{
                baseline::GuardBaseline,
                local::{self, Memory},
            },
        },
    },
};

pub(crate) struct Subreaper {
    proc: Proc,
    parent: Parent,
    /// Those that a freeze has stopped; a job that others can find keeps them in its record.
    frozen: Mutex<Vec<OwnedFd>>,
    record: Option<Record>,
    /// In a view of an enclosed job: whom a stop has asked. With its owner's end the others can no
    /// longer be found.
    asked: Mutex<Option<Arc<Tree>>>,
    /// Whether the job is not ours to end: another's, or given up.
    is_left_alone: bool,
}

/// Whom orphans come back to.
enum Parent {
    Guards {
        guards: Box<Guards>,
        /// What they have started for us, as long as its `Child` is there: without them it is all that
        /// can be found.
        started: Mutex<Vec<(u32, Weak<OwnedFd>)>>,
        /// Read when the guard was started; in a view, when it starts the first member.
        baseline: Box<OnceLock<GuardBaseline>>,
    },
    /// The owner of an enclosed job, a member itself. It is the caller, unless this is a view.
    Owner { pid: i32, pidfd: OwnedFd },
}

pub(crate) const ENTRY: MechanismEntry = MechanismEntry {
    mechanism: Mechanism::Subreaper,
    guarantees_of,
    create: |spec| Ok(Box::new(Subreaper::new(spec)?)),
    open: |record| Ok(Box::new(Subreaper::open(record)?)),
    explain,
    record: RecordTraits { has_files: true, names_guards_late: false },
};

fn guarantees_of(around: Enclosure) -> Guarantees {
    Guarantees {
        mechanism: Mechanism::Subreaper,
        containment: Containment::Tracked,
        kill: Kill::Converging,
        owner_death: match around {
            Enclosure::None => OwnerDeath::Guard,
            // The kernel ends a PID namespace with its first process.
            Enclosure::Caller if std::process::id() == 1 => OwnerDeath::Kernel,
            Enclosure::Caller => OwnerDeath::None,
        },
        crosses_setuid: privilege::crosses_users(),
        freeze: Freeze::Signals,
        cpu_accounting: match around {
            Enclosure::None => Accounting::Reaped,
            // What the caller has waited for cannot be told apart from its other children.
            Enclosure::Caller => Accounting::Live,
        },
        memory_accounting: Accounting::None,
        io_accounting: Accounting::None,
        limits: Resources::NONE,
        spawned_by_guard: around == Enclosure::None,
        reaps_orphans: true,
    }
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
    pub(crate) fn new(spec: &JobSpec) -> Result<Subreaper> {
        let proc = match spec.around {
            Enclosure::None => usable_proc()?,
            // No guard has to find one, too.
            Enclosure::Caller => usable_proc().or_else(|error| own_proc().map_err(|_| error))?,
        };
        let (owner, registry) = match spec.is_listed() {
            true => (registry::fresh_owner()?, registry::place()),
            false => Default::default(),
        };
        let parent = match spec.around {
            Enclosure::None => {
                let guards = Guards::launch(GuardConfig {
                    cgroups: None,
                    records: spec.is_listed().then_some((&registry, &owner)),
                    bus: None,
                })?;
                Parent::Guards {
                    guards: guards.into(),
                    started: Mutex::default(),
                    baseline: Box::new(GuardBaseline::current()?.into()),
                }
            }
            Enclosure::Caller => enclose(&proc)?,
        };
        let mut job = Subreaper {
            proc,
            parent,
            frozen: Mutex::default(),
            record: None,
            asked: Mutex::default(),
            is_left_alone: false,
        };
        match job.publish(spec, &registry, format!("{owner}1")) {
            Ok(record) => job.record = record,
            Err(error) => {
                job.close();
                return Err(error);
            }
        }
        Ok(job)
    }

    /// Makes the job known if it is to be: with a name it must be possible. Its guards stand then;
    /// otherwise the first request finds them when they begin.
    fn publish(&self, spec: &JobSpec, registry: &Path, id: String) -> Result<Option<Record>> {
        let guards = match &self.parent {
            Parent::Guards { guards, .. } => Some(&**guards),
            Parent::Owner { .. } => None,
        };
        let record = || {
            let mut card =
                RecordHeader::new(id, crate::Mechanism::Subreaper, spec.around, Some(&self.proc))?;
            card.name = spec.name.clone();
            Record::publish(registry, card, spec.note.as_deref(), |card| {
                let Some(guards) = guards else { return Ok(()) };
                // First: they find it when they begin, and need not be woken for it.
                let socket = Record::listener(registry, &card.id)?;
                let failed = |e| Error::os("have the guard of the job listen", e);
                guards.listen(socket.as_fd()).map_err(|e| guards.start_error_or(failed(e)))?;
                guards.wait_ready()?;
                card.guards = Some(guards.ids());
                Ok(())
            })
        };
        let record = if spec.is_listed() { spec.published(record())? } else { None };
        if let Parent::Guards { guards, baseline, .. } = &self.parent {
            guards.wait_exec()?;
            baseline.get().inspect(|baseline| _ = baseline.examine(guards));
        }
        Ok(record)
    }

    /// A view of another process' job.
    pub(crate) fn open(record: Record) -> Result<Subreaper> {
        let proc = usable_proc()?;
        let parent = match record.header.around {
            Enclosure::None => Parent::Guards {
                guards: record.connect()?.into(),
                started: Mutex::default(),
                baseline: Box::default(),
            },
            Enclosure::Caller => {
                let owner = &record.header.owner;
                Parent::Owner { pid: owner.pid as i32, pidfd: identity::reopen(owner)? }
            }
        };
        let (frozen, asked) = Default::default();
        Ok(Subreaper { proc, parent, frozen, record: Some(record), asked, is_left_alone: true })
    }

    /// From where the members are found, at this moment; `None` once they have all been ended.
    fn root(&self) -> Result<Option<Root<'_>>> {
        match &self.parent {
            Parent::Owner { pid, pidfd } => Ok(Some(Root { pid: *pid, pidfd: pidfd.as_fd() })),
            Parent::Guards { guards, .. } => match guards.root() {
                Some((pid, pidfd)) => Ok(Some(Root { pid, pidfd })),
                None if self.guards_finished(guards) => Ok(None),
                None => Err(guards.start_error_or(guards_killed_error())),
            },
        }
    }

    /// Does something with those below the root. Should that end meanwhile, it is asked again who
    /// is it now; `nobody` once there is none.
    fn below<T>(&self, nobody: T, act: impl Fn(Root<'_>) -> Result<T>) -> Result<T> {
        const ROOTS: usize = 3;
        for _ in 0..ROOTS {
            let Some(root) = self.root()? else { return Ok(nobody) };
            match act(root) {
                Err(_) if syscall::is_dead(root.pidfd.as_raw_fd()) => {}
                result => return result,
            }
        }
        Err(guards_killed_error())
    }

    /// What children inherit from the guard, which never changes.
    fn baseline<'a>(
        &self,
        guards: &Guards,
        known: &'a OnceLock<GuardBaseline>,
    ) -> Result<&'a GuardBaseline> {
        if known.get().is_none() {
            let baseline = GuardBaseline::of(guards)?;
            if !guards.is_serving() {
                return Err(guards_killed_error());
            }
            let _ = known.set(baseline);
        }
        known.get().ok_or_else(guards_killed_error)
    }

    /// Whether its owner has let go of it.
    fn is_over(&self) -> bool {
        self.record.as_ref().is_some_and(Record::is_over)
    }

    /// Whether the guards are gone because nobody was left. The record tells those who have not
    /// started them.
    fn guards_finished(&self, guards: &Guards) -> bool {
        guards.had_finished() || self.is_over()
    }

    /// The owner of an enclosed job, if it is a member like any other to us.
    fn owner(&self) -> Option<Root<'_>> {
        match &self.parent {
            Parent::Owner { pid, pidfd } if *pid as u32 != std::process::id() => {
                Some(Root { pid: *pid, pidfd: pidfd.as_fd() })
            }
            _ => None,
        }
    }

    /// Whether a freeze stands, whoever has made it.
    fn is_frozen(&self) -> Result<bool> {
        match &self.record {
            Some(record) => record.is_frozen(),
            None => Ok(!self.frozen.lock().unwrap_or_else(PoisonError::into_inner).is_empty()),
        }
    }

    /// Whether the job can be seen, but is another's.
    fn is_view(&self) -> bool {
        self.is_left_alone && self.record.is_some()
    }

    /// Has whoever died reaped by the guard.
    fn reap_dead(&self) {
        dropped_children::reap();
        if let Parent::Guards { guards, .. } = &self.parent
            && guards.is_serving()
        {
            let _ = guards.ask(protocol::SYNC);
        }
    }

    /// With the inner guard dead, the outer one is ending the job and knows when it is empty.
    fn wait_for_outer(&self, deadline: Option<Instant>) -> Option<Result<bool>> {
        let Parent::Guards { guards, .. } = &self.parent else { return None };
        if guards.is_serving() {
            return None;
        }
        if !guards.wait_gone(deadline) {
            return Some(Ok(false));
        }
        Some(if self.guards_finished(guards) { Ok(true) } else { Err(self.end_found()) })
    }

    /// With both guards killed the job ends, as with one: whoever is below what we know of is killed.
    /// Names those that could not be, or says that there may be others.
    fn end_found(&self) -> Error {
        let Parent::Guards { started, .. } = &self.parent else { return guards_killed_error() };
        let start = Instant::now();
        let started = started.lock().unwrap_or_else(PoisonError::into_inner).clone();
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

fn ended_error(record: Option<&Record>) -> Error {
    Error::stale(format!("the job {} has ended", record.map_or("", Record::id)))
}

fn guards_killed_error() -> Error {
    Error::unsupported(
        "both guards of the job were killed: members that had left the tree below what was started \
         can no longer be found",
    )
    .with_hint("the cgroup mechanism does not depend on its guards")
}

/// A /proc that shows what we are going to walk through.
fn usable_proc() -> Result<Proc> {
    Proc::open().map_err(|errno| match errno {
        Errno::STALE => Error::unsupported("/proc shows another PID namespace than ours")
            .with_hint("mount a fresh one: mount -t proc proc /proc"),
        Errno::NOENT | Errno::NOTDIR => Error::unsupported("/proc is not mounted")
            .with_hint("mount it: mount -t proc proc /proc"),
        errno => Error::os("open /proc", errno),
    })
}

/// A fresh one that nobody else sees: whoever made a PID namespace and did not mount one may do so.
fn own_proc() -> std::result::Result<Proc, Errno> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen,
    };
    let errno = |e: rustix::io::Errno| Errno(e.raw_os_error());
    let proc = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)?;
    fsconfig_create(proc.as_fd()).map_err(errno)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let dir = fsmount(proc.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(errno)?;
    Proc::at(syscall::Fd(dir.into_raw_fd()))
}

fn enclose(proc: &Proc) -> Result<Parent> {
    let pid = std::process::id();
    let mut children = 0;
    proc.children(pid as i32, &mut |_| children += 1)
        .map_err(|e| Error::os("list the children of this process", e))?;
    // What PID 1 has got already is below it like everything else in its namespace.
    if children > 0 && pid != 1 {
        return Err(Error::unsupported(format!(
            "this process already has {children} children, whose orphans could not be told apart \
             from members"
        ))
        .with_hint("enclose before the first child is started"));
    }
    let pidfd = identity::caller()?;
    // We are no child of ours, is the answer of a kernel that knows what is asked.
    if syscall::reap(pidfd.as_raw_fd(), false).is_err_and(|errno| errno == Errno::INVAL) {
        return Err(identity::no_pidfds());
    }
    set_child_subreaper(Pid::from_raw(pid as i32))
        .map_err(|e| Error::os("become a child subreaper", e))?;
    Ok(Parent::Owner { pid: pid as i32, pidfd })
}

impl Subreaper {
    fn stop_targets(&self) -> MutexGuard<'_, Option<Arc<Tree>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the owner of an enclosed job with everybody below it. Nobody else removes the record
    /// then: such an owner has no guards.
    fn kill_with_owner(&self, owner: Root<'_>) -> Result<()> {
        match self.stop_targets().take() {
            Some(asked) => asked.kill()?,
            None => Tree::new(owner)?.kill()?,
        }
        self.record.as_ref().map(|record| record.owner_alive_or_reaped(Duration::ZERO));
        Ok(())
    }
}

/// Writes down whom a freeze is about to stop.
type RecordFrozen<'a> = &'a mut dyn FnMut(i32, BorrowedFd<'_>) -> io::Result<()>;

impl Stoppable for Subreaper {
    fn terminate(&self, signal: Signal) -> Result<usize> {
        if let Some(owner) = self.owner() {
            let tree = Arc::new(Tree::new(owner)?);
            let asked = tree.terminate(signal);
            *self.stop_targets() = Some(tree);
            return asked;
        }
        if is_crowd() {
            let _ = self.below((), |root| descendants::hold(&self.proc, root));
        }
        let asked = self.signal(signal);
        let _ = self.signal(Signal::CONT);
        match asked {
            // No member may be signalled by this user: the kill reports it.
            Err(error) if error.is_permission_denied() => Ok(0),
            asked => asked,
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        if let Some(owner) = self.owner() {
            let asked = self.stop_targets().clone();
            return match asked {
                Some(asked) => asked.wait(deadline),
                None => Ok(descendants::wait_dead(owner, deadline)),
            };
        }
        loop {
            if let Some(answer) = self.wait_for_outer(deadline) {
                return answer;
            }
            let Some(root) = self.root()? else { return Ok(true) };
            match descendants::wait(&self.proc, root, deadline, &|| self.reap_dead()) {
                Ok(true) => return Ok(true),
                Ok(false) if crate::sys::linux::deadline::has_passed(deadline) => return Ok(false),
                // The inner guard has gone: ask again who the root is now.
                Ok(false) => {}
                Err(error) if self.wait_for_outer(Some(Instant::now())).is_none() => {
                    return Err(Error::os("watch the members of the job", error));
                }
                Err(_) => {}
            }
        }
    }

    fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        if let Some(answer) = self.wait_for_outer(Some(deadline)) {
            return match answer {
                Ok(false) => Err(Error::still_alive(self.processes()?, KILL_TIMEOUT)),
                answer => answer.map(drop),
            };
        }
        let Some(root) = self.root()? else { return Ok(()) };
        match self.owner() {
            Some(owner) => self.kill_with_owner(owner)?,
            None => descendants::kill(&self.proc, root, &|| self.wait(Some(Instant::now())))?,
        }
        // What is left of a freeze concerns the dead.
        let _ = self.thaw_all();
        Ok(())
    }
}

impl Backend for Subreaper {
    fn guarantees(&self) -> Guarantees {
        let around = match &self.parent {
            Parent::Guards { .. } => Enclosure::None,
            Parent::Owner { .. } => Enclosure::Caller,
        };
        let mut promised = guarantees_of(around);
        let (pid, pidfd) = match &self.parent {
            Parent::Owner { pid, pidfd } => (*pid, pidfd.as_fd()),
            Parent::Guards { guards, .. } => match guards.root() {
                Some(root) => root,
                None => {
                    promised.owner_death = OwnerDeath::None;
                    promised.crosses_setuid = false;
                    return promised;
                }
            },
        };
        // Owner and guards must both reach whatever the job has become.
        promised.crosses_setuid &= privilege::process_crosses_users(pid);
        // Members begin with the user and the security context of the process that starts them.
        if !privilege::may_signal(pidfd) {
            promised.kill = Kill::BestEffort;
            promised.freeze = Freeze::None;
            promised.crosses_setuid = false;
        }
        promised
    }

    fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
        match &self.parent {
            Parent::Owner { .. } if self.is_view() => Err(Error::unsupported(
                "the members of a job that encloses its owner are started by that alone",
            )),
            Parent::Owner { .. } => local::local(command, None, Memory::Shared),
            Parent::Guards { .. } if self.is_view() && self.is_over() => {
                Err(ended_error(self.record.as_ref()))
            }
            Parent::Guards { guards, started, baseline } => {
                if !guards.may_be_serving() {
                    return Err(Error::unsupported(
                        "the guard of the job was killed, the job ends",
                    ));
                }
                if self.is_frozen()? {
                    return Err(errors::frozen());
                }
                let baseline = self.baseline(guards, baseline)?;
                let inherited = baseline.check(guards, self.is_view())?;
                let child = local::remote(command, guards, &inherited, &baseline.limits, None)?;
                let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
                if started.len() == started.capacity() {
                    started.retain(|(_, held)| held.strong_count() > 0);
                }
                started.push(child.sys().held());
                Ok(child)
            }
        }
    }

    fn join_on_exec(&self, _: &mut std::process::Command) -> Result<()> {
        match &self.parent {
            Parent::Owner { .. } if !self.is_view() => Ok(()),
            _ => Err(Error::unsupported(
                "under the subreaper mechanism a std command cannot be started into a job",
            )
            .with_hint("use onejob::Command, or the cgroup mechanism")),
        }
    }

    fn processes(&self) -> Result<Vec<Process>> {
        let failed = |e: io::Error| Error::os("list the members of the job", e);
        let mut members =
            self.below(Vec::new(), |root| descendants::list(&self.proc, root).map_err(failed))?;
        if let Parent::Owner { pid, pidfd } = &self.parent
            && !syscall::is_dead(pidfd.as_raw_fd())
        {
            let owner = identity::describe(*pid as u32, pidfd.as_fd(), Some(&self.proc));
            members.insert(0, owner);
        }
        Ok(members)
    }

    fn pids(&self) -> Result<Vec<u32>> {
        let failed = |e: io::Error| Error::os("list the members of the job", e);
        let mut members =
            self.below(Vec::new(), |root| descendants::pids(&self.proc, root).map_err(failed))?;
        if let Parent::Owner { pid, pidfd } = &self.parent
            && !syscall::is_dead(pidfd.as_raw_fd())
        {
            members.insert(0, *pid as u32);
        }
        Ok(members)
    }

    fn signal(&self, signal: Signal) -> Result<usize> {
        self.below(0, |root| descendants::signal(&self.proc, root, self.owner(), signal))
    }

    fn record(&self) -> Option<&dyn JobRecord> {
        self.record.as_ref().map(|record| record as &dyn JobRecord)
    }

    fn stats(&self) -> Result<Stats> {
        let failed = |e: io::Error| guard_failed("read what the job has used", e);
        let dead = match &self.parent {
            Parent::Guards { guards, .. } if guards.is_serving() => {
                // Whose job it is may be frozen itself, which is not to hold up who lists all jobs.
                const PATIENCE: Duration = Duration::from_secs(1);
                let usage = match self.is_view() {
                    true => guards.ask_within(protocol::USAGE, PATIENCE),
                    false => guards.ask(protocol::USAGE),
                };
                usage.map_err(failed)?
            }
            _ => [0; 2],
        };
        let members = self.processes()?;
        let [mut user, mut system] = dead;
        for member in members.iter().filter(|member| !member.is_caller) {
            let [more_user, more_system] = cpu_time(&self.proc, &member.id).map_err(failed)?;
            (user, system) = (user + more_user, system + more_system);
        }
        Ok(Stats {
            cpu_user: Some(Duration::from_micros(user)),
            cpu_system: Some(Duration::from_micros(system)),
            processes: members.len(),
            ..Stats::default()
        })
    }

    fn release(&mut self) -> Result<()> {
        if self.is_view() {
            return Err(errors::not_owner());
        }
        // First: whoever waits takes the guards' leaving for the end, which it is to them.
        self.record.take().inspect(Record::remove);
        if let Parent::Guards { guards, .. } = &self.parent
            && !guards.release_and_wait(KILL_TIMEOUT)
        {
            return Err(Error::os(
                "have the guards of the job leave",
                io::Error::from(io::ErrorKind::TimedOut),
            ));
        }
        self.is_left_alone = true;
        Ok(())
    }

    fn close(&mut self) {
        if self.is_left_alone {
            return;
        }
        match &self.parent {
            Parent::Guards { guards, .. } => {
                // Survivors are the guards' to watch, for as long as it takes.
                let patience = if self.kill().is_ok() { KILL_TIMEOUT } else { Duration::ZERO };
                guards.end(patience);
            }
            Parent::Owner { .. } => {
                let _ = self.kill();
            }
        }
        // Last: a job is over when its record is gone.
        self.record.take().inspect(Record::remove);
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        Some(self)
    }
}

impl Freezer for Subreaper {
    fn freeze(&self) -> Result<()> {
        let freeze = |note: RecordFrozen<'_>| {
            let note = RefCell::new(note);
            self.below(Vec::new(), |root| {
                descendants::freeze(&self.proc, root, self.owner(), &mut *note.borrow_mut())
            })
        };
        let Some(record) = &self.record else {
            let stopped = freeze(&mut |_, _| Ok(()))?;
            let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
            frozen.extend(stopped);
            return Ok(());
        };
        let list = record.freezing()?;
        let mut note = |pid: i32, pidfd: BorrowedFd<'_>| {
            list.add(&identity::of_pidfd(pid as u32, pidfd, Some(&self.proc)))
        };
        let stopped = freeze(&mut note)?;
        match list.persist() {
            Ok(true) => {}
            // Another process has thawed the job meanwhile, without these.
            Ok(false) => {
                descendants::thaw(stopped.iter().map(OwnedFd::as_fd))
                    .map_err(|e| Error::os("thaw the job", e))?;
            }
            Err(e) => {
                let _ = descendants::thaw(stopped.iter().map(OwnedFd::as_fd));
                return Err(Error::os("freeze the job", e));
            }
        }
        Ok(())
    }

    fn thaw(&self) -> Result<()> {
        self.thaw_all()
    }
}

impl Subreaper {
    /// Lets those go that a freeze has stopped.
    fn thaw_all(&self) -> Result<()> {
        let failed = |e: io::Error| Error::os("thaw the job", e);
        match &self.record {
            Some(record) => record.thaw(|ids| {
                let held = ids.iter().filter_map(|id| identity::find(id).transpose());
                let stopped = held.collect::<Result<Vec<_>>>()?;
                descendants::thaw(stopped.iter().map(OwnedFd::as_fd)).map_err(failed)
            }),
            None => {
                let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
                descendants::thaw(frozen.iter().map(OwnedFd::as_fd)).map_err(failed)?;
                frozen.clear();
                Ok(())
            }
        }
    }
}
