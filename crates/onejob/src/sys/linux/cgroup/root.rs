//! The job root: the cgroup below which the cgroups of this process' jobs are made, with its guards.

use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{fs::AtFlags, io::Errno as Rerrno};

use super::{
    abandoned, controllers,
    delegation::{self, ParentCgroup},
    dir::is_missing,
    job_cgroup::JobCgroup,
    location::CgroupLocation,
    names::PREFIX,
};
use crate::{
    Error, Resources, Result,
    spec::Enclosure,
    sys::linux::{
        guard::{client::Guards, launch::GuardConfig},
        nostd::syscall::Errno,
        process::fork_detect::ProcessToken,
        registry,
        spawn::baseline::GuardBaseline,
    },
};

/// The cgroup below which the cgroups of this process' jobs are made.
pub(crate) struct JobRoot {
    /// The cgroup of this process when the job root was chosen.
    location: CgroupLocation,
    path: PathBuf,
    dir: OwnedFd,
    owner: ProcessToken,
    shared: Shared,
    /// Whether the guards have been checked since the first member was started.
    has_checked_guards: AtomicBool,
    /// If this process may not move processes into its cgroups, so that a guard starts the members: what
    /// they inherit from it.
    pub(crate) remote: Option<GuardBaseline>,
}

/// The part of a job root that is the same for a job root inside of one of its jobs.
struct Shared {
    /// How the names of the cgroups of this owner begin.
    prefix: String,
    /// The directory of the records, which the guards know.
    registry: PathBuf,
    next_job: Arc<AtomicU32>,
    guards: Mutex<Arc<Guards>>,
}

/// The job roots of this process: more than one if it has been moved or has enclosed itself.
static JOB_ROOTS: Mutex<Vec<Arc<JobRoot>>> = Mutex::new(Vec::new());

fn job_roots() -> MutexGuard<'static, Vec<Arc<JobRoot>>> {
    JOB_ROOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// If this process has run out of descriptors or memory, every mechanism would fail. Any other error means
/// that jobs cannot be made in cgroups here, so that the next mechanism is tried.
pub(crate) fn unavailable(error: Error) -> Error {
    match error.raw_os_error().map(Errno) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => error,
        _ => error.into_unsupported(),
    }
}

impl JobRoot {
    /// The job root for new jobs with these limits. Its guards are being started: the first member must
    /// not be started before [`Guards::wait_exec`].
    pub(crate) fn current(wanted: Resources, around: Enclosure) -> Result<Arc<JobRoot>> {
        let location = CgroupLocation::current().map_err(unavailable)?;
        let owner = ProcessToken::current()?;
        let mut roots = job_roots();
        // A forked copy of an owner is an owner of its own.
        roots.retain(|root| root.owner == owner);
        if let Some(root) = roots.iter().find(|root| root.matches(&location, wanted, around)) {
            root.revive_guards()?;
            return Ok(root.clone());
        }
        let root = match ParentCgroup::current(&location).map_err(unavailable) {
            Ok(own) if own.provides(wanted) => JobRoot::create_in(own, location, owner, &roots)?,
            own => JobRoot::fallback(own, location, owner, wanted, around, &roots)?,
        };
        let has_own_guards = !roots.iter().any(|other| other.shared.prefix == root.shared.prefix);
        if abandoned::end_without_waiting(root.dir(), &root.shared.prefix) && has_own_guards {
            root.guards().end_abandoned();
        }
        let root = Arc::new(root);
        roots.push(root.clone());
        Ok(root)
    }

    /// Whether jobs that are made now belong below this job root.
    fn matches(&self, location: &CgroupLocation, wanted: Resources, around: Enclosure) -> bool {
        // In a scope only a living guard can start members, and this process cannot move itself there.
        let is_usable = match self.remote {
            Some(_) => around == Enclosure::None && self.guards().is_serving(),
            None => true,
        };
        let needed = wanted.without(Resources::CPU_TIME);
        self.location == *location
            && is_usable
            && (needed.is_empty() || self.limits().contains(needed))
    }

