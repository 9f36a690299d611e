//! The sandbox: the outer boundary of a test case, which lists the processes that are alive inside.

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

/// The variable with the directory of the records of a user.
const RUNTIME_DIR: &str = "ONEJOB_RUNTIME_DIR";

/// All processes of a test case are started inside; they are killed when this is dropped.
///
/// For root it is a new cgroup. For an ordinary user it is a PID namespace, in which pids differ from
/// those outside: [`outer_pid`](Sandbox::outer_pid) translates them.
#[derive(Debug)]
pub struct Sandbox {
    boundary: Boundary,
    environment: Environment,
    /// The directory of the records of processes inside.
    runtime: PathBuf,
}

#[derive(Debug)]
enum Boundary {
    Cgroup { inside: PathBuf, beside: PathBuf },
    Namespace(Namespace),
}

/// A live process in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveProcess {
    /// Its pid outside.
    pub pid: i32,
    /// Its `/proc/PID/stat`; `None` if it ended between two reads.
    pub stat: Option<proc::Stat>,
}

impl Sandbox {
    /// A sandbox for one test case.
    pub fn new(environment: Environment) -> Sandbox {
        let boundary = match rustix::process::geteuid().is_root() && cgroup_is_writable() {
            true => cgroups(environment),
            false => Boundary::Namespace(Namespace::new()),
        };
        Sandbox { boundary, environment, runtime: scratch_dir().join("runtime") }
    }

    /// Starts `program` inside, as the user of the environment and in a new process group.
    pub fn start(&mut self, program: &Path, change: impl FnOnce(&mut Command)) -> Child {
        let runtime = &self.runtime;
        let change = |command: &mut Command| change(command.env(RUNTIME_DIR, runtime));
        match &mut self.boundary {
            Boundary::Cgroup { inside, .. } => {
                let mut command = Command::new(program);
                change(&mut command);
                spawn_in(inside, self.environment, command.process_group(0))
            }
            Boundary::Namespace(namespace) => {
                let mut command = Command::new(Bins::get().sandbox_init());
                command.args(namespace.entry(Bins::get().helper())).arg(program);
                change(&mut command);
                namespace.start(command.process_group(0))
            }
        }
    }

    /// The outer pid of the program that [`start`](Sandbox::start) started first, as `child`, which is
    /// also its process group. In a namespace it exists from shortly after the start until the program
    /// ends.
    pub fn program(&self, child: &Child) -> Option<i32> {
        match &self.boundary {
            Boundary::Cgroup { .. } => Some(child.id() as i32),
            Boundary::Namespace(namespace) => namespace.program(),
        }
    }

    /// Starts `command` as the same user, but outside. Used for bystanders.
    pub fn start_beside(&self, command: &mut Command) -> Child {
        match &self.boundary {
            Boundary::Cgroup { beside, .. } => spawn_in(beside, self.environment, command),
            Boundary::Namespace(_) => command.spawn().expect("a program that starts"),
        }
    }

    /// The live processes inside. Zombies do not count, but a process with a dead leader thread and
    /// other live threads does.
    pub fn live(&self) -> Vec<LiveProcess> {
        let pids = match &self.boundary {
            Boundary::Cgroup { inside, .. } => cgroup::pids(inside),
            Boundary::Namespace(namespace) => namespace.pids(),
        };
        let alive = pids.into_iter().filter(|pid| proc::is_alive(*pid));
        alive.map(|pid| LiveProcess { pid, stat: proc::stat(pid) }).collect()
    }

    /// The outer pids of the live processes inside.
    pub fn live_pids(&self) -> Vec<i32> {
        self.live().iter().map(|living| living.pid).collect()
    }

    /// The outer pid of the process with the inner pid `inner`; `None` if it is gone.
    pub fn outer_pid(&self, inner: i32) -> Option<i32> {
        match &self.boundary {
            Boundary::Cgroup { .. } => proc::stat(inner).map(|_| inner),
            Boundary::Namespace(namespace) => namespace.outer_pid(inner),
        }
    }

    /// [`outer_pid`](Sandbox::outer_pid) for several pids: the processes are listed only once.
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

    /// The bystander inside a namespace sandbox.
    pub(crate) fn bystander(&self) -> Option<i32> {
        match &self.boundary {
            Boundary::Cgroup { .. } => None,
            Boundary::Namespace(namespace) => namespace.bystander(),
        }
    }

    /// The cgroup of the test case, if it has one.
    pub fn cgroup(&self) -> Option<&Path> {
        match &self.boundary {
            Boundary::Cgroup { inside, .. } => Some(inside),
            Boundary::Namespace(_) => None,
        }
    }

    /// The directory of the records of processes inside; it is made with the first record.
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime
    }

    /// The names of the files in that directory.
    pub fn runtime_files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.runtime).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The cgroups that were made below that of the sandbox and still exist.
    pub fn nested_cgroups(&self) -> Vec<PathBuf> {
        let Some(inside) = self.cgroup() else { return Vec::new() };
        let mut nested = cgroup::with_descendants(inside);
        nested.pop();
        nested
    }

    /// Waits until no process is alive inside and no cgroup is left below that of the sandbox, except
    /// those that the test case `tolerates` by name.
    #[track_caller]
    pub fn wait_until_empty(&self, tolerates: impl Fn(&str) -> bool) {
        let tolerated =
            |dir: &Path| dir.file_name().and_then(OsStr::to_str).is_some_and(&tolerates);
        let left = || {
            let mut nested = self.nested_cgroups();
            nested.retain(|dir| !tolerated(dir));
            (self.live(), nested)
        };
        let is_empty = || {
            let (living, nested) = left();
            (living.is_empty() && nested.is_empty()).then_some(())
        };
        let is_empty = within(DEADLINE, is_empty).is_some();
        assert!(is_empty, "SURVIVED in the sandbox: {:#?}", left());
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

fn cgroups(environment: Environment) -> Boundary {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let own = cgroup::own().expect("a cgroup v2 hierarchy, checked by Environment::here");
    // Not the prefix of onejob: its cleanup of abandoned jobs must not find these cgroups.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("testkit-{}-{count}", std::process::id());
    let inside = own.join(&name);
    let beside = own.join(format!("{name}-beside"));
    for dir in [&inside, &beside] {
        fs::create_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
    if let (Environment::CgroupUser, Some(uid)) = (environment, environment.uid()) {
        for name in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(inside.join(name), Some(uid), Some(uid)).expect("a cgroup of this test");
        }
    }
    Boundary::Cgroup { inside, beside }
}

/// Starts `command` in a cgroup: the child joins before it executes the program.
fn spawn_in(dir: &Path, environment: Environment, command: &mut Command) -> Child {
    if let Some(uid) = environment.uid() {
        command.uid(uid).gid(uid);
    }
    // Opened here, as root: the kernel checks the permissions of the process that opened the file.
    let procs = File::options().write(true).open(dir.join("cgroup.procs")).expect("a cgroup");
    // SAFETY: one write to a descriptor that the closure owns; nothing is allocated.
    unsafe { command.pre_exec(move || (&procs).write_all(b"0")) };
    command.spawn().unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"))
}

/// Whether a sandbox for root can be made on this host.
pub(crate) fn cgroup_is_writable() -> bool {
    static WRITABLE: OnceLock<bool> = OnceLock::new();
    *WRITABLE.get_or_init(|| cgroup::in_a_fresh_one(|_| ()).is_ok())
}
