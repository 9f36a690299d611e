//! The job and its builder.

use std::{
    borrow::BorrowMut,
    fmt,
    time::{Duration, Instant},
};

use crate::{
    Child, Command, Error, Guarantees, Limits, Mechanism, Process, ProcessId, Requirement, Result,
    Signal, Stats, StopReason, StopReport, Tree,
    name::Name,
    stop,
    stop::Stoppable as _,
    sys::{self, Mechanism as _},
};

/// A set of processes managed as one unit. Membership is inherited by everything a member starts.
///
/// Dropping a `Job` kills it, unless it was [released](Job::release); dropping it in a forked copy
/// of the process that made it does nothing, and starting or adopting a process there is an error: the
/// job belongs to the process that made it, and ends with it. A program that forks itself into the
/// background (`daemon(3)`) makes its jobs afterwards. No method ever acts on the process that calls it: on
/// an [enclosed](JobBuilder::enclose) job `processes` and `tree` show the caller, marked, and every
/// other method is about the others.
///
/// All methods take `&self` and may be called from several threads at once.
pub struct Job {
    sys: sys::Job,
    made_by: sys::ProcessToken,
    /// Whether it ends with us; not a view of another job.
    is_owned: bool,
}

impl Job {
    /// A job of the strongest mechanism this host gives.
    ///
    /// # Errors
    /// If no mechanism is available, with the reason for each.
    pub fn new() -> Result<Job> {
        Job::builder().build()
    }

    /// Chooses what the job must be like.
    pub fn builder() -> JobBuilder {
        JobBuilder::default()
    }

    /// A living job of this user: by its name, or by an unambiguous beginning of its id.
    ///
    /// What comes is a second view of the job, not a second owner: dropping it changes nothing, and
    /// it does not keep the job alive.
    ///
    /// # Errors
    /// [`is_not_found`](Error::is_not_found) if there is none;
    /// [`is_invalid_input`](Error::is_invalid_input) if the text could not be a name or fits several
    /// ids; [`is_permission_denied`](Error::is_permission_denied) if it is another user's.
    pub fn open(job: &str) -> Result<Job> {
        let made_by = sys::ProcessToken::current()?;
        Ok(Job { sys: sys::open(&Name::new(job)?)?, made_by, is_owned: false })
    }

    /// Starts a process as a member: it is in the job before its first instruction.
    ///
    /// # Errors
    /// [`is_exec`](Error::is_exec) with exactly what `execve` said if the program could not be
    /// executed; [`is_invalid_input`](Error::is_invalid_input) for an empty program name or a NUL;
    /// otherwise what the system said. Nothing is left behind by a failed spawn.
    pub fn spawn(&self, mut command: impl BorrowMut<Command>) -> Result<Child> {
        let command = command.borrow_mut();
        command.check()?;
        self.is_not_a_copy()?;
        self.sys.spawn(command)
    }

    /// Starts a [`std::process::Command`] as a member, for code that already has one.
    ///
    /// The child joins the job by itself between `fork` and `exec`, before any of the program's
    /// code: slower than [`spawn`](Job::spawn) (a fork, and on an idle system some 10 ms until the
    /// kernel has moved it). The join is added to `command` as a `pre_exec` step, so do not use the
    /// same `command` for another job.
    ///
    /// # Errors
    /// [`is_unsupported`](Error::is_unsupported) under [`Mechanism::Subreaper`] unless the job is
    /// enclosed: its members must be started by the guard. The same under
    /// [`Mechanism::JobObject`], which std's command cannot be told of.
    pub fn spawn_std(&self, command: &mut std::process::Command) -> Result<std::process::Child> {
        self.is_not_a_copy()?;
        self.sys.join_on_exec(command)?;
        let program = command.get_program().to_os_string();
        command.spawn().map_err(|e| Error::exec(format!("start {program:?} into the job"), e))
    }

