//! The outer boundary of a test case, and the judge of who lives inside.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    Bins, DEADLINE, Environment, cgroup, eventually::within, namespace::Namespace, proc,
    scratch_dir,
};

/// Names the directory of a user's records.
const RUNTIME_DIR: &str = "ONEJOB_RUNTIME_DIR";

/// Everything of a test case is started inside; nothing of it is left when this is dropped.
///
/// As root it is a cgroup of its own. An ordinary user gets a PID namespace, whose numbers differ
/// from ours: [`outer_pid`](Cell::outer_pid) translates.
#[derive(Debug)]
pub struct Sandbox {
    boundary: Boundary,
    setting: Environment,
    /// Where what is started inside keeps its records.
    runtime: PathBuf,
}

#[derive(Debug)]
enum Boundary {
    Cgroup { inside: PathBuf, beside: PathBuf },
    Namespace(Namespace),
}

/// Somebody who lives in a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveProcess {
    /// Its number here.
    pub pid: i32,
    /// Where it belongs; `None` if it ended between two looks.
    pub stat: Option<proc::Stat>,
}

impl Sandbox {
    /// A cell for one case.
    pub fn new(setting: Environment) -> Sandbox {
        let boundary = match rustix::process::geteuid().is_root() && cgroup_is_writable() {
            true => cgroups(setting),
            false => Boundary::Namespace(Namespace::new()),
        };
        Sandbox { boundary, setting, runtime: scratch_dir().join("runtime") }
    }

    /// Starts `program` inside, as the user of the setting and in a process group of its own.
    pub fn start(&mut self, program: &Path, change: impl FnOnce(&mut Command)) -> Child {
        let runtime = &self.runtime;
        let change = |command: &mut Command| change(command.env(RUNTIME_DIR, runtime));
        match &mut self.boundary {
            Boundary::Cgroup { inside, .. } => {
                let mut command = Command::new(program);
                change(&mut command);
                spawn_in(inside, self.setting, command.process_group(0))
            }
            Boundary::Namespace(namespace) => {
                let mut command = Command::new(Bins::get().cell_init());
                command.args(namespace.entry(Bins::get().actor())).arg(program);
                change(&mut command);
                namespace.start(command.process_group(0))
            }
        }
    }

    /// The number here of the program that [`start`](Cell::start) started first, as `child`, and of
    /// its process group; a namespace has it only from a moment after that until the program ends.
    pub fn program(&self, child: &Child) -> Option<i32> {
        match &self.boundary {
            Boundary::Cgroup { .. } => Some(child.id() as i32),
            Boundary::Namespace(namespace) => namespace.program(),
        }
    }

    /// Starts `command` as the same user, but outside: where innocent bystanders live.
    pub fn start_beside(&self, command: &mut Command) -> Child {
        match &self.boundary {
            Boundary::Cgroup { beside, .. } => spawn_in(beside, self.setting, command),
            Boundary::Namespace(_) => command.spawn().expect("a program that starts"),
        }
    }

    /// Who lives here: fully dead zombies do not count, a dead leader with living threads does.
    pub fn live(&self) -> Vec<LiveProcess> {
        let pids = match &self.boundary {
            Boundary::Cgroup { inside, .. } => cgroup::pids(inside),
            Boundary::Namespace(namespace) => namespace.pids(),
        };
        let alive = pids.into_iter().filter(|pid| proc::is_alive(*pid));
        alive.map(|pid| LiveProcess { pid, stat: proc::stat(pid) }).collect()
    }

    /// The pids of those who live here.
    pub fn live_pids(&self) -> Vec<i32> {
        self.live().iter().map(|living| living.pid).collect()
    }

    /// The number here of a process that knows itself as `inner`; `None` if it is gone.
    pub fn outer_pid(&self, inner: i32) -> Option<i32> {
        match &self.boundary {
            Boundary::Cgroup { .. } => proc::stat(inner).map(|_| inner),
            Boundary::Namespace(namespace) => namespace.outer_pid(inner),
        }
    }

