//! Processes that are started with a chosen pid.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Bins, Report, eventually, proc};

/// The signal that is delivered after all others.
const LAST: i32 = 64;

/// A process that catches and counts every signal that can be caught.
pub(crate) struct Bystander {
    process: Child,
    report: Report,
}

impl Bystander {
    /// Waits until the pid is free, and starts a process with it.
    #[track_caller]
    pub(crate) fn with_number(number: i32) -> Bystander {
        let report = Report::new();
        let process = start_with(number, &["signal-counter", report.arg()]);
        Bystander { process, report }
    }

    fn number(&self) -> i32 {
        self.process.id() as i32
    }

    /// # Panics
    /// If any signal has reached it.
    #[track_caller]
    pub(crate) fn is_untouched(&mut self) {
        assert_eq!(
            self.process.try_wait().expect("a child of this process"),
            None,
            "the bystander was ended"
        );
        eventually("a counter", || (self.report.count("counter") > 0).then_some(()));
        let state = proc::stat(self.number()).expect("alive").state;
        assert!(!matches!(state, 'T' | 't' | 'Z'), "a signal reached the bystander, state {state}");
        // The counts are written a moment after a signal. The kernel delivers this signal after all other
        // pending ones: once it is counted, the counts are complete.
        // SAFETY: takes numbers. The pid belongs to a child that is not reaped.
        unsafe { libc::kill(self.number(), LAST) };
        let counts = eventually("the last signal", || {
            let counts = fs::read_to_string(self.report.beside(".counts")).ok()?;
            counts.lines().any(|line| line.starts_with("64 ")).then_some(counts)
        });
        assert_eq!(counts, "64 1\n", "these signals reached the bystander");
    }

    /// Sends SIGKILL by pid, as programs without pidfds do, and checks that the bystander ends.
    #[track_caller]
    pub(crate) fn dies_by_its_number(mut self) {
        kill(self.number());
        let status =
            eventually("its end", || self.process.try_wait().expect("a child of this process"));
        assert_eq!(status.signal(), Some(9), "the number is not the bystander's");
    }
}

/// Waits until the pid is free, and starts a helper with it.
#[track_caller]
fn start_with(number: i32, words: &[&str]) -> Child {
    await_free(number);
    eventually(&format!("a process with the number {number}"), || {
        fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string())
            .expect("root can choose");
        let mut helper = Command::new(Bins::get().helper());
        let mut process =
            helper.args(words).stdin(Stdio::null()).spawn().expect("the helper starts");
        if process.id() as i32 == number {
            return Some(process);
        }
        // Another process has got the pid.
        process.kill().expect("a child of this process");
        process.wait().expect("a child of this process");
        None
    })
}

/// A bystander that has a child.
pub(crate) struct Parent {
    process: Child,
    child: i32,
}

impl Parent {
    #[track_caller]
    pub(crate) fn with_number(number: i32) -> Parent {
        let (report, helper) = (Report::new(), Bins::get().helper().display().to_string());
        let process = start_with(number, &["below", report.arg(), &helper, "sleep", "/dev/null"]);
        let child = eventually("its child", || proc::children(number).first().copied());
        Parent { process, child }
    }

    /// # Panics
    /// If one of the two has ended.
    #[track_caller]
    pub(crate) fn lives_with_its_child(&mut self) {
        assert_eq!(
            self.process.try_wait().expect("a child of this process"),
            None,
            "the bystander was ended"
        );
        let child = proc::stat(self.child).map(|stat| (stat.ppid, stat.state == 'Z'));
        assert_eq!(
            child,
            Some((self.process.id() as i32, false)),
            "the bystander's child was ended"
        );
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        kill(self.child);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until no process has this pid, not even a zombie.
#[track_caller]
pub(crate) fn await_free(number: i32) {
    eventually(&format!("the number {number} to be free"), || {
        proc::stat(number).is_none().then_some(())
    });
}

pub(crate) fn kill(number: i32) {
    signal(number, Signal::KILL);
}

/// Sends a signal by pid, without a pidfd: the tests control which process has the pid.
pub(crate) fn signal(number: i32, signal: Signal) {
    let pid = Pid::from_raw(number).expect("a number");
    match kill_process(pid, signal) {
        // The process has ended: a guard that was continued may have finished at once.
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("kill {number}: {error}"),
    }
}
