//! A job: that of this owner, or a view of the job of another process.

use std::{
    num::NonZero,
    os::windows::io::AsHandle as _,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use windows_sys::Win32::System::{
    JobObjects::{
        JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectCpuRateControlInformation,
        JobObjectExtendedLimitInformation,
    },
    Threading::{PROCESS_SET_QUOTA, PROCESS_TERMINATE},
};

use super::{
    KILL_TIMEOUT,
    child::no_signal,
    directory,
    graceful::{self, Group},
    handles::{has_passed, is_signalled, wait_any},
    identity, limits,
    object::{Member, Members, Object},
    probe,
    record::{self, Record, RecordHeader},
    shared_state::SharedState,
    spawn,
    wait::{EndSignal, Registration},
};
use crate::{
    Command, Error, Guarantees, Limits, Process, ProcessId, Result, Signal, Stats, StopReason,
    name::Name,
    spec::{Enclosure, JobSpec},
    stop::Stoppable,
    sys::{Backend, Freezer, JobRecord, LimitControl, MechanismEntry, RecordTraits},
};

mod control;

pub(crate) struct JobObject {
    hold: Ownership,
    record: Option<Record>,
    shared: SharedState,
    groups: Mutex<Vec<Group>>,
}

/// The handles through which this process uses the job.
enum Ownership {
    /// The owner's handles. When the last one of the job is closed, the kernel ends the members.
    Owner {
        object: Arc<Object>,
        around: Enclosure,
        /// Made by the first wait that has to sleep.
        watch: OnceLock<Option<Registration>>,
    },
    /// None: a handle would keep the job alive when its owner dies, so it is opened for each
    /// operation alone, and never while waiting.
    View,
    Nothing,
}

/// The state of a wait for the end of the members.
#[derive(Default)]
struct WaitState {
    has_begun: bool,
    bell: Option<EndSignal>,
    /// How long it sleeps before it checks again when no member can be opened and no message arrives.
    pause: Duration,
}

const SHORT_WAIT: Duration = Duration::from_millis(1);
const LONG_WAIT: Duration = Duration::from_millis(250);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) const ENTRY: MechanismEntry = MechanismEntry {
    mechanism: crate::Mechanism::JobObject,
    guarantees_of: probe::guarantees_of,
    create: |spec| Ok(Box::new(JobObject::new(spec)?)),
    open: |_| unreachable!("on Windows a job is opened by its name"),
    explain: probe::explain,
    record: RecordTraits { has_files: false, names_guards_late: false },
};

impl JobObject {
    pub(super) fn new(spec: &JobSpec) -> Result<JobObject> {
        let failed = |e| Error::os("create a Job Object", e);
        // First, so that no object is made if the name is taken.
        let claim = spec.name.as_ref().map(record::claim).transpose()?;
        let card = spec.is_listed().then(|| RecordHeader::new(spec.name.clone()));
        let object = match &card {
            Some(card) => Object::create(&card.object()),
            None => Object::anonymous(),
        };
        let object = Arc::new(object.map_err(failed)?);
        let shared = SharedState::create(card.as_ref().map(RecordHeader::shared).as_deref())
            .map_err(failed)?;
        let mut job = JobObject {
            hold: Ownership::Owner { object, around: spec.around, watch: OnceLock::new() },
            record: None,
            shared,
            groups: Mutex::default(),
        };
        let object = job.object()?;
        job.write_limits(&object, &spec.limits, true)?;
        if let Some(card) = card {
            let record = Record::publish(card, claim, spec.note.as_deref());
            job.record = spec.published(record)?;
        }
        // Last: from now on, dropping the job ends this process, too.
        if spec.around == Enclosure::Caller {
            object.assign_caller().map_err(|e| {
                Error::os("put this process into a Job Object", e)
                    .with_hint("a job around this process may refuse to have another nested in it")
            })?;
        }
        Ok(job)
    }

    pub(super) fn open(name: &Name) -> Result<JobObject> {
        let record = directory::find(name)?;
        let failed = |e| Error::os(format!("open the job {name}"), e);
        Ok(JobObject {
            hold: Ownership::View,
            shared: SharedState::open(&record.card.shared()).map_err(failed)?,
            record: Some(record),
            groups: Mutex::default(),
        })
    }

