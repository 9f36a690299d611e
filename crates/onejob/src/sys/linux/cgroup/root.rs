//! Where our cgroup is, and the jobs we have made below it.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{Access, AtFlags, FlockOperation, Mode, OFlags, XattrFlags, flock, fsetxattr},
};

use super::{
    controllers,
    delegation::{self, ParentCgroup},
    location::CgroupLocation,
    members::Members,
};
use crate::{
    AbandonedJob, AbandonedKind, Error, Process, Resources, Result,
    job::Enclosure,
    sys::linux::{
        guard::{client::Guards, launch::GuardConfig},
        nostd::{
            cgroup::{self as floor_cgroup, State, abandoned, walk},
            procfs::entries,
            syscall::{self, Errno, POLLIN, PollFd},
        },
        process::{fork_detect::ProcessToken, stuck},
        registry,
        spawn::baseline::GuardBaseline,
    },
};

/// What every cgroup of ours is called: this, the owner's own part, and numbers.
pub(crate) const PREFIX: &str = "onejob-";

/// Marks the first cgroup of a job that has another one.
const FOLLOWED: &CStr = c"user.onejob.followed";

/// A cgroup of ours that was not a job's: where this process is, and its jobs go.
pub(crate) struct JobRoot {
    /// How we know that we are still there.
    place: CgroupLocation,
    path: PathBuf,
    dir: OwnedFd,
    prefix: String,
    /// Where records of jobs below this base go, since its guards look there.
    registry: PathBuf,
    next_job: Arc<AtomicU32>,
    guards: Mutex<Arc<Guards>>,
    /// Whether they have been looked at since the first member was started.
    has_looked: AtomicBool,
    owner: ProcessToken,
    /// If we may not put anybody into our cgroups ourselves: what a guard's children inherit.
    pub(crate) remote: Option<GuardBaseline>,
}

/// The bases of this process: one, unless it has been moved or has enclosed itself.
static JOB_ROOTS: Mutex<Vec<Arc<JobRoot>>> = Mutex::new(Vec::new());

impl JobRoot {
    /// The base for jobs made now with these limits. Its guards are on their way: nobody may be
    /// started before one of them has [arrived](Guards::arrive).
    pub(crate) fn current(wanted: Resources, around: Enclosure) -> Result<Arc<JobRoot>> {
        let place = CgroupLocation::current().map_err(unavailable)?;
        let owner = ProcessToken::current()?;
        let mut bases = JOB_ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
        // A forked copy of an owner is an owner of its own.
        bases.retain(|base| base.owner == owner);
        if let Some(base) = bases.iter().find(|base| base.matches(&place, wanted, around)) {
            base.revive_guards()?;
            return Ok(base.clone());
        }
        let base = match ParentCgroup::current(&place).map_err(unavailable) {
            Ok(own) if own.provides(wanted) => JobRoot::create_in(own, place, owner, &bases)?,
            own => JobRoot::fallback(own, place, owner, wanted, around, &bases)?,
        };
        let has_own_guards = !bases.iter().any(|other| other.prefix == base.prefix);
        base.end_abandoned(has_own_guards);
        let base = Arc::new(base);
        bases.push(base.clone());
        Ok(base)
    }

    /// Whether it is still the one for jobs made here.
    fn matches(&self, place: &CgroupLocation, wanted: Resources, around: Enclosure) -> bool {
        // Nobody can be put beside guards that were killed, nor can we ourselves be put there.
        let is_there = match self.remote {
            Some(_) => around == Enclosure::None && self.guards().is_serving(),
            None => true,
        };
        let needs = wanted.without(Resources::CPU_TIME);
        self.place == *place && is_there && (needs.is_empty() || self.limits().contains(needs))
    }

    /// Has what dead owners have left below this base ended, without waiting for any of it: kills and
    /// removes what can be at once, and leaves the rest to the guards, or to the next job made here.
    fn end_abandoned(&self, has_own_guards: bool) {
        // In microseconds.
        const LONGEST: u64 = 500;
        let until = syscall::now() + LONGEST;
        let dir = self.dir().as_raw_fd();
        let swept = abandoned::sweep(dir, self.prefix.as_bytes(), false, until);
        if has_own_guards && swept.is_ok_and(|swept| swept.left) {
            self.guards().end_abandoned();
        }
    }

