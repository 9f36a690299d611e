//! The job.

use std::{
    borrow::BorrowMut,
    fmt,
    time::{Duration, Instant},
};

use crate::{
    Child, Command, Error, Guarantees, Limits, Process, ProcessId, Result, Signal, Snapshot, Stats,
    StopReason, StopReport, Tree,
    name::Name,
    stop,
    sys::{self, Backend, Freezer, JobRecord, LimitControl},
    trace::event,
};

/// A set of processes managed as one unit. Every process that a member starts is a member, too.
///
/// Dropping a `Job` kills its members, unless it was [released](Job::release). The job belongs to
/// the process that made it, and ends with that process. In a forked copy of that process, dropping
/// the job does nothing, and starting or adopting a process is an error. A program that forks itself
/// into the background (`daemon(3)`) must make its jobs after the fork.
///
/// A drop returns when the members are dead. If one cannot die (it is in an uninterruptible system
/// call), it returns after 10 seconds, and the guards continue to wait for that member.
///
/// No method ever acts on the calling process. On an [enclosed](crate::JobBuilder::enclose) job,
/// `processes` and `tree` list the caller and mark it; all other methods act on the other members
/// only.
///
/// All methods take `&self` and may be called from several threads at once.
pub struct Job {
    backend: Box<dyn Backend>,
    made_by: sys::ProcessToken,
    /// Whether the job ends with this process; `false` for a view of a job of another process.
    is_owned: bool,
}

impl Job {
    pub(crate) fn owned(backend: Box<dyn Backend>, made_by: sys::ProcessToken) -> Job {
        Job { backend, made_by, is_owned: true }
    }

    /// Opens a live job of this user by its name, or by an unambiguous prefix of its id.
    ///
    /// The result is a second view of the job, not a second owner: dropping it changes nothing, and
    /// it does not keep the job alive.
    ///
    /// # Errors
    /// [`is_not_found`](Error::is_not_found) if there is no such job;
    /// [`is_invalid_input`](Error::is_invalid_input) if the text is not a valid name or is a prefix
    /// of several ids; [`is_permission_denied`](Error::is_permission_denied) if the job belongs to
    /// another user.
    pub fn open(job: &str) -> Result<Job> {
        Job::view(sys::open(&Name::new(job)?)?)
    }

    /// Opens a listed job, with its open record.
    pub(crate) fn open_listed(record: sys::Record) -> Result<Job> {
        Job::view(sys::open_listed(record)?)
    }

    fn view(backend: Box<dyn Backend>) -> Result<Job> {
        Ok(Job { backend, made_by: sys::ProcessToken::current()?, is_owned: false })
    }

    /// Starts a process as a member: it is in the job before its first instruction.
    ///
    /// If a guard starts the members ([`Guarantees::spawned_by_guard`]), call this from a thread with the
    /// rights that the process had when the job was made: a process that gives up rights (a change of
    /// user, a Landlock domain, a seccomp filter) makes a new job after that. Its members then inherit the
    /// restrictions.
    ///
    /// # Errors
    /// [`is_exec`](Error::is_exec) with the unchanged error of `execve` if the program could not be
    /// executed; [`is_invalid_input`](Error::is_invalid_input) for an empty program name or a NUL;
    /// [`is_unsupported`](Error::is_unsupported) if a guard would start the process with other rights
    /// than those of the calling thread;
    /// otherwise the error of the system call that failed. A failed spawn leaves nothing behind.
    pub fn spawn(&self, mut command: impl BorrowMut<Command>) -> Result<Child> {
        let command = command.borrow_mut();
        command.check()?;
        self.is_not_a_copy()?;
        let spawned = self.backend.spawn(command);
        match &spawned {
            Ok(child) => {
                event!(debug, "spawned", program = command.program.display(), pid = child.pid());
            }
            Err(error) => event!(debug, "spawn failed", error = error),
        }
        spawned
    }

