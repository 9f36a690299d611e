//! The program to start and its settings, with the method names of [`std::process::Command`].

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
};

use crate::{Error, Result, Signal};

/// A program to start into a job, with the method names and defaults of [`std::process::Command`].
///
/// As there, the program is searched in the `PATH` of the *changed* environment, standard streams
/// are inherited unless changed, the child starts with an empty signal mask and the default
/// `SIGPIPE`, and a script without `#!` is refused by `execve` (`ENOEXEC`) instead of being handed
/// to a shell.
///
/// ```
/// # fn main() -> onejob::Result<()> {
/// # #[cfg(target_os = "linux")] {
/// use onejob::{Command, Job, Stdio};
/// use std::io::Read;
///
/// let job = Job::new()?;
/// let mut echo = job.spawn(Command::new("echo").arg("hello").stdout(Stdio::piped()))?;
/// let mut output = String::new();
/// echo.stdout.take().unwrap().read_to_string(&mut output).unwrap();
/// assert_eq!(output, "hello\n");
/// assert!(echo.wait()?.success());
/// # }
/// # Ok(())
/// # }
/// ```
pub struct Command {
    pub(crate) program: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) env_cleared: bool,
    pub(crate) env: BTreeMap<OsString, Option<OsString>>,
    pub(crate) current_dir: Option<PathBuf>,
    pub(crate) stdio: [Stdio; 3],
    /// Whether it gets its own console process group.
    #[cfg(windows)]
    pub(crate) new_group: bool,
    #[cfg(unix)]
    pub(crate) unix: UnixExtras,
}

/// Settings that exist on Unix only.
#[cfg(unix)]
#[derive(Default)]
pub(crate) struct UnixExtras {
    pub(crate) arg0: Option<OsString>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) groups: Option<Vec<u32>>,
    pub(crate) process_group: Option<i32>,
    pub(crate) setsid: bool,
    pub(crate) take_terminal: bool,
    pub(crate) signals: Option<SignalState>,
    pub(crate) pre_exec: Vec<PreExec>,
    /// Environment entries that are passed unchanged.
    pub(crate) entries: Vec<OsString>,
}

#[cfg(unix)]
pub(crate) type PreExec = Box<dyn FnMut() -> std::io::Result<()> + Send + Sync + 'static>;