    /// Makes a running process a member, and what it starts from now on. What it started before
    /// stays outside.
    ///
    /// # Errors
    /// [`is_stale`](Error::is_stale) if the process is gone, even if its number is in use again (a
    /// stranger that was moved because it took the number over at that very moment is moved back);
    /// [`is_unsupported`](Error::is_unsupported) under [`Mechanism::Subreaper`].
    pub fn adopt(&self, process: &ProcessId) -> Result<()> {
        if process.pid == std::process::id() {
            return Err(Error::invalid("a process cannot adopt itself")
                .with_hint("JobBuilder::enclose makes a job around the calling process"));
        }
        self.is_not_a_copy()?;
        self.sys.adopt(process)
    }

    /// Where the owner has forked, its guards take the copy for no owner: what that started would end
    /// with the process that made the job.
    fn is_not_a_copy(&self) -> Result<()> {
        if !self.is_owned || self.made_by.is_current() {
            return Ok(());
        }
        Err(Error::unsupported(
            "this process is a forked copy of the one that made the job, which ends with that",
        )
        .with_hint("make the job after the fork, also after daemon(3)"))
    }

    /// Its living members.
    ///
    /// # Errors
    /// If the listing cannot be read.
    pub fn processes(&self) -> Result<Vec<Process>> {
        self.sys.processes()
    }