    fn new(
        ParentCgroup { path, dir }: ParentCgroup,
        location: CgroupLocation,
        owner: ProcessToken,
        shared: Shared,
        remote: Option<GuardBaseline>,
    ) -> JobRoot {
        // Guards that start members are checked at each of them.
        let has_checked_guards = AtomicBool::new(remote.is_some());
        JobRoot { location, path, dir, owner, shared, has_checked_guards, remote }
    }

    fn create_in(
        parent: ParentCgroup,
        location: CgroupLocation,
        owner: ProcessToken,
        roots: &[Arc<JobRoot>],
    ) -> Result<JobRoot> {
        // The guards of a job around this process end everything that is made inside of it.
        let shared = match roots.iter().find(|root| root.contains(&parent.path)) {
            Some(outer) => outer.shared_with_inner()?,
            None => {
                let (prefix, registry) = (fresh_prefix()?, registry::place());
                let config = guard_config(parent.dir.as_fd(), &prefix, &registry);
                let guards = Mutex::new(Arc::new(Guards::launch(config)?));
                Shared { prefix, registry, next_job: Arc::default(), guards }
            }
        };
        Ok(JobRoot::new(parent, location, owner, shared, None))
    }

    /// For a job root inside of one of these jobs: the same guards, and ids from the same sequence.
    fn shared_with_inner(&self) -> Result<Shared> {
        self.revive_guards()?;
        let Shared { prefix, registry, next_job, .. } = &self.shared;
        Ok(Shared {
            prefix: prefix.clone(),
            registry: registry.clone(),
            next_job: next_job.clone(),
            guards: Mutex::new(self.guards()),
        })
    }

    /// Tries the other places if the cgroup of this process lacks controllers, or cannot be used.
    fn fallback(
        own: Result<ParentCgroup>,
        location: CgroupLocation,
        owner: ProcessToken,
        wanted: Resources,
        around: Enclosure,
        roots: &[Arc<JobRoot>],
    ) -> Result<JobRoot> {
        let mut refusals = Vec::new();
        let refused = match own {
            Err(error) if !error.is_unsupported() => return Err(error),
            // No other cgroup of this kernel has it either.
            Err(error) if delegation::lacks_cgroup_kill(&location) => return Err(error),
            // The limits on the threads of this process would not be those of the job.
            Err(error) if delegation::is_threaded(&location) => return Err(error),
            Err(error) => error,
            Ok(own) => {
                let missing = wanted.without(own.limits());
                let why =
                    format!("the cgroup {} has no controller for {missing}", own.path.display());
                let guards: Vec<_> = roots.iter().map(|root| root.guards()).collect();
                match own.move_self_to_leaf(wanted, &guards) {
                    Ok(own) => {
                        let location = CgroupLocation::current()?;
                        return JobRoot::create_in(own, location, owner, roots);
                    }
                    Err(error) => refusals.push(error),
                }
                Error::unmet(why)
            }
        };
        if location.is_in_a_job() {
            return Err(refused);
        }
        match ParentCgroup::hierarchy_root() {
            Ok(parent) if parent.limits().contains(wanted) => {
                return JobRoot::create_in(parent, location, owner, roots);
            }
            _ => {}
        }
        match JobRoot::in_a_scope(location, owner, around) {
            Ok(root) => match wanted.without(delegation::possible_limits(root.dir())) {
                missing if missing.is_empty() => return Ok(root),
                missing => refusals.push(Error::unsupported(format!(
                    "a systemd scope has no controller for {missing} either"
                ))),
            },
            Err(error) => refusals.push(error),
        }
        Err(refused.and(refusals))
    }

