//! The programs that tests start, where any user can execute them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::proc;

/// Copies of the programs of this workspace.
#[derive(Debug)]
pub struct Bins {
    dir: PathBuf,
}

impl Bins {
    /// Built once per test process, so that a test never runs a program of an older source tree.
    pub fn get() -> &'static Bins {
        static BINS: OnceLock<Bins> = OnceLock::new();
        BINS.get_or_init(|| {
            let target = target_dir();
            build(&target);
            let dir = scratch_root().join("bin");
            fs::create_dir(&dir).expect("a fresh scratch directory");
            for name in PROGRAMS {
                let from = target.join(name).with_extension(env::consts::EXE_EXTENSION);
                fs::copy(&from, dir.join(name).with_extension(env::consts::EXE_EXTENSION))
                    .unwrap_or_else(|error| panic!("failed to copy {}: {error}", from.display()));
            }
            allow(&dir, 0o755);
            Bins { dir }
        })
    }

    /// The report path of a helper if the report is not read.
    pub const NOWHERE: &str = if cfg!(windows) { "NUL" } else { "/dev/null" };

    /// The scripted process.
    pub fn helper(&self) -> PathBuf {
        self.program("helper")
    }

    /// The program that owns a job.
    pub fn owner(&self) -> PathBuf {
        self.program("owner")
    }

    /// The command under test.
    pub fn onejob(&self) -> PathBuf {
        self.program("onejob")
    }

    fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name).with_extension(env::consts::EXE_EXTENSION)
    }
}

#[cfg(target_os = "linux")]
const PROGRAMS: &[&str] =
    &["helper", "owner", "sandbox-init", "fault-point", "odd-owner", "onejob"];
#[cfg(windows)]
const PROGRAMS: &[&str] = &["helper", "owner", "onejob"];

#[cfg(target_os = "linux")]
impl Bins {
    /// The first process of a namespace sandbox.
    pub fn sandbox_init(&self) -> PathBuf {
        self.dir.join("sandbox-init")
    }

    /// An owner that does one unusual thing.
    pub fn odd_owner(&self) -> PathBuf {
        self.dir.join("odd-owner")
    }

    /// Kills or stops one guard of the program that it starts, at one of its system calls.
    pub fn fault_point(&self) -> PathBuf {
        self.dir.join("fault-point")
    }

    /// A setuid-root copy of the helper; `None` if this host cannot run one.
    pub fn setuid_helper(&self) -> Option<&'static Path> {
        static COPY: OnceLock<Option<PathBuf>> = OnceLock::new();
        let copy = COPY.get_or_init(|| {
            let path = self.dir.join("setuid-helper");
            fs::copy(self.helper(), &path).ok()?;
            allow(&path, 0o4755);
            let flags = rustix::fs::statvfs(&path).ok()?.f_flag;
            let root = rustix::process::geteuid().is_root();
            (root && !flags.contains(rustix::fs::StatVfsMountFlags::NOSUID)).then_some(path)
        });
        copy.as_deref()
    }
}

/// The directory in which cargo puts the programs: the parent of that of the test executable.
fn target_dir() -> PathBuf {
    let test = env::current_exe().expect("a path to this test");
    let dir = test.parent().expect("a directory").to_owned();
    if dir.ends_with("deps") { dir.parent().expect("a directory").to_owned() } else { dir }
}

/// Builds the programs. Without cargo (a test executable started by hand) the existing files are used.
fn build(target: &Path) {
    let Some(cargo) = env::var_os("CARGO") else { return };
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "-p", "testkit", "-p", "onejob-cli"]);
    if cfg!(windows) {
        build.args(PROGRAMS.iter().flat_map(|name| ["--bin", name]));
    } else {
        build.arg("--bins");
    }
    if target.ends_with("release") {
        build.arg("--release");
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "failed to build the programs that tests start:\n{said}");
}

/// A new empty directory that all users can write to.
pub fn scratch_dir() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let dir = scratch_root().join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
    fs::create_dir(&dir).expect("a fresh scratch directory");
    allow(&dir, 0o777);
    dir
}

/// Contains everything that this test process writes, and is removed when the process ends.
fn scratch_root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    extern "C" fn remove() {
        if let Some(root) = ROOT.get() {
            let _ = fs::remove_dir_all(root);
        }
    }
    ROOT.get_or_init(|| {
        remove_abandoned();
        let root = env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        allow(&root, 0o755);
        // SAFETY: `remove` is a plain function that lives as long as the process.
        unsafe { libc::atexit(remove) };
        root
    })
}

const PREFIX: &str = "testkit-";

/// Removes the directories of test processes that were killed.
fn remove_abandoned() {
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<i32>().ok());
        if pid.is_some_and(|pid| !proc::is_alive(pid) || pid == std::process::id() as i32) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Sets the mode of a file or directory that this process has made.
#[cfg(unix)]
pub(crate) fn allow(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a file of this test");
}

/// Tests run as a single user on Windows.
#[cfg(windows)]
pub(crate) fn allow(_: &Path, _: u32) {}
