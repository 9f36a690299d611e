//! Tests of the helpers and the sandbox, without onejob.

use std::{
    fs,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use testkit::{Bins, Environment, KillOnDrop, Report, Sandbox, eventually, proc};

fn helper(words: &[&str], report: &Report) -> Command {
    let mut helper = Command::new(Bins::get().helper());
    helper.arg(words[0]).arg(report.arg()).args(&words[1..]).stdin(Stdio::null());
    helper
}

fn start(words: &[&str], report: &Report) -> KillOnDrop {
    KillOnDrop(helper(words, report).spawn().expect("a helper"))
}

#[test]
fn every_signal_is_counted_in_a_file() {
    let report = Report::new();
    let counter = start(&["signal-counter"], &report);
    eventually("a counter", || (report.count("counter") == 1).then_some(()));
    let pid = rustix::process::Pid::from_raw(counter.0.id() as i32).expect("a pid");
    for expected in 1..=3 {
        rustix::process::kill_process(pid, rustix::process::Signal::INT)
            .expect("a child of this process");
        eventually("a count", || {
            let counts = fs::read_to_string(report.beside(".counts")).ok()?;
            counts.lines().any(|line| line == format!("2 {expected}")).then_some(())
        });
    }
}

#[test]
fn a_program_below_the_filter_cannot_clone3() {
    for errno in ["ENOSYS", "EPERM"] {
        let report = Report::new();
        let mut below = helper(
            &[
                "seccomp",
                &format!("clone3={errno}"),
                "/bin/sh",
                "-c",
                "exec grep Seccomp: /proc/self/status",
            ],
            &report,
        );
        let output = below.stdout(Stdio::piped()).spawn().and_then(Child::wait_with_output);
        let said = String::from_utf8(output.expect("it starts").stdout).expect("text");
        assert_eq!(said.trim_end(), "Seccomp:\t2", "under a filter ({errno})");
    }
}

/// A program that runs without a file finds it in no directory, and finds all other files.
#[test]
fn memfd_program_without_its_file() {
    let (report, dir) = (Report::new(), testkit::scratch_dir());
    for name in ["here", "hidden"] {
        fs::write(dir.join(name), name).expect("a scratch directory");
    }
    let script = "cat here; cat hidden || cat here; test -e hidden || echo no";
    let mut below = helper(&["seccomp", "file:hidden", "/bin/sh", "-c", script], &report);
    let below = below.current_dir(&dir).stdout(Stdio::piped()).stderr(Stdio::null());
    let output = below.spawn().and_then(Child::wait_with_output);
    let said = String::from_utf8(output.expect("it starts").stdout).expect("text");
    assert_eq!(said, "herehereno\n");
}

#[test]
fn a_fork_bomb_stays_within_its_limit() {
    let report = Report::new();
    // A separate user without processes other than those of the bomb.
    let Some(environment) =
        Environment::here().into_iter().find(|environment| !environment.is_ordinary())
    else {
        return eprintln!("SKIPPED: the limit is per user, and only root can change its user");
    };
    let mut sandbox = Sandbox::new(environment);
    let mut bomb = sandbox.start(&Bins::get().helper(), |command| {
        command.args(["bomb", report.arg(), "50", "54399"]).stdin(Stdio::null());
    });
    eventually("a grown bomb", || (sandbox.live().len() >= 45).then_some(()));
    assert!(sandbox.live().len() <= 50);
    drop(sandbox);
    let _ = bomb.wait();
}

/// A sandbox lists processes that left the session, and kills all of them.
#[test]
fn sandbox_ends_what_left_the_session() {
    for environment in Environment::here() {
        let report = Report::new();
        let mut sandbox = Sandbox::new(environment);
        let mut main = sandbox.start(&Bins::get().helper(), |command| {
            command.args(["daemon", report.arg()]).stdin(Stdio::null());
        });
        let daemon = report.helper(&sandbox, "escapee");
        assert!(sandbox.live_pids().contains(&daemon.pid), "{environment}");
        let inside = sandbox.cgroup().map(Path::to_owned);
        drop(sandbox);
        assert!(!proc::is_alive(daemon.pid), "{environment}");
        assert!(inside.is_none_or(|dir| !dir.exists()), "{environment}");
        let _: ExitStatus = main.wait().expect("a child of this process");
    }
}

/// A sandbox kills a process whose leader thread has ended.
#[test]
fn sandbox_ends_a_process_without_its_leader() {
    for environment in Environment::here() {
        let report = Report::new();
        let mut sandbox = Sandbox::new(environment);
        let mut main = sandbox.start(&Bins::get().helper(), |command| {
            command.args(["leader-gone", report.arg()]).stdin(Stdio::null());
        });
        let leaderless = report.helper(&sandbox, "escapee");
        leaderless.awaits_state('Z');
        assert!(proc::is_alive(leaderless.pid), "{environment}");
        drop(sandbox);
        assert!(!proc::is_alive(leaderless.pid), "{environment}");
        let _ = main.wait();
    }
}