    /// [`outer_pid`](Cell::outer_pid) for many: who lives here is looked up once.
    pub(crate) fn outer_pids(&self) -> impl Fn(i32) -> Option<i32> + use<> {
        let table = match &self.boundary {
            Boundary::Cgroup { .. } => None,
            Boundary::Namespace(namespace) => Some(namespace.outer_pids()),
        };
        move |inner| match &table {
            None => proc::stat(inner).map(|_| inner),
            Some(table) => table.get(&inner).copied(),
        }
    }

    /// The innocent one that a namespace cell has inside.
    pub(crate) fn bystander(&self) -> Option<i32> {
        match &self.boundary {
            Boundary::Cgroup { .. } => None,
            Boundary::Namespace(namespace) => namespace.bystander(),
        }
    }

    /// The cgroup of the case, if it has one.
    pub fn cgroup(&self) -> Option<&Path> {
        match &self.boundary {
            Boundary::Cgroup { inside, .. } => Some(inside),
            Boundary::Namespace(_) => None,
        }
    }

    /// The directory where what is started inside keeps its records; not there before the first.
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime
    }

    /// The names of the files in there.
    pub fn runtime_files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.runtime).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The cgroups that were made below the cell's own and are still there.
    pub fn nested_cgroups(&self) -> Vec<PathBuf> {
        let Some(inside) = self.cgroup() else { return Vec::new() };
        let mut nested = cgroup::with_descendants(inside);
        nested.pop();
        nested
    }

    /// Waits until nobody lives here and no cgroup is left below the cell's, except such as the
    /// case `tolerates` by name.
    #[track_caller]
    pub fn wait_until_empty(&self, tolerates: impl Fn(&str) -> bool) {
        let tolerated =
            |dir: &Path| dir.file_name().and_then(OsStr::to_str).is_some_and(&tolerates);
        let left = || {
            let mut nested = self.nested_cgroups();
            nested.retain(|dir| !tolerated(dir));
            (self.live(), nested)
        };
        let deserted = || {
            let (living, nested) = left();
            (living.is_empty() && nested.is_empty()).then_some(())
        };
        let deserted = within(DEADLINE, deserted).is_some();
        assert!(deserted, "SURVIVED the owner in the cell: {:#?}", left());
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Boundary::Cgroup { inside, beside } = &self.boundary {
            for dir in [inside, beside] {
                kill_and_remove(dir);
            }
        }
    }
}

/// Not a panic: this also runs while a failed test unwinds.
fn kill_and_remove(dir: &Path) {
    let removed = within(DEADLINE, || {
        cgroup::kill(dir);
        cgroup::remove(dir).ok()
    });
    if removed.is_none() {
        eprintln!("failed to remove {}: {:?} live there", dir.display(), cgroup::pids(dir));
    }
}

fn cgroups(setting: Environment) -> Boundary {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let own = cgroup::own().expect("a cgroup v2 hierarchy, checked by Setting::here");
    // Not the product's prefix: its sweep of abandoned jobs must not meet these.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("testcell-{}-{count}", std::process::id());
    let inside = own.join(&name);
    let beside = own.join(format!("{name}-beside"));
    for dir in [&inside, &beside] {
        fs::create_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
    if let (Environment::CgroupUser, Some(uid)) = (setting, setting.uid()) {
        for name in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(inside.join(name), Some(uid), Some(uid)).expect("a cgroup of ours");
        }
    }
    Boundary::Cgroup { inside, beside }
}

/// The child joins before it executes anything.
fn spawn_in(dir: &Path, setting: Environment, command: &mut Command) -> Child {
    if let Some(uid) = setting.uid() {
        command.uid(uid).gid(uid);
    }
    // Opened here, as root: the kernel asks whether the opener may.
    let procs = File::options().write(true).open(dir.join("cgroup.procs")).expect("a cgroup");
    // SAFETY: one write to a descriptor that the closure owns; nothing is allocated.
    unsafe { command.pre_exec(move || (&procs).write_all(b"0")) };
    command.spawn().unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"))
}

/// Whether the cells of a root user can be made here.
pub(crate) fn cgroup_is_writable() -> bool {
    static WRITABLE: OnceLock<bool> = OnceLock::new();
    *WRITABLE.get_or_init(|| cgroup::in_a_fresh_one(|_| ()).is_ok())
}