    /// The numbers of its living members, the caller of an enclosed one included: for counting and
    /// printing, and much faster than [`processes`](Job::processes). To act on a number is to risk
    /// hitting a stranger.
    ///
    /// # Errors
    /// If the listing cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>> {
        self.sys.pids()
    }

    /// Its living members, each below its parent.
    ///
    /// # Errors
    /// If the listing cannot be read.
    pub fn tree(&self) -> Result<Tree> {
        self.processes().map(Tree::of)
    }

    /// Whether nobody is left. Zombies count as gone, a dead leader with living threads does not.
    ///
    /// # Errors
    /// If the job can no longer be observed.
    pub fn is_empty(&self) -> Result<bool> {
        self.sys.wait(Some(Instant::now()))
    }

    /// Waits until the last member has ended, whoever started it. Pipes that members hold do not
    /// matter.
    ///
    /// # Errors
    /// If the job can no longer be observed.
    pub fn wait(&self) -> Result<()> {
        self.sys.wait(None).map(drop)
    }

    /// Waits for at most `timeout`; whether the job is empty.
    ///
    /// # Errors
    /// If the job can no longer be observed.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.sys.wait(Instant::now().checked_add(timeout))
    }

    /// Sends a signal to every member, and says how many it reached. Repeated until a listing shows
    /// nobody new; only [`kill`](Job::kill) is proof against members that fork faster.
    ///
    /// # Errors
    /// [`is_permission_denied`](Error::is_permission_denied) if there are members and none could be
    /// signalled; [`is_unsupported`](Error::is_unsupported) on Windows for all but
    /// [`Signal::KILL`].
    pub fn signal(&self, signal: Signal) -> Result<usize> {
        self.sys.signal(signal)
    }

    /// The ladder: `SIGTERM` (and `SIGCONT`, for those that are stopped) to every member, up to
    /// `grace` to end, then [`kill`](Job::kill). Returns as soon as the job is empty; a zero
    /// `grace` kills at once.
    ///
    /// Under [`Mechanism::JobObject`] windows are asked to close and console groups of their own
    /// get a break event; if there is nobody to ask, the kill follows at once.
    ///
    /// # Errors
    /// As [`kill`](Job::kill).
    pub fn stop(&self, grace: Duration) -> Result<StopReport> {
        self.stop_with(Signal::TERM, grace)
    }

    /// [`stop`](Job::stop) that asks with another signal.
    ///
    /// # Errors
    /// As [`kill`](Job::kill).
    pub fn stop_with(&self, signal: Signal, grace: Duration) -> Result<StopReport> {
        stop::stop(&self.sys, signal, grace)
    }

    /// Waits until all members have ended, and [stops](Job::stop) those that are left after
    /// `timeout`; the report says which it was.
    ///
    /// # Errors
    /// As [`wait`](Job::wait) and [`kill`](Job::kill).
    pub fn stop_after(&self, timeout: Duration, grace: Duration) -> Result<StopReport> {
        stop::stop_after(&self.sys, timeout, Signal::TERM, grace)
    }

    /// What limits have done to the members so far; [`StopReason::Asked`] for nothing.
    pub fn reason(&self) -> StopReason {
        self.sys.reason()
    }

    /// Kills every member, and returns when they are dead. The job can be used again.
    ///
    /// On an enclosed job, all who were members at entry and their descendants are dead on return;
    /// what other threads of this process start meanwhile is the next call's.
    ///
    /// # Errors
    /// With the [`survivors`](Error::survivors) if some cannot be killed (another user's under
    /// [`Mechanism::Subreaper`], one stuck in the kernel): at once if all that is left refuses the
    /// signal, otherwise when 10 seconds have passed without anybody dying.
    pub fn kill(&self) -> Result<StopReport> {
        self.stop(Duration::ZERO)
    }

    /// Freezes every member: none runs until [`thaw`](Job::thaw), and no new one is started.
    ///
    /// # Errors
    /// What the system said. Under [`Mechanism::Subreaper`] members get `SIGSTOP`, which their
    /// parents can see.
    pub fn freeze(&self) -> Result<()> {
        self.sys.freeze()
    }

    /// Lets the members run again. Who was stopped before the freeze stays stopped.
    ///
    /// # Errors
    /// What the system said.
    pub fn thaw(&self) -> Result<()> {
        self.sys.thaw()
    }

    /// The limits that are set.
    ///
    /// # Errors
    /// What the system said.
    pub fn limits(&self) -> Result<Limits> {
        self.sys.limits()
    }

    /// Sets these limits instead of those set before, for the members there are and those to come.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) for a limit of nothing;
    /// [`is_limit_reached`](Error::is_limit_reached) for less memory than the members use and can
    /// do without (they are not killed for that);
    /// [`is_unsupported`](Error::is_unsupported) for one that cannot be enforced on the whole job
    /// here, with what would help. Nothing has changed then.
    pub fn set_limits(&self, limits: &Limits) -> Result<()> {
        limits.check()?;
        self.sys.set_limits(limits)
    }

    /// What the members have used.
    ///
    /// # Errors
    /// What the system said.
    pub fn stats(&self) -> Result<Stats> {
        self.sys.stats()
    }

    /// Its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.sys.record()?.name().map(Name::as_str)
    }

    /// What tells it apart from every other job of this boot, if it is [listed](JobBuilder::listed).
    pub fn id(&self) -> Option<&str> {
        self.sys.record().map(sys::Record::id)
    }

    /// What its owner has noted on it last. Who opened the job before its end can read it after.
    ///
    /// # Errors
    /// What the system said.
    pub fn note(&self) -> Result<Option<String>> {
        self.sys.record().map_or(Ok(None), sys::Record::note)
    }

    /// Notes something on it for whoever [opens](Job::open) it. Meant for a few short notes in a
    /// job's life: how it was started, how its main process ended.
    ///
    /// # Errors
    /// [`is_unsupported`](Error::is_unsupported) if the job is not [listed](JobBuilder::listed) or
    /// this is not its owner; what the system said.
    pub fn set_note(&self, note: &str) -> Result<()> {
        let unlisted = || Error::unsupported("nobody could read the note: the job is not listed");
        self.sys.record().ok_or_else(unlisted)?.set_note(note)
    }

    /// For an [opened](Job::open) job: waits until its owner has let go of it, has ended and the
    /// job with it; `None` waits for as long as that takes. Whether that came in time.
    ///
    /// # Errors
    /// [`is_unsupported`](Error::is_unsupported) for the owner itself.
    pub fn wait_over(&self, timeout: Option<Duration>) -> Result<bool> {
        let owners = || Error::unsupported("a job is not over as long as its owner holds it");
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.sys.record().ok_or_else(owners)?.wait_closed(deadline)
    }

    /// What this job really promises, now: a guard that was killed is missing here.
    pub fn guarantees(&self) -> Guarantees {
        self.sys.guarantees()
    }

    /// Gives up the job and leaves its members running, also when this process ends.
    ///
    /// # Errors
    /// What the system said; the job is killed then, as by drop.
    pub fn release(mut self) -> Result<()> {
        self.sys.release()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.made_by.is_current() {
            self.sys.close();
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("guarantees", &self.guarantees()).finish_non_exhaustive()
    }
}