    /// The kernel object, for a short time; `None` if the job has ended with its owner.
    fn live(&self) -> Option<Arc<Object>> {
        match &self.hold {
            Ownership::Owner { object, .. } => Some(Arc::clone(object)),
            Ownership::View => {
                let record = self.record.as_ref().filter(|record| !record.is_over())?;
                Object::open(&record.card.object()).ok().map(Arc::new)
            }
            Ownership::Nothing => None,
        }
    }

    fn object(&self) -> Result<Arc<Object>> {
        let which = || self.record.as_ref().map_or("", Record::id);
        let ended = || Error::stale(format!("the job {} has ended", which()));
        self.live().ok_or_else(ended)
    }

    fn write_limits(&self, object: &Object, limits: &Limits, dies: bool) -> Result<()> {
        let failed = |e| Error::os("set the limits of the job", e);
        let shared = self.shared.lock().map_err(failed)?;
        let used = limits::user_time(object).map_err(failed)?;
        let whole = limits::extended(limits, used, dies);
        object.set(JobObjectExtendedLimitInformation, &whole).map_err(failed)?;
        // Not written if nothing changes: an old system may not support it.
        if limits.cpu_max.is_some() || shared.limits().cpu_max.is_some() {
            let processors = thread::available_parallelism().map_or(1, NonZero::get) as u32;
            let rate = limits::cpu_rate(limits, processors);
            object.set(JobObjectCpuRateControlInformation, &rate).map_err(failed)?;
        }
        shared.set_limits(limits);
        Ok(())
    }

    fn members(&self, rights: u32) -> Result<Members> {
        self.object()?.members(rights).map_err(|e| Error::os("list the members of the job", e))
    }

    /// One round: kills all listed members except the caller. If the caller is not a member, this is
    /// one operation.
    fn terminate_round(&self, object: &Object) -> std::io::Result<bool> {
        if !object.contains_caller()? {
            object.terminate()?;
            return Ok(true);
        }
        let members = object.members(PROCESS_TERMINATE)?;
        for member in &members.others {
            // Proven to be a member through this handle.
            let _ = super::child::terminate(member.process.as_handle());
        }
        Ok(!members.others.is_empty() || members.hidden.is_empty())
    }

    /// An event that is signalled for each end of a member from now on. A view has none: the port
    /// belongs to the owner.
    fn end_signal(&self, object: &Object) -> Option<EndSignal> {
        let Ownership::Owner { watch, .. } = &self.hold else { return None };
        watch.get_or_init(|| Registration::already_ended(object).ok()).as_ref()?.end_signal().ok()
    }

    /// Waits until a member may have ended.
    fn sleep(
        &self,
        object: Arc<Object>,
        vigil: &mut WaitState,
        until: Option<Instant>,
    ) -> Result<()> {
        let failed = |e| Error::os("wait for the job", e);
        if !vigil.has_begun {
            *vigil =
                WaitState { has_begun: true, bell: self.end_signal(&object), pause: SHORT_WAIT };
            // A member that ended before the event existed is noticed by checking once more.
            return Ok(());
        }
        let member = object.any_member().map_err(failed)?;
        // A view has no handle of the job open while it sleeps.
        drop(object);
        let bell = vigil.bell.as_ref().map(EndSignal::as_handle);
        let member = member.as_ref().map(|member| member.process.as_handle());
        let ends = match (&self.hold, &self.record) {
            (Ownership::View, Some(record)) => record.ends(),
            _ => Vec::new(),
        };
        // All members are about to end, or cannot be opened by this process: a lost message would be
        // missed, so the sleep is limited.
        let blind = (member.is_none()).then(|| Instant::now() + vigil.pause);
        vigil.pause = if member.is_none() { LONG_WAIT.min(vigil.pause * 2) } else { SHORT_WAIT };
        let until = [until, blind].into_iter().flatten().min();
        let handles: Vec<_> = bell.into_iter().chain(member).chain(ends).collect();
        if handles.is_empty() {
            thread::sleep(
                blind.map_or(SHORT_WAIT, |it| it.saturating_duration_since(Instant::now())),
            );
            return Ok(());
        }
        wait_any(&handles, until).map_err(failed).map(drop)
    }