    #[cfg(feature = "systemd")]
    fn in_a_scope(
        location: CgroupLocation,
        owner: ProcessToken,
        around: Enclosure,
    ) -> Result<JobRoot> {
        use crate::sys::linux::systemd::scope::{self, Scope};
        if around == Enclosure::Caller {
            return Err(Error::unsupported("this process cannot be moved into a systemd scope"));
        }
        if !CgroupLocation::is_in_initial_namespace() {
            return Err(Error::unsupported(
                "a systemd scope would be outside of the cgroup namespace of this process",
            ));
        }
        let bus = scope::bus()?;
        let baseline = GuardBaseline::current()?;
        let (prefix, registry) = (fresh_prefix()?, registry::place());
        // The guards get the directory of the scope when it exists.
        let placeholder = scope::placeholder()?;
        let config = GuardConfig {
            bus: Some(&bus),
            ..guard_config(placeholder.as_fd(), &prefix, &registry)
        };
        let mut parent = None;
        let guards = Guards::start_in_scope(config, |connection, guard, asks| {
            let name = prefix.trim_end_matches('-');
            let scope = Scope::around(connection, guard, name, asks)?;
            let (of_guard, own) = scope.descriptors()?;
            parent = Some(own);
            Ok(of_guard)
        })?;
        let Some(parent) = parent else {
            return Err(Error::unsupported("systemd did not make a scope"));
        };
        abandoned::end_in_other_scopes(&parent.path);
        baseline.examine(&guards);
        let guards = Mutex::new(Arc::new(guards));
        let shared = Shared { prefix, registry, next_job: Arc::default(), guards };
        Ok(JobRoot::new(parent, location, owner, shared, Some(baseline)))
    }

    #[cfg(not(feature = "systemd"))]
    fn in_a_scope(_: CgroupLocation, _: ProcessToken, _: Enclosure) -> Result<JobRoot> {
        Err(Error::unsupported("this build cannot make systemd scopes")
            .with_hint("build onejob with its feature systemd"))
    }

    /// After a job could not be made: if there is no other job, the job root and its guards are dropped.
    pub(crate) fn forget(&self) {
        if self.shared.next_job.load(Ordering::Relaxed) <= 1 {
            job_roots().retain(|root| !std::ptr::eq(&**root, self));
        }
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a path is inside of one of the jobs below this job root.
    fn contains(&self, path: &Path) -> bool {
        let below = path.strip_prefix(&self.path).ok();
        let first = below.and_then(|below| below.components().next());
        let prefix = self.shared.prefix.as_bytes();
        first.is_some_and(|name| name.as_os_str().as_bytes().starts_with(prefix))
    }

    /// The directory for the records of its jobs.
    pub(crate) fn registry(&self) -> &Path {
        &self.shared.registry
    }

    /// The number of the next job of this owner.
    pub(crate) fn next_job(&self) -> u32 {
        1 + self.shared.next_job.fetch_add(1, Ordering::Relaxed)
    }

    /// The id of a job, which no other job of this boot has.
    pub(crate) fn id_of(&self, job: u32) -> String {
        format!("{}{job}", owner_part(&self.shared.prefix))
    }

    /// Makes and locks the next cgroup of a job. After a kill a cgroup must not be used again.
    pub(crate) fn create_cgroup(&self, job: u32, next: &AtomicU32) -> Result<JobCgroup> {
        JobCgroup::create(self.dir(), &self.path, &self.shared.prefix, job, next)
    }
}

/// The guards.
impl JobRoot {
    pub(crate) fn guards(&self) -> Arc<Guards> {
        self.lock_guards().clone()
    }

    fn lock_guards(&self) -> MutexGuard<'_, Arc<Guards>> {
        self.shared.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Guards whose inner one answers requests: new ones if it was killed.
    pub(crate) fn serving_guards(&self) -> Result<Arc<Guards>> {
        let mut guards = self.lock_guards();
        if !guards.is_serving() {
            self.replace(&mut guards)?;
        }
        Ok(guards.clone())
    }