/// What a job must be like. Made by [`Job::builder`].
#[derive(Debug, Clone, Default)]
pub struct JobBuilder {
    mechanism: Option<Mechanism>,
    required: Vec<Requirement>,
    name: Option<String>,
    listed: bool,
    note: Option<String>,
    limits: Limits,
    account: bool,
}

impl JobBuilder {
    /// Forces a mechanism instead of the strongest that is available.
    pub fn mechanism(mut self, mechanism: Mechanism) -> Self {
        self.mechanism = Some(mechanism);
        self
    }

    /// Refuses to build a job without this guarantee. May be called several times.
    ///
    /// ```
    /// use onejob::{Containment, Job};
    /// let builder = Job::builder().require(Containment::Tracked);
    /// ```
    pub fn require(mut self, guarantee: impl Into<Requirement>) -> Self {
        self.required.push(guarantee.into());
        self
    }

    /// Names the job, so that other processes of this user can [open](Job::open) it: 1 to 64
    /// letters, digits, dots, underscores and dashes, no dot or dash in front. A name dies with its
    /// job.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Has the job found by [`jobs`](crate::jobs) and by its id, although it has no name. A job with
    /// a name always is. If it cannot be (no runtime directory), it is just not listed.
    pub fn listed(mut self) -> Self {
        self.listed = true;
        self
    }

    /// The first [note](Job::note) on the job, there as soon as it can be found.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Limits what the members may use, all together. A mechanism that cannot enforce one of these
    /// limits is passed over like one that does not meet a requirement.
    ///
    /// On Linux that needs controllers. Where our own cgroup has none the job is made elsewhere, in a
    /// scope of systemd's for example (feature `systemd`); the first job that needs one waits for it,
    /// two seconds at most.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Limits memory, in bytes.
    pub fn memory_max(mut self, bytes: u64) -> Self {
        self.limits.memory_max = Some(bytes);
        self
    }

    /// Limits CPU bandwidth, in CPUs.
    pub fn cpu_max(mut self, cpus: f64) -> Self {
        self.limits.cpu_max = Some(cpus);
        self
    }

    /// Limits how many processes and threads live at once.
    pub fn processes_max(mut self, count: u32) -> Self {
        self.limits.processes_max = Some(count);
        self
    }

    /// Has memory, devices and processes accounted, too, as far as that can be had: the system is
    /// told to keep these books where it does not yet, which makes the members a little slower.
    pub fn account(mut self) -> Self {
        self.account = true;
        self
    }

    /// Makes an empty job.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) for a name that is none or a limit of nothing;
    /// [`is_name_taken`](Error::is_name_taken) if a living job has the name;
    /// [`is_unmet_requirement`](Error::is_unmet_requirement) if no mechanism gives what is
    /// required; [`is_unsupported`](Error::is_unsupported) if none, or not the forced one, is
    /// available. Both say what is missing and how to get it.
    pub fn build(self) -> Result<Job> {
        self.try_mechanisms(Enclosure::None)
    }

    /// Puts the *calling* process into a new job, so that whatever it starts from now on, through
    /// whatever library, is a member.
    ///
    /// Under [`Mechanism::Subreaper`] the process becomes a child subreaper for the rest of its
    /// life, and nothing can take the job down when it is killed ([`OwnerDeath::None`]). As PID 1 of
    /// a PID namespace it is the subreaper already, and its end is everybody's
    /// ([`OwnerDeath::Kernel`]).
    ///
    /// # Errors
    /// As [`build`](JobBuilder::build); and under Subreaper if the process already has children,
    /// whose orphans could not be told from members, unless it is PID 1.
    ///
    /// [`OwnerDeath::None`]: crate::OwnerDeath::None
    /// [`OwnerDeath::Kernel`]: crate::OwnerDeath::Kernel
    pub fn enclose(self) -> Result<Job> {
        self.try_mechanisms(Enclosure::Caller)
    }

