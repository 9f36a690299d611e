//! The requirements and properties of a job to make, and the choice of its mechanism.

use crate::{
    Error, Job, Limits, Mechanism, Requirement, Result,
    name::Name,
    spec::{Enclosure, JobSpec, allows_next},
    sys::{self, MechanismEntry},
    trace::event,
};

impl Job {
    /// Makes a job with the strongest mechanism that is available on this host.
    ///
    /// # Errors
    /// If no mechanism is available; the error gives the reason for each mechanism.
    pub fn new() -> Result<Job> {
        Job::builder().build()
    }

    /// Returns a builder, which sets the requirements and properties of a job.
    pub fn builder() -> JobBuilder {
        JobBuilder::default()
    }
}

/// The requirements and properties of a job to make. Made by [`Job::builder`].
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
    /// letters, digits, dots, underscores and dashes, no dot or dash in front. The name becomes free
    /// when the job ends. If the owner of the job with this name is dead and its last members are
    /// still being killed, [`build`](JobBuilder::build) waits for their end, at most 10 seconds.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the job visible to [`jobs`](crate::jobs) and to [`Job::open`] by its id, although it has
    /// no name. A job with a name is always listed. If a job without a name cannot be listed (no
    /// runtime directory), that is not an error.
    pub fn listed(mut self) -> Self {
        self.listed = true;
        self
    }

    /// Sets the first [note](Job::note). It can be read as soon as the job is listed.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Limits the resources that all members together may use. A mechanism that cannot enforce one
    /// of these limits is skipped, like a mechanism that does not meet a requirement.
    ///
    /// On Linux, limits need cgroup controllers. If the cgroup of this process has none, the job is
    /// made elsewhere, for example in a systemd scope (feature `systemd`); the first job that needs
    /// a scope waits for it, at most 2 seconds.
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

    /// Accounts for memory, devices and processes, too, as far as the host supports it. Accounting is
    /// turned on where it is off, which makes the members a little slower.
    pub fn accounting(mut self) -> Self {
        self.account = true;
        self
    }

    /// Makes an empty job.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) for an invalid name or a limit of zero;
    /// [`is_name_taken`](Error::is_name_taken) if a live job has the name;
    /// [`is_unmet_requirement`](Error::is_unmet_requirement) if no mechanism meets the requirements;
    /// [`is_unsupported`](Error::is_unsupported) if no mechanism is available, or the forced one is
    /// not. The last two name the missing guarantee or mechanism and, in the hint, the remedy.
    pub fn build(self) -> Result<Job> {
        self.try_mechanisms(Enclosure::None)
    }

    /// Puts the *calling* process into a new job. Every process that it starts from now on, through
    /// any library, is a member.
    ///
    /// Under [`Mechanism::Subreaper`] the process becomes a child subreaper for the rest of its
    /// life, and nothing ends the job when the process is killed ([`OwnerDeath::None`]). PID 1 of a
    /// PID namespace is the subreaper already, and the kernel kills all members when it ends
    /// ([`OwnerDeath::Kernel`]).
    ///
    /// If `/proc` is not mounted and this process may not mount one, the members of a Subreaper job cannot
    /// be listed, named, frozen or counted ([`signal`](Job::signal) returns 1 if it reached any process).
    /// PID 1 still signals and kills every other process of its PID namespace. Any other process reaches
    /// only the processes that [`spawn`](Job::spawn) has started and the process groups that they lead
    /// ([`Containment::Grouped`]), and a kill is an error if other members live.
    ///
    /// # Errors
    /// As [`build`](JobBuilder::build); and under Subreaper if the process already has children and
    /// is not PID 1: orphans of these children could not be distinguished from members.
    ///
    /// [`Containment::Grouped`]: crate::Containment::Grouped
    /// [`OwnerDeath::None`]: crate::OwnerDeath::None
    /// [`OwnerDeath::Kernel`]: crate::OwnerDeath::Kernel
    pub fn enclose(self) -> Result<Job> {
        self.try_mechanisms(Enclosure::Caller)
    }

    /// Tries the mechanisms, strongest first, until one is available and meets the requirements.
    fn try_mechanisms(mut self, around: Enclosure) -> Result<Job> {
        let spec = self.spec(around)?;
        let forced = self.mechanism;
        let candidates = sys::MECHANISMS
            .iter()
            .filter(|entry| forced.is_none_or(|forced| entry.mechanism == forced));
        let made_by = sys::ProcessToken::current()?;
        let mut refusals = Vec::new();
        for entry in candidates {
            let mechanism = entry.mechanism;
            let unmet = self.unmet(entry, around);
            if !unmet.is_empty() {
                refusals.push(format!("{mechanism} lacks {}", unmet.join(", ")));
                continue;
            }
            match (entry.create)(&spec) {
                Ok(backend) => {
                    let job = Job::owned(backend, made_by);
                    match self.broken(&job) {
                        unmet if unmet.is_empty() => {
                            event!(
                                debug,
                                "job created",
                                mechanism = mechanism,
                                refused = format_args!("{refusals:?}"),
                            );
                            return Ok(job);
                        }
                        unmet => refusals.push(format!("{mechanism} lacks {}", unmet.join(", "))),
                    }
                }
                Err(error)
                    if error.is_unmet_requirement()
                        || self.mechanism.is_none() && allows_next(&error) =>
                {
                    event!(debug, "mechanism refused", mechanism = mechanism, reason = error);
                    refusals.push(format!("{mechanism}: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Err(self.refuse(&refusals))
    }

    /// The requirements that a mechanism would not meet. Looks up its guarantees only if there are
    /// requirements.
    fn unmet(&self, entry: &MechanismEntry, around: Enclosure) -> Vec<String> {
        if self.required.is_empty() {
            return Vec::new();
        }
        let promised = (entry.guarantees_of)(around);
        promised.unmet(&self.required).iter().map(ToString::to_string).collect()
    }

    /// The requirements that the finished job does not meet. Limits are left out: they were checked
    /// when the location of the job was chosen.
    fn broken(&self, job: &Job) -> Vec<String> {
        let mut required = self.required.clone();
        required.retain(|requirement| !matches!(requirement, Requirement::Limits(_)));
        if required.is_empty() {
            return Vec::new();
        }
        job.guarantees().unmet(&required).iter().map(ToString::to_string).collect()
    }

    /// Checks and returns the properties of the job beyond its guarantees. Each limit is added to the
    /// requirements, too.
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
            [] => match self.mechanism {
                Some(mechanism) => {
                    format!("the {mechanism} mechanism does not exist on this operating system")
                }
                None => "this operating system has no mechanism".to_owned(),
            },
            _ => refusals.join("; "),
        };
        if self.required.is_empty() {
            return Error::unsupported(format!("no mechanism is available on this host: {why}"));
        }
        let wanted: Vec<_> = self.required.iter().map(ToString::to_string).collect();
        Error::unmet(format!("no job with {} can be made on this host: {why}", wanted.join(", ")))
            .with_hint("probe_mechanisms() lists the guarantees of this host and how to get more")
    }
}
