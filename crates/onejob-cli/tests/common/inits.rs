//! PID namespaces with onejob, or an original init, as PID 1.

use std::{
    ffi::OsStr,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
};

use super::{ONEJOB, Scratch, eventually, read, wait, with_signals};

/// An init program and its arguments before CMD.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<&'static str>,
    /// Whether it is the original program, with which onejob is compared.
    pub(crate) is_original: bool,
}

impl Program {
    pub(crate) fn with(mut self, args: &[&'static str]) -> Program {
        self.args.splice(0..0, args.iter().copied());
        self
    }

    pub(crate) fn init(args: &[&'static str]) -> Program {
        let args = [&["init"], args, &["--"]].concat();
        Program { name: "init", path: ONEJOB.into(), args, is_original: false }
    }

    /// onejob with this name, and the original if it is installed.
    pub(crate) fn both(
        scratch: &Scratch,
        name: &'static str,
        args: &[&'static str],
    ) -> Vec<Program> {
        let ours = Program {
            name,
            path: stand_in(scratch, name),
            args: args.to_vec(),
            is_original: false,
        };
        let original =
            original(name).map(|path| Program { path, is_original: true, ..ours.clone() });
        [Some(ours), original].into_iter().flatten().collect()
    }

    /// The program with CMD, without a new namespace.
    pub(crate) fn command(&self, cmd: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args).args(cmd);
        with_signals(&mut command, &[], &[]);
        command
    }

    /// The program with CMD as the first process of a PID namespace.
    pub(crate) fn contained(&self, cmd: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(NAMESPACE).arg("--").arg(&self.path).args(&self.args).args(cmd);
        with_signals(&mut command, &[], &[]);
        command
    }
}

const NAMESPACE: [&str; 6] =
    ["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Whether such namespaces can be made here.
pub(crate) fn can_contain() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let mut unshare = Command::new("unshare");
        unshare.args(NAMESPACE).args(["--", "true"]);
        unshare.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    })
}

/// A link to onejob with the name of another program.
pub(crate) fn stand_in(scratch: &Scratch, name: &str) -> PathBuf {
    let folder = scratch.file("as");
    let _ = std::fs::create_dir(&folder);
    let link = folder.join(name);
    let _ = symlink(ONEJOB, &link);
    link
}

/// The original of this name, if it is installed.
pub(crate) fn original(name: &str) -> Option<PathBuf> {
    let folders = std::env::split_paths(OsStr::new("/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin"));
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// A running PID namespace.
pub(crate) struct Container {
    unshare: Child,
    /// The pid of its first process, outside the namespace.
    pub(crate) first: u32,
}

impl Container {
    /// Starts a command of [`Program::contained`].
    pub(crate) fn start(command: &mut Command) -> Container {
        let unshare = command.spawn().unwrap();
        let id = unshare.id();
        let mut first = None;
        eventually("the namespace has a first process", || {
            first = children(id).first().copied();
            first.is_some()
        });
        Container { unshare, first: first.unwrap() }
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.unshare)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The other processes of the namespace end with it.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

pub(crate) fn children(pid: u32) -> Vec<u32> {
    let text = read(format!("/proc/{pid}/task/{pid}/children"));
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    With(i32),
    By(i32),
}

impl From<ExitStatus> for Ends {
    fn from(status: ExitStatus) -> Ends {
        match std::os::unix::process::ExitStatusExt::signal(&status) {
            Some(signal) => Ends::By(signal),
            None => Ends::With(status.code().unwrap()),
        }
    }
}

macro_rules! needs_containers {
    () => {
        if !can_contain() {
            skip!("no PID namespace can be made here (unshare)");
        }
    };
}

/// Skips the rest of the test if an original is not installed.
macro_rules! needs_originals {
    ($($name:literal),+) => {
        for name in [$($name),+] {
            if original(name).is_none() {
                skip!("{name} is not installed, so onejob was not compared with it");
            }
        }
    };
}
pub(crate) use {needs_containers, needs_originals};