    /// Starts a [`std::process::Command`] as a member, for code that already has one.
    ///
    /// The child joins the job by itself between `fork` and `exec`, before any code of the program
    /// runs. This is slower than [`spawn`](Job::spawn): it needs a fork, and on an idle system the
    /// kernel takes some 10 ms to move the child. The join is added to `command` as a `pre_exec`
    /// step, so do not use the same `command` for another job.
    ///
    /// # Errors
    /// [`is_unsupported`](Error::is_unsupported) under [`Mechanism::Subreaper`](crate::Mechanism::Subreaper) unless the job is
    /// enclosed: its members must be started by the guard. The same under
    /// [`Mechanism::JobObject`](crate::Mechanism::JobObject): a std command has no option to start a process in a job object.
    pub fn spawn_std(&self, command: &mut std::process::Command) -> Result<std::process::Child> {
        self.is_not_a_copy()?;
        self.backend.join_on_exec(command)?;
        let program = command.get_program().to_os_string();
        command.spawn().map_err(|e| Error::exec(format!("start {program:?} into the job"), e))
    }

    /// Makes a running process a member, together with every process that it starts from now on.
    /// Processes that it started before stay outside.
    ///
    /// # Errors
    /// [`is_stale`](Error::is_stale) if the process is gone, even if its pid is in use again (an
    /// unrelated process that was moved because it got the pid at that very moment is moved back);
    /// [`is_unsupported`](Error::is_unsupported) under [`Mechanism::Subreaper`](crate::Mechanism::Subreaper).
    pub fn adopt(&self, process: &ProcessId) -> Result<()> {
        if process.pid == std::process::id() {
            return Err(Error::invalid("a process cannot adopt itself")
                .with_hint("JobBuilder::enclose makes a job around the calling process"));
        }
        self.is_not_a_copy()?;
        self.backend.adopt(process)
    }

    /// Refuses to start processes from a forked copy of the owner. The guards do not treat the copy
    /// as an owner, so everything it started would end with the process that made the job.
    fn is_not_a_copy(&self) -> Result<()> {
        if !self.is_owned || self.made_by.is_current() {
            return Ok(());
        }
        Err(Error::unsupported(
            "this process is a forked copy of the process that made the job: the job belongs to \
             the original process and ends with it",
        )
        .with_hint("make the job after the fork, also after daemon(3)"))
    }

    /// The live members.
    ///
    /// # Errors
    /// If the list of members cannot be read.
    pub fn processes(&self) -> Result<Vec<Process>> {
        self.backend.processes()
    }

