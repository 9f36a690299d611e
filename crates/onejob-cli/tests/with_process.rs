//! `--with PROCESS`: the tree does not outlive a process.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{
    LOST, Marked as _, ONEJOB, STUBBORN_TREE, Scratch, eventually, is_error, kill, lives,
    mechanisms, onejob, outcome, run, sleeps, text, wait,
};

/// The script `tree` of a scratch directory: the tree, started by onejob with these arguments.
fn script(scratch: &Scratch, arguments: &str) -> String {
    scratch.script("inner", &format!("#!/bin/sh\n{STUBBORN_TREE}\n"));
    scratch.script("tree", &format!("#!/bin/sh\nexec {ONEJOB} {arguments} -- ./inner\n"))
}

/// Starts a command in the scratch directory, and waits until the tree runs.
fn started(command: &mut Command, scratch: &Scratch) -> Child {
    command.current_dir(scratch.path()).marked(scratch);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually("the tree runs", || scratch.file("ready").exists());
    child
}

/// A process that lives until it is killed.
fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

/// Whatever started onejob: after its SIGKILL nothing of the tree is left.
#[test]
fn killed_parent() {
    let tools: [(&str, &[&str]); 5] = [
        ("sh", &["-c", "./tree & wait"]),
        ("bash", &["-e", "step.sh"]),
        ("make", &["-s", "-f", "rules"]),
        ("python3", &["-c", "import subprocess; subprocess.Popen(['./tree']).wait()"]),
        ("xargs", &["-a", "line", "-n1", "env"]),
    ];
    for mechanism in mechanisms() {
        for (tool, args) in tools {
            let scratch = Scratch::new();
            script(&scratch, &format!("run --mechanism {mechanism} --with parent -k .3"));
            fs::write(scratch.file("step.sh"), "true\n./tree\ntrue\n").unwrap();
            fs::write(scratch.file("rules"), "all:\n\t./tree\n").unwrap();
            fs::write(scratch.file("line"), "./tree\n").unwrap();
            let mut process = started(Command::new(tool).args(args), &scratch);
            kill(process.id(), libc::SIGKILL);
            wait(&mut process);
            eventually(&format!("{tool}, {mechanism}: the tree is gone"), || {
                scratch.marked().is_empty()
            });
        }
    }
}

/// `init` and `timeout` have the same option, and `--lifeline parent` is the same as `--with parent`.
#[test]
fn init_timeout_and_lifeline_parent() {
    let mut verbs = vec!["timeout -k .3 --with parent 1000".to_owned()];
    for mechanism in mechanisms() {
        verbs.push(format!("init --mechanism {mechanism} --with parent -k .3"));
        verbs.push(format!("run --mechanism {mechanism} --lifeline parent -k .3"));
    }
    for verb in verbs {
        let scratch = Scratch::new();
        symlink(ONEJOB, scratch.file("timeout")).unwrap();
        script(&scratch, &verb);
        if let Some(arguments) = verb.strip_prefix("timeout ") {
            scratch.script("tree", &format!("#!/bin/sh\nexec ./timeout {arguments} ./inner\n"));
        }
        let mut shell = started(Command::new("sh").args(["-c", "./tree & wait"]), &scratch);
        kill(shell.id(), libc::SIGKILL);
        wait(&mut shell);
        eventually(&format!("{verb}: the tree is gone"), || scratch.marked().is_empty());
    }
}

/// The tree ends when a process exits that is not related to onejob, and not before.
#[test]
fn unrelated_process() {
    for mechanism in mechanisms() {
        let (scratch, mut other) = (Scratch::new(), sleeper());
        script(&scratch, "");
        let with = other.id().to_string();
        let mut command = run(&mechanism, &["--with", &with, "-k", ".3", "./inner"]);
        let mut process = started(&mut command, &scratch);
        std::thread::sleep(Duration::from_millis(200));
        assert!(lives(process.id()), "{mechanism}: the tree ended before the process");
        kill(other.id(), libc::SIGKILL);
        assert_eq!(wait(&mut process).code(), Some(LOST), "{mechanism}");
        scratch.marked_are_gone();
        wait(&mut other);
    }
}