impl Command {
    /// A command for `program`: a path if it contains a slash, else a name to search in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env_cleared: false,
            env: BTreeMap::new(),
            current_dir: None,
            stdio: [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()],
            #[cfg(windows)]
            new_group: false,
            #[cfg(unix)]
            unix: UnixExtras::default(),
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Command {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Command {
        self.env.insert(key.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Sets environment variables.
    pub fn envs(
        &mut self,
        vars: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Command {
        for (key, value) in vars {
            self.env(key, value);
        }
        self
    }

    /// Removes an environment variable, also an inherited one.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Command {
        if self.env_cleared {
            self.env.remove(key.as_ref());
        } else {
            self.env.insert(key.as_ref().to_owned(), None);
        }
        self
    }

    /// Starts from an empty environment.
    pub fn env_clear(&mut self) -> &mut Command {
        self.env_cleared = true;
        self.env.clear();
        #[cfg(unix)]
        self.unix.entries.clear();
        self
    }

    /// Sets the directory it starts in.
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Command {
        self.current_dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets its standard input.
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Command {
        self.stdio[0] = stdin.into();
        self
    }

    /// Sets its standard output.
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Command {
        self.stdio[1] = stdout.into();
        self
    }

    /// Sets its standard error.
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Command {
        self.stdio[2] = stderr.into();
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.program.is_empty() {
            return Err(Error::invalid("the name of the program to start is empty"));
        }
        let env = self.env.iter().flat_map(|(key, value)| [Some(key), value.as_ref()]);
        let mut strings = [&self.program].into_iter().chain(&self.args).chain(env.flatten());
        if strings.any(|text| text.as_encoded_bytes().contains(&0)) {
            return Err(Error::invalid(format!(
                "the program name, an argument or the environment of {:?} contains a NUL byte",
                self.program
            )));
        }
        #[cfg(unix)]
        if let Some(entry) = self.unix.entries.iter().find(|e| e.as_encoded_bytes().contains(&0)) {
            return Err(Error::invalid(format!(
                "the environment entry {entry:?} contains a NUL byte"
            )));
        }
        let bad_key = |key: &&OsString| {
            key.is_empty() || key.as_encoded_bytes().iter().skip(1).any(|byte| *byte == b'=')
        };
        match self.env.keys().find(bad_key) {
            Some(key) => Err(Error::invalid(format!("invalid environment variable name {key:?}"))
                .with_hint("a name is not empty and contains no \"=\"")),
            None => Ok(()),
        }
    }

    #[cfg_attr(windows, allow(dead_code, reason = "variable names ignore case on Windows"))]
    /// The environment of the child: that of this process in its own order, or sorted if it was
    /// changed.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        if !self.env_cleared && self.env.is_empty() {
            return std::env::vars_os().collect();
        }
        let mut vars = BTreeMap::new();
        if !self.env_cleared {
            vars.extend(std::env::vars_os());
        }
        for (key, value) in &self.env {
            match value {
                Some(value) => vars.insert(key.clone(), value.clone()),
                None => vars.remove(key),
            };
        }
        vars.into_iter().collect()
    }
}

#[cfg(windows)]
impl Command {
    /// Whether it starts its own console process group (`CREATE_NEW_PROCESS_GROUP`). Only such a
    /// group can get a break event, which requests a graceful end, and it ignores Ctrl-C.
    pub fn new_process_group(&mut self, wanted: bool) -> &mut Command {
        self.new_group = wanted;
        self
    }
}

#[cfg(unix)]
impl Command {
    /// Sets its zeroth argument, instead of the program name.
    pub fn arg0(&mut self, arg: impl AsRef<OsStr>) -> &mut Command {
        self.unix.arg0 = Some(arg.as_ref().to_owned());
        self
    }

    /// Adds an unchanged entry to its environment, even one without `=`, which is not a variable.
    /// Such entries of the environment of this process are not inherited: [`std::env`](mod@std::env) does not show
    /// them.
    pub fn env_entry(&mut self, entry: impl AsRef<OsStr>) -> &mut Command {
        self.unix.entries.push(entry.as_ref().to_owned());
        self
    }

    /// Sets its user id. As with std, a change of user by root drops the supplementary groups unless
    /// [`groups`](Command::groups) are given.
    pub fn uid(&mut self, uid: u32) -> &mut Command {
        self.unix.uid = Some(uid);
        self
    }

    /// Sets its group id.
    pub fn gid(&mut self, gid: u32) -> &mut Command {
        self.unix.gid = Some(gid);
        self
    }

    /// Sets its supplementary groups.
    pub fn groups(&mut self, groups: &[u32]) -> &mut Command {
        self.unix.groups = Some(groups.to_owned());
        self
    }

    /// Sets its process group; 0 makes a new one. Membership in the job does not depend on process
    /// groups.
    pub fn process_group(&mut self, pgroup: i32) -> &mut Command {
        self.unix.process_group = Some(pgroup);
        self
    }

    /// Whether it leads a new session, without a controlling terminal. Takes precedence over
    /// [`process_group`](Command::process_group).
    pub fn setsid(&mut self, wanted: bool) -> &mut Command {
        self.unix.setsid = wanted;
        self
    }

    /// Whether it takes the terminal on its standard input. With [`setsid`](Command::setsid), the
    /// terminal becomes the controlling terminal of the new session, if it is not that of another
    /// session; otherwise, the process group of the child becomes the foreground process group.
    /// Does nothing if standard input is not a terminal.
    ///
    /// The foreground is taken from the group that has it, and is not given back when the child ends.
    pub fn take_terminal(&mut self, wanted: bool) -> &mut Command {
        self.unix.take_terminal = wanted;
        self
    }

    /// Sets the signal mask and the ignored signals it starts with. The default is an empty mask, the
    /// default action for `SIGPIPE`, and the ignored signals of this process otherwise.
    pub fn signals(&mut self, state: SignalState) -> &mut Command {
        self.unix.signals = Some(state);
        self
    }

    /// Adds a function that runs in the child before the program, after everything else is set up, as
    /// with std.
    ///
    /// Needs a real `fork`, so the more memory this process uses, the slower the spawn.
    ///
    /// # Safety
    /// As [`std::os::unix::process::CommandExt::pre_exec`]: only async-signal-safe operations.
    pub unsafe fn pre_exec(
        &mut self,
        step: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> &mut Command {
        self.unix.pre_exec.push(Box::new(step));
        self
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.program)?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg:?}"))
    }
}

/// The signals that are blocked and the signals that are ignored when a program starts.
///
/// Every other signal starts with its default action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalState {
    pub(crate) blocked: u64,
    pub(crate) ignored: u64,
}

