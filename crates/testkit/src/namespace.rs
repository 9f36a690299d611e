//! The sandbox of an ordinary user: a user and PID namespace.

use std::{
    collections::HashMap,
    ffi::OsString,
    path::PathBuf,
    process::{Child, Command},
    sync::OnceLock,
};

use crate::{Bins, eventually, proc, scratch_dir};

/// The pids of the first process of the namespace and of the bystander that it starts: they belong to
/// the sandbox, not to the test case.
const SANDBOX_PIDS: [i32; 2] = [1, 2];

/// The variable with the path of the file that `sandbox-init` waits for before it starts the program. A
/// program that ends at once would otherwise be gone before its namespace has been read.
pub const GO: &str = "TESTKIT_SANDBOX_GO";

/// Ends with its first process, which is killed when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Namespace {
    /// The link `/proc/PID/ns/pid` of all processes inside.
    link: Option<PathBuf>,
    init: Option<i32>,
}

impl Namespace {
    pub(crate) fn new() -> Namespace {
        Namespace::default()
    }

    /// The arguments with which `sandbox-init` makes the namespace, or enters it once it exists.
    pub(crate) fn entry(&self, helper: PathBuf) -> Vec<OsString> {
        match self.init {
            Some(init) => vec!["--enter".into(), init.to_string().into()],
            None => vec![helper.into()],
        }
    }

    /// Starts `command`, which must be a `sandbox-init`.
    pub(crate) fn start(&mut self, command: &mut Command) -> Child {
        if self.link.is_some() {
            return command.spawn().expect("sandbox-init starts");
        }
        let go = scratch_dir().join("go");
        let child = command.env(GO, &go).spawn().expect("sandbox-init starts");
        let pid = child.id() as i32;
        let own = proc::link(std::process::id() as i32, "ns/pid");
        let inside =
            || proc::link(pid, "ns/pid_for_children").filter(|link| Some(link) != own.as_ref());
        self.link = Some(eventually("a namespace", inside));
        self.init = Some(eventually("the first process of it", || self.outer_pid(1)));
        eventually("the bystander inside", || self.outer_pid(SANDBOX_PIDS[1]));
        std::fs::write(go, "").expect("a writable scratch directory");
        child
    }

    fn live(&self) -> impl Iterator<Item = i32> {
        let all = if self.link.is_some() { proc::all() } else { Vec::new() };
        all.into_iter().filter(|pid| proc::link(*pid, "ns/pid") == self.link)
    }

    pub(crate) fn pids(&self) -> Vec<i32> {
        let of_the_sandbox =
            |pid: &i32| proc::inner_pid(*pid).is_some_and(|pid| SANDBOX_PIDS.contains(&pid));
        self.live().filter(|pid| !of_the_sandbox(pid)).collect()
    }

    pub(crate) fn outer_pid(&self, inner: i32) -> Option<i32> {
        self.live().find(|pid| proc::inner_pid(*pid) == Some(inner))
    }

    /// Maps the inner pids of all processes inside to their outer pids.
    pub(crate) fn outer_pids(&self) -> HashMap<i32, i32> {
        self.live().filter_map(|pid| Some((proc::inner_pid(pid)?, pid))).collect()
    }

    /// The process that `sandbox-init` started, beside the bystander.
    pub(crate) fn program(&self) -> Option<i32> {
        self.outer_pid(SANDBOX_PIDS[1] + 1)
    }

    /// The bystander inside, beside the owner.
    pub(crate) fn bystander(&self) -> Option<i32> {
        self.outer_pid(SANDBOX_PIDS[1])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The pid cannot belong to another process by now: only its parent, a child of this process,
        // could reap it, and its namespace is checked again here.
        let init = self.init.filter(|pid| proc::link(*pid, "ns/pid") == self.link);
        if let Some(init) = init.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(init, rustix::process::Signal::KILL);
        }
        let gone = crate::eventually::within(crate::DEADLINE, || {
            self.live().all(|pid| !proc::is_alive(pid)).then_some(())
        });
        if gone.is_none() {
            eprintln!("failed to end the processes {:?}", self.live().collect::<Vec<_>>());
        }
    }
}

/// Whether an ordinary user can make such a namespace on this host.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let mut probe = Command::new(Bins::get().sandbox_init());
        let status = probe.arg("--probe").status().expect("sandbox-init starts");
        if !status.success() {
            eprintln!("sandbox-init ended with {status}");
        }
        status.success()
    })
}