    /// Removes the record: other processes can no longer find the job.
    fn reclaim(&self) {
        self.record.iter().for_each(Record::remove);
    }

    fn survivors(&self, since: Instant) -> Error {
        self.processes().map_or_else(
            |error| error,
            |mut all| {
                all.retain(|process| !process.is_caller);
                Error::still_alive(all, since.elapsed())
            },
        )
    }
}

impl Stoppable for JobObject {
    /// Only CPU time: the kernel does not count how often the other limits were reached.
    fn limit_reached(&self) -> Result<Option<StopReason>> {
        // The object of an ended job counts nothing any more.
        let (Some(limit), Some(object)) = (LimitControl::get(self)?.cpu_time_max, self.live())
        else {
            return Ok(None);
        };
        let used =
            limits::user_time(&object).map_err(|e| Error::os("read the CPU time of the job", e))?;
        Ok((used >= limit).then_some(StopReason::CpuTime))
    }

    /// For SIGTERM, requests a graceful end of the members that support it.
    fn terminate(&self, signal: Signal) -> Result<usize> {
        match signal {
            Signal::TERM => {
                let members = self.members(0)?;
                Ok(graceful::request_end(&members.others, &lock(&self.groups)).len())
            }
            _ => self.signal(signal),
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        let mut vigil = WaitState::default();
        loop {
            let Some(object) = self.live() else { return Ok(true) };
            if object.other_members().map_err(|e| Error::os("observe the job", e))? == 0 {
                return Ok(true);
            }
            if has_passed(deadline) {
                return Ok(false);
            }
            self.sleep(object, &mut vigil, deadline)?;
        }
    }

    fn kill(&self) -> Result<()> {
        let failed = |e| Error::os("kill the job", e);
        let start = Instant::now();
        let (mut fewest, mut last_death) = (u32::MAX, start);
        let mut vigil = WaitState::default();
        loop {
            let Some(object) = self.live() else { return Ok(()) };
            let others = object.other_members().map_err(failed)?;
            if others == 0 {
                return self.shared.clear().map_err(failed);
            }
            if others < fewest {
                (fewest, last_death) = (others, Instant::now());
            }
            let can_be_killed = self.terminate_round(&object).map_err(failed)?;
            if !can_be_killed || last_death.elapsed() > KILL_TIMEOUT {
                return Err(self.survivors(start));
            }
            self.sleep(object, &mut vigil, Instant::now().checked_add(LONG_WAIT))?;
        }
    }
}

impl Backend for JobObject {
    fn guarantees(&self) -> Guarantees {
        let around = match self.hold {
            Ownership::Owner { around, .. } => around,
            _ => Enclosure::None,
        };
        probe::guarantees_of(around)
    }

    fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
        if !self.shared.is_thawed() {
            return Err(Error::unsupported("cannot start a process in a frozen job")
                .with_hint("thaw the job first"));
        }
        let child = spawn::spawn(&*self.object()?, command)?;
        if command.new_group
            && let Ok(process) = identity::reopen(&child.id(), 0)
        {
            let mut groups = lock(&self.groups);
            groups.retain(|group| !is_signalled(group.process.as_handle()));
            groups.push(Group { leader: child.pid(), process });
        }
        Ok(child)
    }

    fn join_on_exec(&self, _: &mut std::process::Command) -> Result<()> {
        let inside = self.object()?.contains_caller();
        if inside.map_err(|e| Error::os("observe the job", e))? {
            return Ok(());
        }
        Err(Error::unsupported("std::process::Command cannot start a process in a Job Object")
            .with_hint("use Job::spawn, or enclose this process with JobBuilder::enclose"))
    }

    fn adopt(&self, process: &ProcessId) -> Result<()> {
        let object = self.object()?;
        let held = identity::reopen(process, PROCESS_SET_QUOTA | PROCESS_TERMINATE)?;
        if object.contains(held.as_handle()).unwrap_or(false) {
            return Ok(());
        }
        object.assign(held.as_handle()).map_err(|e| {
            Error::os(format!("put process {process} into the job"), e).with_hint(
                "a process in another job can only join a job that is empty or nested in that job",
            )
        })
    }