    fn create_in(
        ParentCgroup { path, dir }: ParentCgroup,
        place: CgroupLocation,
        owner: ProcessToken,
        bases: &[Arc<JobRoot>],
    ) -> Result<JobRoot> {
        // Below a job of ours, its guards take down whatever we make here.
        let around = bases.iter().find(|base| base.contains(&path));
        if let Some(around) = around {
            around.revive_guards()?;
            // One owner, one row of numbers: ids and what the guards look for are the same.
            let (prefix, registry) = (around.prefix.clone(), around.registry.clone());
            let guards = Mutex::new(around.guards());
            let next_job = around.next_job.clone();
            return Ok(JobRoot {
                place,
                path,
                dir,
                prefix,
                registry,
                next_job,
                guards,
                has_looked: AtomicBool::new(false),
                owner,
                remote: None,
            });
        }
        let prefix = format!("{PREFIX}{}", registry::fresh_owner()?);
        let registry = registry::place();
        let guards = Guards::launch(charge(dir.as_fd(), &prefix, &registry))?;
        let (guards, next_job) = (Mutex::new(Arc::new(guards)), Arc::default());
        let has_looked = AtomicBool::new(false);
        let remote = None;
        Ok(JobRoot {
            place,
            path,
            dir,
            prefix,
            registry,
            next_job,
            guards,
            has_looked,
            owner,
            remote,
        })
    }

    /// Where there are the controllers that our own cgroup does not give us, or where we may make
    /// cgroups at all.
    fn fallback(
        own: Result<ParentCgroup>,
        place: CgroupLocation,
        owner: ProcessToken,
        wanted: Resources,
        around: Enclosure,
        bases: &[Arc<JobRoot>],
    ) -> Result<JobRoot> {
        let mut refusals = Vec::new();
        let refused = match own {
            Err(error) if !error.is_unsupported() => return Err(error),
            // A scope would be a cgroup of the same kernel.
            Err(error) if delegation::missing_cgroup_kill(&place) => return Err(error),
            // What limits our threads would not limit the job.
            Err(error) if delegation::is_threaded(&place) => return Err(error),
            Err(error) => error,
            Ok(own) => {
                let lacking = wanted.without(own.limits());
                let why =
                    format!("our cgroup {} has no controller for {lacking}", own.path.display());
                let guards: Vec<_> = bases.iter().map(|base| base.guards()).collect();
                match own.move_self_to_leaf(wanted, &guards) {
                    Ok(own) => {
                        return JobRoot::create_in(own, CgroupLocation::current()?, owner, bases);
                    }
                    Err(error) => refusals.push(error),
                }
                Error::unmet(why)
            }
        };
        if delegation::is_in_a_job(&place) {
            return Err(refused);
        }
        match ParentCgroup::root() {
            Ok(root) if root.limits().contains(wanted) => {
                return JobRoot::create_in(root, place, owner, bases);
            }
            _ => {}
        }
        match JobRoot::in_a_scope(place, owner, around) {
            Ok(base) if delegation::limits_below(base.dir()).contains(wanted) => return Ok(base),
            Ok(base) => {
                let lacking = wanted.without(delegation::limits_below(base.dir()));
                refusals.push(Error::unsupported(format!(
                    "a scope of systemd's has no controller for {lacking} either"
                )));
            }
            Err(error) => refusals.push(error),
        }
        Err(refused.and(refusals))
    }

