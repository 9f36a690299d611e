//! Common to the tests of the command. Whether a process is alive is read from /proc, never from the
//! library.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its part")]

pub(crate) mod inits;
pub(crate) mod pty;
pub(crate) mod recorder;

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Detects a hang; the machine may stall for a minute.
pub(crate) const HANG: Duration = Duration::from_secs(180);

pub(crate) const ONEJOB: &str = env!("CARGO_BIN_EXE_onejob");

/// Skips the rest of the test; a failure if skips are not allowed.
macro_rules! skip {
    ($($why:tt)*) => {{
        eprintln!("SKIPPED: {}", format_args!($($why)*));
        assert!(std::env::var_os("ONEJOB_NO_SKIP").is_none(), "skipped: {}", format_args!($($why)*));
        return;
    }};
}
pub(crate) use skip;

pub(crate) fn onejob(args: &[&str]) -> Command {
    let mut command = Command::new(ONEJOB);
    command.args(args);
    with_signals(&mut command, &[], &[]);
    command
}

/// `onejob run --mechanism M …`
pub(crate) fn run(mechanism: &str, args: &[&str]) -> Command {
    let mut command = onejob(&["run", "--mechanism", mechanism]);
    command.args(args);
    command
}

/// A tree with a daemon in a session of its own that only a SIGKILL ends.
pub(crate) const STUBBORN_TREE: &str = "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep .05; done' & \
     echo >ready; exec sleep 1000";

/// The exit status after a lost lifeline.
pub(crate) const LOST: i32 = 129;

/// The number of times that a process has slept, as a line of `/proc/PID/status`.
pub(crate) fn sleeps(pid: u32) -> String {
    let status = read(format!("/proc/{pid}/status"));
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt"));
    line.unwrap_or_default().to_owned()
}

/// The available mechanisms of this host, by `onejob doctor`.
pub(crate) fn mechanisms() -> Vec<String> {
    let report = onejob(&["doctor", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let all = report["mechanisms"].as_array().unwrap();
    let given = all.iter().filter(|one| one["available"] == true);
    let given: Vec<_> = given.map(|one| one["mechanism"].as_str().unwrap().to_owned()).collect();
    assert!(!given.is_empty(), "no mechanism is available on this host");
    given
}

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + HANG;
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A directory for one test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("onejob-cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn str(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// An environment variable that only the processes of this test have.
    pub(crate) fn mark(&self) -> String {
        format!("ONEJOB_TEST_MARK={}", self.str())
    }

    pub(crate) fn script(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The living processes with the mark in their environment.
    pub(crate) fn marked(&self) -> Vec<u32> {
        let mark = self.mark().into_bytes();
        let carries = |pid: &u32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|variable| variable == mark) && lives(*pid)
        };
        pids().into_iter().filter(carries).collect()
    }

    pub(crate) fn marked_are_gone(&self) {
        eventually("every process with the mark is gone", || self.marked().is_empty());
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for pid in self.marked() {
            kill(pid, libc::SIGKILL);
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) trait Marked {
    fn marked(&mut self, scratch: &Scratch) -> &mut Self;
}

impl Marked for Command {
    fn marked(&mut self, scratch: &Scratch) -> &mut Self {
        self.env("ONEJOB_TEST_MARK", scratch.str())
    }
}

pub(crate) fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The state letter of a process, `None` if it is gone.
pub(crate) fn state(pid: u32) -> Option<char> {
    stat(pid, 0)?.chars().next()
}

/// A field of /proc/PID/stat, counted from the state.
pub(crate) fn stat(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(field).map(str::to_owned)
}

pub(crate) fn lives(pid: u32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

pub(crate) fn kill(pid: u32, signal: i32) {
    // SAFETY: a plain system call; the tests name only processes of their own.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Waits until a file has a complete line, and returns it.
pub(crate) fn line(path: &Path) -> String {
    eventually(&format!("a line in {path:?}"), || read(path).ends_with('\n'));
    read(path).trim_end().to_owned()
}

/// Waits for a process. Panics if it hangs.
pub(crate) fn wait(child: &mut Child) -> std::process::ExitStatus {
    let mut status = None;
    eventually("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// The output and the exit status of a command; standard input is empty.
pub(crate) fn outcome(command: &mut Command) -> Output {
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.wait_with_output().unwrap()
}

/// Whether this is one error message of onejob, with at most one hint below it.
pub(crate) fn is_error(stderr: &str) -> bool {
    match stderr.trim_end().lines().collect::<Vec<_>>()[..] {
        [message] => message.starts_with("onejob: "),
        [message, hint] => message.starts_with("onejob: ") && hint.starts_with("hint: "),
        _ => false,
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sets the blocked and ignored signals of a command, independently of those of this test: a background job of
/// a shell ignores SIGINT.
pub(crate) fn with_signals(
    command: &mut Command,
    blocked: &'static [i32],
    ignored: &'static [i32],
) {
    // SAFETY: sigset functions, sigprocmask and signal are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in blocked {
                libc::sigaddset(&mut set, *signal);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
            for signal in 1..=64 {
                let action = if ignored.contains(&signal) { libc::SIG_IGN } else { libc::SIG_DFL };
                libc::signal(signal, action);
            }
            Ok(())
        })
    };
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
