//! The file in which the helper processes of a scenario report themselves.

use std::{fs, path::PathBuf};

use crate::{Sandbox, bins::allow, eventually, proc, scratch_dir};

/// The file that a scenario writes to.
#[derive(Debug, Clone)]
pub struct Report {
    path: PathBuf,
}

/// One line of the report, with pids of the helper's own PID namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    role: String,
    pid: i32,
    starter: i32,
    place: String,
}

/// A helper process inside a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    /// Its pid outside.
    pub pid: i32,
    /// Its pid in its own namespace, which onejob uses.
    pub inner: i32,
    /// The outer pid of the process that forked it; `None` if that process is gone.
    pub starter: Option<i32>,
    /// Its report line, with its session, groups and parent.
    pub place: String,
}

impl Helper {
    /// The pid of its parent; the process must exist.
    #[track_caller]
    pub fn parent(&self) -> i32 {
        proc::parent(self.pid).unwrap_or_else(|| panic!("process {} is gone", self.pid))
    }
}

#[cfg(target_os = "linux")]
impl Helper {
    /// Its `/proc/PID/stat`, which must exist.
    #[track_caller]
    pub fn stat(&self) -> proc::Stat {
        proc::stat(self.pid).unwrap_or_else(|| panic!("process {} is gone", self.pid))
    }

    /// Waits until it is in the state `letter`.
    #[track_caller]
    pub fn awaits_state(&self, letter: char) {
        eventually(&format!("process {} in state {letter}", self.pid), || {
            (self.stat().state == letter).then_some(())
        });
    }
}

#[expect(clippy::new_without_default, reason = "it makes a file")]
impl Report {
    /// A new report in its own directory, which helpers of any user can write to.
    pub fn new() -> Report {
        let path = scratch_dir().join("report");
        fs::File::create(&path).expect("a writable scratch directory");
        allow(&path, 0o666);
        Report { path }
    }

    /// As an argument for the helper.
    pub fn arg(&self) -> &str {
        self.path.to_str().expect("a scratch directory in UTF-8")
    }

    /// A file beside the report, such as `.go`.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        format!("{}{suffix}", self.arg()).into()
    }

    /// Lets the main process of the scenario end.
    pub fn go(&self) {
        fs::write(self.beside(".go"), "").expect("a writable scratch directory");
    }

    fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        // On some file systems the last line can be incomplete: only complete lines count.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(parse).collect()
    }

    /// The number of helpers that have announced themselves in this role.
    pub fn count(&self, role: &str) -> usize {
        self.lines().iter().filter(|line| line.role == role).count()
    }

    /// Waits until `least` helpers of this role have announced themselves, and returns those that are
    /// still in the sandbox.
    #[track_caller]
    pub fn helpers(&self, sandbox: &Sandbox, role: &str, least: usize) -> Vec<Helper> {
        let what = format!("{least} helpers in the role {role:?}");
        eventually(&what, || (self.count(role) >= least).then_some(()));
        let lines = self.lines().into_iter().filter(|line| line.role == role);
        let outer = sandbox.outer_pids();
        let here = |line: Line| {
            let pid = outer(line.pid)?;
            let starter = outer(line.starter);
            Some(Helper { pid, inner: line.pid, starter, place: line.place })
        };
        lines.filter_map(here).collect()
    }

    /// Waits for the only helper of this role, which must be alive.
    #[track_caller]
    pub fn helper(&self, sandbox: &Sandbox, role: &str) -> Helper {
        let mut helpers = self.helpers(sandbox, role, 1);
        assert_eq!(helpers.len(), 1, "living helpers of the role {role:?}: {helpers:?}");
        let helper = helpers.remove(0);
        assert!(proc::is_alive(helper.pid), "the {role} ({}) is dead already", helper.pid);
        helper
    }
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let role = words.next()?.to_owned();
    let number = |name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    Some(Line { role, pid: number("pid")?, starter: number("starter")?, place: line.to_owned() })
}