    /// Tries the mechanisms, strongest first, until one is available and meets the requirements.
    fn try_mechanisms(mut self, around: Enclosure) -> Result<Job> {
        let spec = self.spec(around)?;
        let mut ladder = sys::MECHANISMS.to_vec();
        if let Some(forced) = self.mechanism {
            ladder.retain(|mechanism| *mechanism == forced);
        }
        let made_by = sys::ProcessToken::current()?;
        let mut refusals = Vec::new();
        for mechanism in ladder {
            let unmet = self.unmet(mechanism, around);
            if !unmet.is_empty() {
                refusals.push(format!("{mechanism} lacks {}", unmet.join(", ")));
                continue;
            }
            match sys::Job::new(mechanism, &spec) {
                Ok(sys) => {
                    let job = Job { sys, made_by, is_owned: true };
                    match self.broken(&job) {
                        unmet if unmet.is_empty() => return Ok(job),
                        unmet => refusals.push(format!("{mechanism} lacks {}", unmet.join(", "))),
                    }
                }
                Err(error)
                    if error.is_unmet_requirement()
                        || self.mechanism.is_none() && allows_next(&error) =>
                {
                    refusals.push(format!("{mechanism}: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Err(self.refuse(&refusals))
    }

    /// Which requirements a mechanism would not meet. What it promises is looked up only if it
    /// matters.
    fn unmet(&self, mechanism: Mechanism, around: Enclosure) -> Vec<String> {
        if self.required.is_empty() {
            return Vec::new();
        }
        let promised = sys::guarantees_of(mechanism, around);
        promised.unmet(&self.required).iter().map(ToString::to_string).collect()
    }

    /// Which requirements the job does not meet now that it is made. Limits were settled when a place
    /// for it was looked for.
    fn broken(&self, job: &Job) -> Vec<String> {
        let mut required = self.required.clone();
        required.retain(|requirement| !matches!(requirement, Requirement::Limits(_)));
        if required.is_empty() {
            return Vec::new();
        }
        job.guarantees().unmet(&required).iter().map(ToString::to_string).collect()
    }

    /// What is asked for beyond the guarantees, checked; a limit is also a requirement.
    fn spec(&mut self, around: Enclosure) -> Result<JobSpec> {
        self.limits.check()?;
        let wanted = self.limits.resources();
        if !wanted.is_empty() {
            self.required.push(Requirement::Limits(wanted));
        }
        let name = self.name.as_deref().map(Name::new).transpose()?;
        let note = self.note.take();
        let JobBuilder { listed, limits, account, .. } = *self;
        Ok(JobSpec { around, name, listed, note, limits, account })
    }

    fn refuse(&self, refusals: &[String]) -> Error {
        let why = match refusals {
            [] => "unknown on this operating system".to_owned(),
            _ => refusals.join("; "),
        };
        if self.required.is_empty() {
            return Error::unsupported(format!("no mechanism is available here: {why}"));
        }
        let wanted: Vec<_> = self.required.iter().map(ToString::to_string).collect();
        Error::unmet(format!("no job with {} is to be had here: {why}", wanted.join(", ")))
            .with_hint("`onejob doctor` explains what this host can give and how to get more")
    }
}

/// Whether the next mechanism is tried after this error: this one is not available on this host.
/// Any other error (a full table of descriptors) would not be different with the next one.
pub(crate) fn allows_next(error: &Error) -> bool {
    error.is_unmet_requirement() || error.is_unsupported()
}

/// What a new job is to be, whatever holds it together.
#[derive(Debug, Clone)]
pub(crate) struct JobSpec {
    pub(crate) around: Enclosure,
    pub(crate) name: Option<Name>,
    pub(crate) listed: bool,
    pub(crate) note: Option<String>,
    pub(crate) limits: Limits,
    #[allow(dead_code, reason = "not every system has to be told")]
    pub(crate) account: bool,
}

impl JobSpec {
    /// Nothing asked for.
    pub(crate) fn plain(around: Enclosure) -> JobSpec {
        let limits = Limits::default();
        JobSpec { around, name: None, listed: false, note: None, limits, account: false }
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.listed || self.name.is_some()
    }

    /// A job with a name must be found; another one only if it can be.
    pub(crate) fn published<T>(&self, record: Result<T>) -> Result<Option<T>> {
        match record {
            Err(_) if self.name.is_none() => Ok(None),
            record => record.map(Some),
        }
    }
}

/// Whom a new job is put around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enclosure {
    /// Nobody yet: members are spawned into it or adopted.
    None,
    /// The calling process.
    Caller,
}