    /// Called when the first member has been started, which did not wait for the guards: if the outer one
    /// was killed before it had started the inner one, there is none.
    pub(crate) fn check_guards_once(&self) {
        if !self.has_checked_guards.swap(true, Ordering::Relaxed) {
            let _ = self.revive_guards();
        }
    }

    /// Starts new guards if both were killed.
    fn revive_guards(&self) -> Result<()> {
        let mut guards = self.lock_guards();
        if !guards.any_alive() {
            self.replace(&mut guards)?;
        }
        Ok(())
    }

    /// The previous guards may be alive, if their greeting could not be read. They are released, so that
    /// only the new ones end the jobs.
    fn replace(&self, guards: &mut Arc<Guards>) -> Result<()> {
        let config = guard_config(self.dir(), &self.shared.prefix, &self.shared.registry);
        let fresh = Arc::new(Guards::start(config)?);
        std::mem::replace(guards, fresh).release();
        Ok(())
    }

    /// Makes a guard end a cgroup, however long that takes.
    pub(crate) fn leave_to_guards(&self, cgroup: &JobCgroup) {
        self.guards().end_cgroup(cgroup.job, cgroup.number);
    }

    /// Makes a guard end a cgroup, and waits for that. This needs no descriptor, and no permission that
    /// this process has given up. Returns whether the cgroup is gone.
    pub(crate) fn end_by_guard(&self, cgroup: &JobCgroup, timeout: Duration) -> bool {
        self.leave_to_guards(cgroup);
        let start = Instant::now();
        // Without a descriptor there is no event to wait for.
        let mut pause = Duration::from_millis(1);
        while start.elapsed() < timeout {
            match rustix::fs::unlinkat(self.dir(), &cgroup.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Rerrno::NOENT | Rerrno::NODEV) => return true,
                Err(_) if is_missing(self.dir(), &cgroup.name) => return true,
                Err(_) if !self.guards().is_serving() => return false,
                Err(_) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        false
    }
}

/// The controllers of its jobs.
impl JobRoot {
    /// The limits that jobs here can have.
    pub(crate) fn limits(&self) -> Resources {
        delegation::possible_limits(self.dir())
    }

    /// Whether the cgroups of the jobs have this controller now.
    pub(crate) fn has_enabled(&self, controller: &str) -> bool {
        controllers::is_enabled(self.dir(), controller)
    }

    /// Enables the controllers that these limits need.
    pub(crate) fn enable(&self, wanted: Resources) -> Result<()> {
        let mut names = controllers::controllers(wanted).into_iter();
        names.try_for_each(|name| self.enable_controller(name))
    }

    /// Enables the controllers that account for resources, as far as this is allowed.
    pub(crate) fn enable_accounting(&self) {
        for controller in ["memory", "io", "pids"] {
            let _ = self.enable_controller(controller);
        }
    }

    fn enable_controller(&self, controller: &str) -> Result<()> {
        if self.has_enabled(controller) {
            return Ok(());
        }
        let path = self.path.display();
        if !delegation::has_no_members(self.dir()) {
            return Err(Error::unsupported(format!(
                "cannot enable the controller {controller} below {path}: that cgroup has members"
            )));
        }
        controllers::enable(self.dir(), controller)
            .map_err(|e| Error::os(format!("enable the controller {controller} below {path}"), e))
    }
}

/// How the names of the cgroups of a new owner begin.
fn fresh_prefix() -> Result<String> {
    Ok(format!("{PREFIX}{}", registry::fresh_owner()?))
}

/// How the ids of an owner's jobs begin.
fn owner_part(prefix: &str) -> &str {
    prefix.strip_prefix(PREFIX).unwrap_or_default()
}

/// The cgroups and records that the guards of a job root end.
fn guard_config<'a>(dir: BorrowedFd<'a>, prefix: &'a str, registry: &'a Path) -> GuardConfig<'a> {
    let records = Some((registry, owner_part(prefix)));
    GuardConfig { cgroups: Some((dir, prefix)), records, bus: None }
}