    /// The pids of the live members, including the caller of an enclosed job. Meant for counting and
    /// printing, and much faster than [`processes`](Job::processes). Do not signal a process by its
    /// pid: the pid may belong to an unrelated process by then.
    ///
    /// # Errors
    /// If the list of members cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>> {
        self.backend.pids()
    }

    /// The live members, each below its parent.
    ///
    /// # Errors
    /// If the list of members cannot be read.
    pub fn tree(&self) -> Result<Tree> {
        self.processes().map(Tree::of)
    }

    /// Whether no member is left. Zombies count as gone; a process whose main thread has ended but
    /// that has other live threads does not.
    ///
    /// # Errors
    /// If the job can no longer be observed.
    pub fn is_empty(&self) -> Result<bool> {
        self.backend.wait(Some(Instant::now()))
    }

    /// Waits until the last member has ended, no matter which process started it. Pipes that members
    /// hold open do not matter.
    ///
    /// # Errors
    /// If the job can no longer be observed.
    pub fn wait(&self) -> Result<()> {
        self.backend.wait(None).map(drop)
    }

    /// Waits for at most `timeout`; returns whether the job is empty.
    ///
    /// # Errors
    /// If the job can no longer be observed.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.backend.wait(Instant::now().checked_add(timeout))
    }

    /// Sends a signal to every member and returns the number of processes it reached. Repeats until
    /// the list of members shows no new process. Members that fork faster than this can escape the
    /// signal, but not [`kill`](Job::kill).
    ///
    /// # Errors
    /// [`is_permission_denied`](Error::is_permission_denied) if there are members and none could be
    /// signalled; [`is_unsupported`](Error::is_unsupported) on Windows for all but
    /// [`Signal::KILL`].
    pub fn signal(&self, signal: Signal) -> Result<usize> {
        self.backend.signal(signal)
    }

    /// Sends `SIGTERM` to every member (and `SIGCONT`, for members that are stopped), waits up to
    /// `grace` for them to end, then [kills](Job::kill) the rest. Returns as soon as the job is
    /// empty; a zero `grace` kills at once.
    ///
    /// Under [`Mechanism::JobObject`](crate::Mechanism::JobObject), windows get a close request and members with their own
    /// console process group get a break event. If there is neither, the kill follows at once.
    ///
    /// # Errors
    /// As [`kill`](Job::kill).
    pub fn stop(&self, grace: Duration) -> Result<StopReport> {
        self.stop_with(Signal::TERM, grace)
    }

    /// Like [`stop`](Job::stop), with another signal instead of `SIGTERM`.
    ///
    /// # Errors
    /// As [`kill`](Job::kill).
    pub fn stop_with(&self, signal: Signal, grace: Duration) -> Result<StopReport> {
        stop::stop(&*self.backend, signal, grace)
    }

    /// Waits until all members have ended, and [stops](Job::stop) those that are left after
    /// `timeout`; [`StopReport::reason`] tells the two cases apart.
    ///
    /// # Errors
    /// As [`wait`](Job::wait) and [`kill`](Job::kill).
    pub fn stop_after(&self, timeout: Duration, grace: Duration) -> Result<StopReport> {
        stop::stop_after(&*self.backend, timeout, Signal::TERM, grace)
    }

    /// Which limit the members have reached so far, the most severe one first.
    ///
    /// # Errors
    /// The error of the system call that failed.
    pub fn limit_reached(&self) -> Result<Option<StopReason>> {
        self.backend.limit_reached()
    }

    /// Kills every member, and returns when they are dead. The job can be used again.
    ///
    /// On an enclosed job, all processes that were members at entry and their descendants are dead
    /// on return; a process that another thread of the caller starts meanwhile is left to the next
    /// call.
    ///
    /// # Errors
    /// With the [`survivors`](Error::survivors) if some cannot be killed (a process of another user
    /// under [`Mechanism::Subreaper`](crate::Mechanism::Subreaper), or one stuck in the kernel): at once if no process that is
    /// left may be signalled, otherwise when no member has died for 10 seconds.
    pub fn kill(&self) -> Result<StopReport> {
        self.stop(Duration::ZERO)
    }

    /// Freezes every member: none runs until [`thaw`](Job::thaw), and no new one is started.
    ///
    /// Under [`Mechanism::Subreaper`](crate::Mechanism::Subreaper) members get `SIGSTOP`, which their parents can see.
    ///
    /// A freeze waits until the spawns of other threads of this process have returned. If *another* process
    /// freezes or stops the members during a [`spawn`](Job::spawn), or any thread does during a
    /// [`spawn_std`](Job::spawn_std), the spawn can return only after the thaw. If the job is thawed before all
    /// members are frozen, the freeze returns.
    ///
    /// # Errors
    /// The error of the system call that failed.
    pub fn freeze(&self) -> Result<()> {
        self.freezer()?.freeze()
    }

    /// Lets the members run again. A member that was stopped before the freeze stays stopped.
    ///
    /// # Errors
    /// The error of the system call that failed.
    pub fn thaw(&self) -> Result<()> {
        self.freezer()?.thaw()
    }

    /// The limits that are set.
    ///
    /// # Errors
    /// The error of the system call that failed.
    pub fn limits(&self) -> Result<Limits> {
        self.backend.limits().map_or(Ok(Limits::default()), LimitControl::get)
    }

    /// Replaces all limits with these, for present and future members.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) for a limit of zero;
    /// [`is_limit_reached`](Error::is_limit_reached) for a memory limit below what the members use
    /// and the kernel cannot reclaim (no member is killed for that);
    /// [`is_unsupported`](Error::is_unsupported) for a limit that cannot be enforced on the whole
    /// job on this host, with a hint. After an error the limits are unchanged.
    pub fn set_limits(&self, limits: &Limits) -> Result<()> {
        limits.check()?;
        match self.backend.limits() {
            Some(control) => control.set(limits),
            None if limits.resources().is_empty() => Ok(()),
            None => Err(Error::unsupported(format!(
                "cannot limit {} of this job: the {} mechanism does not support limits",
                limits.resources(),
                self.guarantees().mechanism
            ))),
        }
    }

    /// The resources that the members have used.
    ///
    /// # Errors
    /// The error of the system call that failed.
    pub fn stats(&self) -> Result<Stats> {
        self.backend.stats()
    }

    /// The members, their CPU time and memory, for listings: cheaper than [`processes`](Job::processes) and
    /// [`stats`](Job::stats) together.
    ///
    /// # Errors
    /// The error of the system call that failed.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.backend.snapshot()
    }

    /// The name of the job, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.backend.record()?.name().map(Name::as_str)
    }

    /// An id that is unique among all jobs of this boot, if the job is [listed](crate::JobBuilder::listed).
    pub fn id(&self) -> Option<&str> {
        self.backend.record().map(JobRecord::id)
    }

    /// The last note that the owner has set. A view that was opened before the end of the job can
    /// read it afterwards, too.
    ///
    /// # Errors
    /// The error of the system call that failed.
    pub fn note(&self) -> Result<Option<String>> {
        self.backend.record().map_or(Ok(None), JobRecord::note)
    }

    /// Sets a note that every process that [opens](Job::open) the job can read. Meant for a few short
    /// notes in the lifetime of a job: how it was started, how its main process ended.
    ///
    /// # Errors
    /// [`is_unsupported`](Error::is_unsupported) if the job is not [listed](crate::JobBuilder::listed) or
    /// this process is not its owner; otherwise the error of the system call that failed.
    pub fn set_note(&self, note: &str) -> Result<()> {
        let unlisted = || {
            Error::unsupported("cannot set a note: the job is not listed")
                .with_hint("make the job with JobBuilder::listed or JobBuilder::name")
        };
        self.backend.record().ok_or_else(unlisted)?.set_note(note)
    }

    /// For an [opened](Job::open) job: waits until its owner has released it, or has ended and the
    /// job with it. Returns whether that happened within `timeout`; `None` waits without a limit.
    ///
    /// # Errors
    /// [`is_unsupported`](Error::is_unsupported) for the owner itself.
    pub fn wait_closed(&self, timeout: Option<Duration>) -> Result<bool> {
        let owners =
            || Error::unsupported("cannot wait for the end of this job: this process is its owner");
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.backend.record().ok_or_else(owners)?.wait_closed(deadline)
    }

    fn freezer(&self) -> Result<&dyn Freezer> {
        self.backend.freezer().ok_or_else(|| {
            Error::unsupported(format!(
                "cannot freeze the job: the {} mechanism cannot pause its members",
                self.guarantees().mechanism
            ))
        })
    }

    /// The guarantees of this job at this moment. If a guard was killed, its guarantee is missing.
    pub fn guarantees(&self) -> Guarantees {
        self.backend.guarantees()
    }

    /// Gives up the job and leaves its members running, also when this process ends.
    ///
    /// # Errors
    /// The error of the system call that failed; the members are killed then, as by drop.
    pub fn release(mut self) -> Result<()> {
        self.backend.release()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.made_by.is_current() {
            self.backend.close();
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("guarantees", &self.guarantees()).finish_non_exhaustive()
    }
}