/// A process and a descriptor: the first that is lost ends the tree.
#[test]
fn process_and_descriptor() {
    for close in [true, false] {
        for mechanism in mechanisms() {
            let (scratch, mut other) = (Scratch::new(), sleeper());
            script(&scratch, "");
            let (reader, writer) = std::io::pipe().unwrap();
            let with = other.id().to_string();
            let args = ["--with", &with, "--lifeline", "0", "-k", ".3", "./inner"];
            let mut command = run(&mechanism, &args);
            command.current_dir(scratch.path()).marked(&scratch).stdin(reader);
            let mut process = command.stdout(Stdio::null()).spawn().unwrap();
            eventually("the tree runs", || scratch.file("ready").exists());
            let mut writer = Some(writer);
            match close {
                true => drop(writer.take()),
                false => kill(other.id(), libc::SIGKILL),
            }
            assert_eq!(wait(&mut process).code(), Some(LOST), "{mechanism}, {close}");
            scratch.marked_are_gone();
            kill(other.id(), libc::SIGKILL);
            wait(&mut other);
        }
    }
}

/// The parent of a detached job is the process that called `onejob run -d`.
#[test]
fn detached_job_ends_with_the_caller() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        script(&scratch, &format!("run -d --mechanism {mechanism} --with parent -k .3"));
        let mut command = Command::new("sh");
        command.args(["-c", "./tree; echo >started; read line"]);
        command.env("HOME", scratch.path()).env("XDG_STATE_HOME", scratch.path());
        let (reader, _writer) = std::io::pipe().unwrap();
        command.current_dir(scratch.path()).marked(&scratch).stdin(reader);
        let mut shell = command.stdout(Stdio::null()).spawn().unwrap();
        eventually("onejob has detached the job", || scratch.file("started").exists());
        eventually("the tree runs", || scratch.file("ready").exists());
        kill(shell.id(), libc::SIGKILL);
        wait(&mut shell);
        eventually(&format!("{mechanism}: the tree is gone"), || scratch.marked().is_empty());
    }
}

/// Nothing is started if the process has exited already, does not exist, or is no process.
#[test]
fn unusable_process() {
    let scratch = Scratch::new();
    let mut zombie = Command::new("true").spawn().unwrap();
    let pid = zombie.id();
    eventually("the process has exited", || common::state(pid) == Some('Z'));
    for (value, status, reason) in [
        (pid.to_string(), LOST, "nothing was started"),
        ("999999999".to_owned(), 125, "does not exist"),
        ("0".to_owned(), 125, "--with"),
        ("-1".to_owned(), 125, "--with"),
        ("+1".to_owned(), 125, "--with"),
        ("child".to_owned(), 125, "--with"),
        (String::new(), 125, "--with"),
        ("99999999999".to_owned(), 125, "--with"),
    ] {
        for verb in ["run", "init"] {
            let mut command = onejob(&[verb, &format!("--with={value}"), "touch", "started"]);
            let output = outcome(command.current_dir(scratch.path()));
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(status), "{value}: {stderr}");
            assert!(is_error(&stderr) && stderr.contains(reason), "{value}: {stderr}");
            assert!(!scratch.file("started").exists(), "{value}");
        }
    }
    let output = outcome(&mut onejob(&["run", "--with", "parent", "--keep", "true"]));
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("--keep"), "{}", text(&output.stderr));
    zombie.wait().unwrap();
}

/// The parent may be the first process of a PID namespace; one outside of it cannot be watched.
#[test]
fn parent_outside_of_the_pid_namespace() {
    if !common::inits::can_contain() {
        common::skip!("no PID namespaces here");
    }
    let scratch = Scratch::new();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["--", ONEJOB, "run", "--with", "parent", "touch", "started"]);
    let output = outcome(command.current_dir(scratch.path()));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("outside of this PID namespace"), "{stderr}");
    assert!(!scratch.file("started").exists());
}

/// Waiting for a process causes no wake-ups.
#[test]
fn waiting_causes_no_wakeups() {
    let (scratch, mut other) = (Scratch::new(), sleeper());
    script(&scratch, "");
    let mut command = onejob(&["run", "--with", &other.id().to_string(), "-k", ".3", "./inner"]);
    let mut process = started(&mut command, &scratch);
    std::thread::sleep(Duration::from_millis(200));
    let before = sleeps(process.id());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sleeps(process.id()), before);
    kill(other.id(), libc::SIGKILL);
    assert_eq!(wait(&mut process).code(), Some(LOST));
    wait(&mut other);
}