impl SignalState {
    /// Nothing blocked, nothing ignored.
    pub const fn new() -> SignalState {
        SignalState { blocked: 0, ignored: 0 }
    }

    /// Adds a blocked signal.
    pub const fn block(mut self, signal: Signal) -> SignalState {
        self.blocked |= 1 << (signal.as_raw() - 1);
        self
    }

    /// Adds an ignored signal.
    pub const fn ignore(mut self, signal: Signal) -> SignalState {
        self.ignored |= 1 << (signal.as_raw() - 1);
        self
    }
}

/// The source or destination of a standard stream.
#[derive(Debug)]
pub struct Stdio(pub(crate) StdioKind);

#[derive(Debug)]
pub(crate) enum StdioKind {
    Inherit,
    Null,
    Piped,
    #[cfg(unix)]
    Fd(std::os::fd::OwnedFd),
    #[cfg(windows)]
    Handle(std::os::windows::io::OwnedHandle),
}

impl Stdio {
    /// The stream of this process.
    pub fn inherit() -> Stdio {
        Stdio(StdioKind::Inherit)
    }

    /// The null device.
    pub fn null() -> Stdio {
        Stdio(StdioKind::Null)
    }

    /// A new pipe, whose other end is in the [`Child`](crate::Child).
    pub fn piped() -> Stdio {
        Stdio(StdioKind::Piped)
    }
}

macro_rules! stdio_from {
    ($($type:ty),+) => {
        $(#[cfg(unix)]
        impl From<$type> for Stdio {
            fn from(end: $type) -> Stdio {
                Stdio(StdioKind::Fd(end.into()))
            }
        }

        #[cfg(windows)]
        impl From<$type> for Stdio {
            fn from(end: $type) -> Stdio {
                Stdio(StdioKind::Handle(end.into()))
            }
        })+
    };
}

#[cfg(unix)]
stdio_from!(std::os::fd::OwnedFd);
#[cfg(windows)]
stdio_from!(std::os::windows::io::OwnedHandle);
stdio_from!(
    std::fs::File,
    std::process::ChildStdin,
    std::process::ChildStdout,
    std::process::ChildStderr
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_commands_are_refused() {
        assert!(Command::new("").check().unwrap_err().is_invalid_input());
        assert!(Command::new("a\0b").check().unwrap_err().is_invalid_input());
        assert!(Command::new("a").arg("\0").check().unwrap_err().is_invalid_input());
        assert!(Command::new("a").env("b", "\0").check().unwrap_err().is_invalid_input());
        assert!(Command::new("a").env("b=c", "").check().unwrap_err().is_invalid_input());
        assert!(Command::new("a").arg("-b").env("c", "d").check().is_ok());
    }

    /// `env_clear`, `env` and `env_remove` give the expected environment.
    #[test]
    fn environment_is_cleared_changed_and_removed() {
        let mut command = Command::new("a");
        command.env("A", "1").env_clear().env("B", "2").env("C", "3").env_remove("C");
        assert_eq!(command.environment(), [("B".into(), "2".into())]);
    }
}