    #[cfg(feature = "systemd")]
    fn in_a_scope(
        place: CgroupLocation,
        owner: ProcessToken,
        around: Enclosure,
    ) -> Result<JobRoot> {
        use crate::sys::linux::systemd::scope::{self, Scope};
        if around == Enclosure::Caller {
            return Err(Error::unsupported(
                "this process cannot be moved into a scope of systemd's",
            ));
        }
        if !CgroupLocation::is_in_initial_namespace() {
            return Err(Error::unsupported(
                "a scope of systemd's would be outside of our cgroup namespace",
            ));
        }
        let bus = scope::bus()?;
        let baseline = GuardBaseline::current()?;
        let prefix = format!("{PREFIX}{}", registry::fresh_owner()?);
        let registry = registry::place();
        // Until there is the scope itself.
        let nowhere = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::os("open the root directory", e))?;
        let charge = GuardConfig { bus: Some(&bus), ..charge(nowhere.as_fd(), &prefix, &registry) };
        let mut found = None;
        let guards = Guards::start_in_scope(charge, |connection, guard, asks| {
            let name = prefix.trim_end_matches('-');
            let scope = Scope::around(connection, guard, name, asks)?;
            let path = scope.path.clone();
            let (theirs, dir) = scope.descriptors()?;
            // Where it is ours by name only, whoever looks for what was abandoned sees this.
            let _ = flock(&dir, FlockOperation::NonBlockingLockShared);
            found = Some(ParentCgroup { path, dir });
            Ok(theirs)
        })?;
        let Some(ParentCgroup { path, dir }) = found else {
            return Err(Error::unsupported("systemd makes no scope for us"));
        };
        sweep_scopes(&path);
        baseline.examine(&guards);
        let (guards, next_job) = (Mutex::new(Arc::new(guards)), Arc::default());
        let remote = Some(baseline);
        let has_looked = AtomicBool::new(true);
        Ok(JobRoot {
            place,
            path,
            dir,
            prefix,
            registry,
            next_job,
            guards,
            has_looked,
            owner,
            remote,
        })
    }

    #[cfg(not(feature = "systemd"))]
    fn in_a_scope(_: CgroupLocation, _: ProcessToken, _: Enclosure) -> Result<JobRoot> {
        Err(Error::unsupported("systemd is not asked for a scope")
            .with_hint("build onejob with its feature systemd"))
    }

    /// No job could be made here: unless there is one already, its guards are not kept for the next.
    pub(crate) fn forget(&self) {
        if self.next_job.load(Ordering::Relaxed) <= 1 {
            let mut bases = JOB_ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
            bases.retain(|base| !std::ptr::eq(&**base, self));
        }
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn registry(&self) -> &Path {
        &self.registry
    }

    /// A number for another job of this owner.
    pub(crate) fn next_job(&self) -> u32 {
        1 + self.next_job.fetch_add(1, Ordering::Relaxed)
    }

    /// What tells a job apart from every other of this boot.
    pub(crate) fn id_of(&self, job: u32) -> String {
        format!("{}{job}", self.prefix.strip_prefix(PREFIX).unwrap_or_default())
    }

    /// Has a guard end a cgroup, however long that takes.
    pub(crate) fn leave_to_guards(&self, cgroup: &Cgroup) {
        self.guards().end_cgroup(cgroup.job, cgroup.number);
    }

    /// Has a guard end a cgroup, and waits for that: needs no descriptor, and no permission that this
    /// process has given up. Whether it is gone.
    pub(crate) fn end_by_guard(&self, cgroup: &Cgroup, patience: Duration) -> bool {
        self.leave_to_guards(cgroup);
        let start = Instant::now();
        // Without a descriptor there is no event to wait for.
        let mut pause = Duration::from_millis(1);
        while start.elapsed() < patience {
            match rustix::fs::unlinkat(self.dir(), &cgroup.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV) => return true,
                Err(_) if is_missing(self.dir(), &cgroup.name) => return true,
                Err(_) if !self.guards().is_serving() => return false,
                Err(_) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        false
    }

    pub(crate) fn guards(&self) -> Arc<Guards> {
        self.guards.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Guards of which the one that answers lives: new ones, if somebody has killed it.
    pub(crate) fn serving_guards(&self) -> Result<Arc<Guards>> {
        let mut guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        if !guards.is_serving() {
            self.replace(&mut guards)?;
        }
        Ok(guards.clone())
    }

    /// To be called when a member was started, without a wait for the guards before: the outer one may
    /// have been killed before it had started the inner one, and then there is none.
    pub(crate) fn look_at_guards(&self) {
        if !self.has_looked.swap(true, Ordering::Relaxed) {
            let _ = self.revive_guards();
        }
    }

    /// A new job is guarded even if somebody has killed both guards.
    fn revive_guards(&self) -> Result<()> {
        let mut guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        if !guards.any_alive() {
            self.replace(&mut guards)?;
        }
        Ok(())
    }

    /// Those that were there may live, should we not have been able to hear who they are: they are to
    /// leave everything to the new ones.
    fn replace(&self, guards: &mut Arc<Guards>) -> Result<()> {
        let charge = charge(self.dir(), &self.prefix, &self.registry);
        let fresh = Arc::new(Guards::start(charge)?);
        std::mem::replace(guards, fresh).release();
        Ok(())
    }

    /// Whether a path is inside one of the jobs below this base.
    fn contains(&self, path: &Path) -> bool {
        let below = path.strip_prefix(&self.path).ok();
        let first = below.and_then(|below| below.components().next());
        first.is_some_and(|name| name.as_os_str().as_bytes().starts_with(self.prefix.as_bytes()))
    }

    /// Has whoever looks for the cgroups of a job look for more than the first one, if that is
    /// still there.
    fn mark_followed(&self, job: u32) -> std::result::Result<(), rustix::io::Errno> {
        let name = floor_cgroup::name_of(self.prefix.as_bytes(), job as i32, 0);
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(self.dir(), name.as_c_str(), flags, Mode::empty()) {
            Ok(first) => fsetxattr(&first, FOLLOWED, b"", XattrFlags::empty()),
            Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Makes and locks a fresh cgroup of a job, the next after those it has had. A used one must
    /// never be used again after a kill.
    pub(crate) fn make(&self, job: u32, next: &AtomicU32) -> Result<Cgroup> {
        let failed = |e: rustix::io::Errno| {
            let error = Error::os(format!("make a cgroup below {}", self.path.display()), e);
            match e {
                rustix::io::Errno::AGAIN => {
                    error.with_hint("cgroup.max.descendants or cgroup.max.depth is reached")
                }
                _ => error,
            }
        };
        // More often it is not taken away by processes that look for abandoned ones.
        const TRIES: usize = 100;
        let mut last = rustix::io::Errno::EXIST;
        for _ in 0..TRIES {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number > 0 {
                self.mark_followed(job).map_err(failed)?;
            }
            let name = floor_cgroup::name_of(self.prefix.as_bytes(), job as i32, number as i32);
            let name = name.as_c_str().to_owned();
            match rustix::fs::mkdirat(self.dir(), &name, Mode::RWXU) {
                Ok(()) => {}
                Err(rustix::io::Errno::EXIST) => continue,
                Err(e) => return Err(failed(e)),
            }
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(self.dir(), &name, flags, Mode::empty());
            let ended = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
            // Between the making and the locking it looks abandoned: a sweeper may have taken it,
            // and then it is gone or locked.
            let locked = opened.and_then(|dir| {
                flock(&dir, FlockOperation::NonBlockingLockShared)?;
                rustix::fs::accessat(&dir, "cgroup.procs", Access::EXISTS, AtFlags::empty())?;
                Ok((dir, ended?))
            });
            match locked {
                Ok((dir, ended)) => {
                    let is_killed = AtomicBool::new(false);
                    return Ok(Cgroup { job, number, name, dir, is_killed, ended });
                }
                // Taken by a sweeper, or looked at by one that only looks for leftovers.
                Err(
                    e @ (rustix::io::Errno::AGAIN
                    | rustix::io::Errno::NOENT
                    | rustix::io::Errno::NODEV),
                ) => {
                    let _ = rustix::fs::unlinkat(self.dir(), &name, AtFlags::REMOVEDIR);
                    last = e;
                }
                Err(e) => {
                    let _ = rustix::fs::unlinkat(self.dir(), &name, AtFlags::REMOVEDIR);
                    return Err(failed(e));
                }
            }
        }
        Err(failed(last))
    }
}

/// What the guards of a base are to take down.
fn charge<'a>(dir: BorrowedFd<'a>, prefix: &'a str, registry: &'a Path) -> GuardConfig<'a> {
    let records = prefix.strip_prefix(PREFIX).unwrap_or_default();
    GuardConfig { cgroups: Some((dir, prefix)), records: Some((registry, records)), bus: None }
}

impl JobRoot {
    /// Which limits cgroups below this base can have now.
    pub(crate) fn limits(&self) -> Resources {
        delegation::limits_below(self.dir())
    }

    /// Whether our cgroups have this controller now.
    pub(crate) fn accounts(&self, controller: &str) -> bool {
        enabled_below(self.dir()).split_whitespace().any(|name| name == controller)
    }

    /// Has the kernel hand a controller down to our cgroups.
    fn enable_controller(&self, controller: &str) -> Result<()> {
        if self.accounts(controller) {
            return Ok(());
        }
        if !delegation::is_free(self.dir()) {
            let place = self.path.display();
            return Err(Error::unsupported(format!(
                "the controller {controller} cannot be enabled below {place}: it has members"
            )));
        }
        write_text(self.dir(), "cgroup.subtree_control", &format!("+{controller}")).map_err(|e| {
            let place = self.path.display();
            Error::os(format!("enable the controller {controller} below {place}"), e)
        })
    }

    /// The same with those for these limits.
    pub(crate) fn enable(&self, wanted: Resources) -> Result<()> {
        controllers::controllers(wanted)
            .into_iter()
            .try_for_each(|name| self.enable_controller(name))
    }

    /// And with those that keep books, as far as that is allowed.
    pub(crate) fn account(&self) {
        for controller in ["memory", "io", "pids"] {
            let _ = self.enable_controller(controller);
        }
    }
}

fn enabled_below(base: BorrowedFd<'_>) -> String {
    read_text(base, "cgroup.subtree_control").unwrap_or_default()
}

/// Which limits cgroups below this one can have now.
pub(crate) fn limits_below(base: BorrowedFd<'_>) -> Resources {
    controllers::resources(&enabled_below(base)).with(Resources::CPU_TIME)
}

/// Which limits jobs made from here can perhaps have: whether a scope is to be had, and with which
/// controllers, shows only when it is asked for.
pub(crate) fn possible_limits() -> Resources {
    let Ok(place) = CgroupLocation::current() else { return Resources::NONE };
    let own = ParentCgroup::current(&place).map_or(Resources::NONE, |own| own.limits());
    if delegation::is_in_a_job(&place) { own } else { controllers::ALL }
}

/// What was found by trying.
pub(crate) struct Found {
    pub(crate) limits: Resources,
    /// Whether jobs are made in a scope even if nothing is limited.
    pub(crate) in_a_scope: bool,
    /// Why not all can be limited.
    pub(crate) lacking: Option<Error>,
}

/// Which limits jobs made from here can have, tried.
pub(crate) fn available_limits() -> Result<Found> {
    let plain = JobRoot::current(Resources::NONE, Enclosure::None)?;
    let in_a_scope = plain.remote.is_some();
    let mut found = Found { limits: plain.limits(), in_a_scope, lacking: None };
    for wanted in [Resources::MEMORY, Resources::CPU, Resources::PROCESSES] {
        if !found.limits.contains(wanted) {
            match JobRoot::current(wanted, Enclosure::None) {
                Ok(base) => found.limits = found.limits.with(base.limits()),
                Err(error) => {
                    // Nor would another one be there, and who does not answer is not asked again.
                    found.lacking = Some(error);
                    break;
                }
            }
        }
    }
    Ok(found)
}

/// A cgroup of a job, locked as long as this lives.
pub(crate) struct Cgroup {
    job: u32,
    number: u32,
    pub(crate) name: CString,
    pub(crate) dir: OwnedFd,
    /// Whether it was killed by us, and must not be used again.
    is_killed: AtomicBool,
    /// Readable once it has been emptied by us. The kernel tells of emptiness with a delay, and not
    /// any more when the cgroup is removed meanwhile.
    ended: OwnedFd,
}

impl Cgroup {
    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Whether it was killed or removed: a process that could not be started in it can be started in
    /// a fresh one.
    pub(crate) fn takes_no_member(&self) -> bool {
        self.is_killed() || is_removed(self.dir.as_fd())
    }

    pub(crate) fn mark_kill_begun(&self) {
        self.is_killed.store(true, Ordering::Release);
    }

    pub(crate) fn mark_ended(&self) {
        let _ = rustix::io::write(&self.ended, &1_u64.to_ne_bytes());
    }

    pub(crate) fn end_poll_fd(&self) -> PollFd {
        PollFd::new(self.ended.as_raw_fd(), POLLIN)
    }
}

/// What is left below a base, each locked by us.
fn abandoned_below(base: BorrowedFd<'_>) -> io::Result<Vec<(CString, OwnedFd)>> {
    let mut cgroups = ours(base, &abandoned::is_a_jobs)?;
    cgroups.retain(|(_, dir)| flock(dir, FlockOperation::NonBlockingLockExclusive).is_ok());
    Ok(cgroups)
}

/// What is left of jobs below our cgroup.
pub(crate) fn leftovers() -> Result<Vec<AbandonedJob>> {
    let path = match CgroupLocation::current().and_then(|place| place.path()) {
        // No cgroups here, hence none that are left.
        Err(error) if error.is_unsupported() => return Ok(Vec::new()),
        path => path?,
    };
    let failed = |e: io::Error| Error::os(format!("look for cgroups below {}", path.display()), e);
    let base = match open_base(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error().is_none() => {
            return Ok(Vec::new());
        }
        base => base.map_err(failed)?,
    };
    let describe = |(name, dir): (CString, OwnedFd)| {
        let members = Members(vec![dir.as_fd()]).list()?;
        let (kind, stuck) = match has_mark(dir.as_fd(), floor_cgroup::RELEASED).map_err(failed)? {
            true => (AbandonedKind::Released, None),
            false => (AbandonedKind::Abandoned, stuck::why(&members)),
        };
        let place = path.join(OsStr::from_bytes(name.as_bytes()));
        Ok(AbandonedJob { place, processes: members.len(), kind, stuck })
    };
    abandoned_below(base.as_fd()).map_err(failed)?.into_iter().map(describe).collect()
}

/// Whether a cgroup has an extended attribute.
fn has_mark(cgroup: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match rustix::fs::fgetxattr(cgroup, name, &mut [0_u8; 0]) {
        Ok(_) | Err(rustix::io::Errno::RANGE) => Ok(true),
        // The latter before Linux 5.7, where nothing can have been marked.
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// This user's cgroups below a base whose names fit.
fn ours(base: BorrowedFd<'_>, fits: &dyn Fn(&[u8]) -> bool) -> io::Result<Vec<(CString, OwnedFd)>> {
    let mut names = Vec::new();
    let listing = match syscall::openat(base.as_raw_fd(), c".", syscall::O_DIRECTORY) {
        Err(errno) if is_gone(errno) => return Ok(Vec::new()),
        listing => listing?,
    };
    entries(&listing, &mut |name, is_dir| {
        if is_dir && fits(name.to_bytes()) {
            names.push(name.to_owned());
        }
    })?;
    names.into_iter().filter_map(|name| is_in_use_by_this_process(base, name).transpose()).collect()
}

/// A cgroup below a base if it is this user's.
fn is_in_use_by_this_process(
    base: BorrowedFd<'_>,
    name: CString,
) -> io::Result<Option<(CString, OwnedFd)>> {
    use rustix::io::Errno as E;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let me = rustix::process::geteuid().as_raw();
    let dir = match rustix::fs::openat(base, &name, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(E::NOENT | E::NODEV | E::NOTDIR | E::LOOP) => return Ok(None),
        // Another user's, most likely.
        Err(e @ E::ACCESS) => {
            let stat = rustix::fs::statat(base, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            return if stat.st_uid == me { Err(e.into()) } else { Ok(None) };
        }
        Err(e) => return Err(e.into()),
    };
    Ok((rustix::fs::fstat(&dir)?.st_uid == me).then_some((name, dir)))
}

/// Ends what is left of a job whose owner and guards are dead, and waits for that up to a deadline. Proof
/// is the lock here, too. Whether nothing is left.
pub(crate) fn end_abandoned(base: &Path, id: &str, deadline: Instant) -> bool {
    let base = match open_base(base) {
        Ok(base) => base,
        // Nothing is there, or something that is no cgroup. After any other error that is not known.
        Err(e) => return e.kind() == io::ErrorKind::NotFound || e.raw_os_error().is_none(),
    };
    let Ok(cgroups) = cgroups_of(base.as_fd(), id) else { return false };
    // All are killed before the first is waited for.
    let mut held: Vec<_> = cgroups
        .iter()
        .filter(|(_, dir)| flock(dir, FlockOperation::NonBlockingLockExclusive).is_ok())
        .collect();
    let others = cgroups.len() - held.len();
    let until = syscall::now() + ONE_LOOK;
    held.retain(|(name, _)| match floor_cgroup::end_now(base.as_raw_fd(), name, false, until) {
        Ok(State::Gone | State::Released) => false,
        Ok(_) | Err(_) => true,
    });
    let ended = |(name, _): &&(CString, OwnedFd)| {
        let patience = crate::sys::linux::deadline::milliseconds_until(Some(deadline));
        floor_cgroup::end(base.as_raw_fd(), name, patience) == Ok(true)
    };
    others == 0 && held.iter().all(ended)
}

/// The members of the job with this id.
pub(crate) fn members(base: &Path, id: &str) -> Result<Vec<Process>> {
    let failed = |e: io::Error| Error::os(format!("find the cgroups of job {id}"), e);
    let base = match open_base(base) {
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error().is_none() => {
            return Ok(Vec::new());
        }
        base => base.map_err(failed)?,
    };
    let cgroups = cgroups_of(base.as_fd(), id).map_err(failed)?;
    Members(cgroups.iter().map(|(_, dir)| dir.as_fd()).collect()).list()
}

/// How long one look at an abandoned cgroup takes at most, in microseconds.
const ONE_LOOK: u64 = 20_000;

/// The directory below which the cgroups of jobs lie, if it is a cgroup.
pub(crate) fn open_base(path: &Path) -> io::Result<OwnedFd> {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty())?;
    match rustix::fs::fstatfs(&dir)?.f_type as u64 {
        CGROUP2_SUPER_MAGIC => Ok(dir),
        _ => Err(io::Error::other("it is no cgroup")),
    }
}

/// The cgroups of the job with this id that are ours, the latest last.
pub(crate) fn cgroups_of(base: BorrowedFd<'_>, id: &str) -> io::Result<Vec<(CString, OwnedFd)>> {
    let first = format!("{PREFIX}{id}");
    // Most jobs have but one, which costs nothing to find however many jobs there are.
    let only =
        CString::new(&*first).map_or(Ok(None), |first| is_in_use_by_this_process(base, first))?;
    if let Some((name, dir)) = only
        && !has_mark(dir.as_fd(), FOLLOWED)?
    {
        return Ok(vec![(name, dir)]);
    }
    let mut cgroups = ours(base, &|name| {
        let rest = name.strip_prefix(first.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
    })?;
    cgroups.sort_by_key(|(name, _)| (name.as_bytes().len(), name.clone()));
    Ok(cgroups)
}

/// The same in the scopes beside ours: their owners and guards were killed together.
#[cfg(feature = "systemd")]
fn sweep_scopes(own: &Path) {
    let Some(slice) = own.parent().and_then(|slice| open_base(slice).ok()) else { return };
    let is_scope = |name: &[u8]| {
        name.starts_with(PREFIX.as_bytes())
            && name.ends_with(b".scope")
            && !own.ends_with(OsStr::from_bytes(name))
    };
    for (_, dir) in ours(slice.as_fd(), &is_scope).unwrap_or_default() {
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // The rest is left to the next scope that is made.
            let _ = abandoned::sweep(dir.as_raw_fd(), b"", false, syscall::now() + ONE_LOOK);
        }
    }
}

/// Opens our cgroup if jobs can be made below it by us: directories, and moves into them.
pub(crate) fn usable(path: &Path) -> Result<OwnedFd> {
    let shown = path.display();
    let lacking = |what: &str, hint: &str| {
        Err(Error::unsupported(format!("our cgroup {shown} {what}")).with_hint(hint.to_owned()))
    };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| Error::os(format!("open our cgroup {shown}"), e))?;
    // First, for no other place would do better then.
    if !delegation::has_kill(dir.as_fd()) {
        return lacking("cannot be killed as one", "cgroup.kill needs Linux 5.14");
    }
    // Moving into a child needs the permission to move here too.
    for name in [".", "cgroup.procs"] {
        let access = rustix::fs::accessat(&dir, name, Access::WRITE_OK, AtFlags::EACCESS);
        match access {
            Ok(()) => {}
            Err(rustix::io::Errno::ROFS) => {
                return lacking("is mounted read-only", "let the container write to its cgroup");
            }
            Err(rustix::io::Errno::NOENT) => {
                return lacking(
                    "is hidden: another file system is mounted over it",
                    "mount one: mount -t cgroup2 none /sys/fs/cgroup",
                );
            }
            Err(_) => {
                let hint = "run as root or in a delegated cgroup, for example with \
                            systemd-run --user --scope -p Delegate=yes";
                return lacking("is not ours to write to", hint);
            }
        }
    }
    let kind = match read_text(dir.as_fd(), "cgroup.type") {
        // The root has no such file.
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        kind => kind.map_err(|e| Error::os(format!("read the type of our cgroup {shown}"), e))?,
    };
    if !matches!(kind.trim(), "" | "domain" | "domain threaded") || kind.trim() == "domain threaded"
    {
        return lacking("is threaded and cannot hold processes of its own", "use another cgroup");
    }
    Ok(dir)
}

/// A refusal that says that cgroups cannot be used here, so that another mechanism is tried. If
/// descriptors or memory are used up, any mechanism would fail.
pub(crate) fn unavailable(error: Error) -> Error {
    match error.raw_os_error().map(Errno) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => error,
        _ => error.into_unsupported(),
    }
}

pub(crate) fn read_text(dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let file = rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    crate::sys::linux::file::read_all(&file)
}

pub(crate) fn write_text(dir: BorrowedFd<'_>, name: &str, text: &str) -> io::Result<()> {
    let file = rustix::fs::openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}

/// As [`read_text`] of a job's cgroup, from which a member can have taken the permissions away.
pub(crate) fn read_job_text(cgroup: BorrowedFd<'_>, name: &CStr) -> io::Result<String> {
    crate::sys::linux::file::read_all(&open_job_file(cgroup, name, 0)?)
}

/// As [`write_text`] into a job's cgroup, from which a member can have taken the permissions away.
pub(crate) fn write_job_text(cgroup: BorrowedFd<'_>, name: &CStr, text: &str) -> io::Result<()> {
    let file = open_job_file(cgroup, name, syscall::O_WRONLY)?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}

fn open_job_file(cgroup: BorrowedFd<'_>, name: &CStr, flags: i32) -> io::Result<OwnedFd> {
    let file = walk::open_file(cgroup.as_raw_fd(), name, flags)?.into_raw();
    // SAFETY: just opened, and given up by its owner.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// Whether there is nothing of this name.
fn is_missing(dir: BorrowedFd<'_>, name: &CStr) -> bool {
    let looked = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    matches!(looked, Err(rustix::io::Errno::NOENT))
}

/// Whether the kernel says that the cgroup behind a descriptor has been removed.
pub(crate) fn is_removed(cgroup: BorrowedFd<'_>) -> bool {
    let listed = rustix::fs::accessat(cgroup, "cgroup.procs", Access::EXISTS, AtFlags::empty());
    listed.is_err_and(|e| is_gone(Errno(e.raw_os_error())))
}

/// Whether an error only says that the cgroup has been removed.
pub(crate) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NODEV)
}