    fn pids(&self) -> Result<Vec<u32>> {
        self.object()?.pids().map_err(|e| Error::os("list the members of the job", e))
    }

    fn processes(&self) -> Result<Vec<Process>> {
        let members = self.members(0)?;
        let describe = |member: &Member| identity::describe(member.pid, member.process.as_handle());
        let mut all: Vec<_> = members.others.iter().map(describe).collect();
        let unknown = |pid: &u32| Process {
            id: ProcessId { pid: *pid, start: 0, boot: 0, inode: 0 },
            parent: None,
            name: String::new(),
            is_caller: false,
        };
        all.extend(members.hidden.iter().map(unknown));
        if members.has_caller
            && let Ok(us) = identity::open(std::process::id(), 0)
        {
            all.push(identity::describe(std::process::id(), us.as_handle()));
        }
        Ok(all)
    }

    fn signal(&self, signal: Signal) -> Result<usize> {
        if signal != Signal::KILL {
            return Err(no_signal(signal));
        }
        let object = self.object()?;
        let failed = |e| Error::os("kill the job", e);
        let others = object.other_members().map_err(failed)?;
        self.terminate_round(&object).map_err(failed)?;
        Ok(others as usize)
    }

    fn record(&self) -> Option<&dyn JobRecord> {
        self.record.as_ref().map(|record| record as &dyn JobRecord)
    }

    fn stats(&self) -> Result<Stats> {
        let failed = |e| Error::os("read the resource usage of the job", e);
        let object = self.object()?;
        let mut stats = Stats {
            processes: object.accounting().map_err(failed)?.ActiveProcesses as usize,
            processes_total: Some(object.accounting().map_err(failed)?.TotalProcesses.into()),
            ..Stats::default()
        };
        if !probe::is_wine() {
            let used = object.accounting().map_err(failed)?;
            let time = |units: i64| Some(Duration::from_nanos(u64::try_from(units).ok()? * 100));
            let peak: JOBOBJECT_EXTENDED_LIMIT_INFORMATION =
                object.query(JobObjectExtendedLimitInformation).map_err(failed)?;
            stats.cpu_user = time(used.TotalUserTime);
            stats.cpu_system = time(used.TotalKernelTime);
            stats.memory_peak = Some(peak.PeakJobMemoryUsed as u64);
        }
        Ok(stats)
    }

    fn release(&mut self) -> Result<()> {
        if matches!(self.hold, Ownership::Owner { .. }) {
            self.write_limits(&*self.object()?, &LimitControl::get(self)?, false)?;
            self.reclaim();
        }
        self.hold = Ownership::Nothing;
        Ok(())
    }

    fn close(&mut self) {
        if let Ownership::Owner { around, .. } = self.hold {
            let _ = self.kill();
            self.reclaim();
            // The last handle is closed next, which would end this process as a member.
            if around == Enclosure::Caller {
                let _ = self.release();
            }
        }
    }

    fn limits(&self) -> Option<&dyn LimitControl> {
        Some(self)
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::windows::test_process::{LONG, reader};

    #[test]
    fn a_wait_ends_also_when_every_message_is_lost() {
        let mut job = JobObject::new(&JobSpec::plain(Enclosure::None)).unwrap();
        let Ownership::Owner { watch, .. } = &mut job.hold else { panic!("the owner") };
        *watch = OnceLock::from(Some(Registration::without_messages()));
        let object = job.object().unwrap();
        let mut members = [reader(), reader()];
        members.iter().for_each(|it| object.assign(it.as_handle()).unwrap());
        thread::scope(|scope| {
            let waiter = scope.spawn(|| job.wait(Instant::now().checked_add(LONG)));
            for member in &mut members {
                thread::sleep(Duration::from_millis(50));
                drop(member.stdin.take());
                member.wait().unwrap();
            }
            assert!(waiter.join().unwrap().unwrap(), "empty");
        });
        job.close();
    }
}
