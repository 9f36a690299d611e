//! `onejob init`, tini and dumb-init on a terminal: foreground, job control, stop signals.
#![cfg(target_os = "linux")]

mod common;

use std::{process::Command, thread, time::Duration};

use common::{
    Marked as _, ONEJOB, Scratch, eventually,
    inits::{Program, can_contain, needs_containers, needs_originals, original},
    kill, mechanisms,
    pty::Pty,
    read, skip, state, wait,
};

const SHELL: [&str; 5] = ["bash", "--norc", "--noprofile", "--noediting", "-i"];

/// A shell below `init` has job control on this terminal.
fn has_job_control(init: &Program, mut pty: Pty) {
    pty.expect("inner> ");
    assert!(!pty.has_seen("no job control"), "{init:?}");
    pty.send("cat\n");
    eventually("cat has the foreground", || comm(pty.foreground()) == "cat\n");
    pty.send("\x03");
    pty.expect("inner> ");
    pty.send("sleep 1000\n");
    eventually("sleep has the foreground", || comm(pty.foreground()) == "sleep\n");
    pty.send("\x1a");
    pty.expect("Stopped");
    pty.expect("inner> ");
    pty.send("kill -9 %1; exit 7\n");
    pty.send("exit 7\n");
    assert_eq!(wait(&mut pty.leader).code(), Some(7), "{init:?}");
}

/// A shell below PID 1 of a container has the terminal and job control.
#[test]
fn shell_in_a_container() {
    needs_containers!();
    let outer = Scratch::new();
    let mut all = vec![Program::init(&[]), Program::init(&["--setsid"])];
    all.extend(Program::both(&outer, "tini", &["--"]));
    all.extend(Program::both(&outer, "dumb-init", &["--"]));
    for init in all {
        // The first process of a container leads the session that has the terminal.
        let path = init.path.to_str().unwrap().to_owned();
        let leader =
            Program { path: "setsid".into(), args: vec!["-c", path.leak()], ..init.clone() };
        let mut command = leader.contained(&[&init.args[..], &SHELL].concat());
        command.env("PS1", "inner> ").env("HISTFILE", "/dev/null");
        has_job_control(&init, Pty::offer(&mut command));
    }
    needs_originals!("tini", "dumb-init");
}

/// A shell below PID 1 of a namespace made on a terminal has the terminal and job control.
#[test]
fn shell_in_a_pid_namespace() {
    needs_containers!();
    let outer = Scratch::new();
    let mut all = vec![Program::init(&[])];
    all.extend(Program::both(&outer, "tini", &["--"]));
    for init in all {
        let mut command = init.contained(&SHELL);
        command.env("PS1", "inner> ").env("HISTFILE", "/dev/null");
        has_job_control(&init, Pty::start(&mut command));
    }
    needs_originals!("tini");
}

fn comm(pid: u32) -> String {
    read(format!("/proc/{pid}/comm"))
}

/// The terminal is returned to the shell above, and not taken from the background.
#[test]
fn terminal_below_a_shell() {
    for mechanism in mechanisms() {
        for options in ["", "--setsid"] {
            let scratch = Scratch::new();
            let init = format!("{ONEJOB} init {options} --mechanism {mechanism}");
            let mut command = Command::new("bash");
            let script = format!("{init} -- sh -c 'read x; echo got=$x'; echo status=$?; read y");
            let script = if options.is_empty() {
                script
            } else {
                format!("{init} -- sh -c 'exit 0'; echo status=$?; read y")
            };
            command.args(["--norc", "--noprofile", "-c", &script]).marked(&scratch);
            let mut pty = Pty::start(&mut command);
            let (shell, modes) = (pty.leader.id(), pty.first_modes());
            if options.is_empty() {
                pty.send("hello\n");
                pty.expect("got=hello");
            }
            pty.expect("status=0");
            assert_eq!(pty.foreground(), shell, "{mechanism}");
            assert_eq!(pty.modes(), modes);
            // In the background it does not take the terminal.
            pty.send("\n");
            wait(&mut pty.leader);
            let mut pty = Pty::bash(&scratch);
            let shell = pty.leader.id();
            pty.send(&format!("{init} -- sleep 1000 & echo sta''rted\n"));
            pty.expect("started");
            pty.expect("READY> ");
            thread::sleep(Duration::from_millis(200));
            assert_eq!(pty.foreground(), shell, "{mechanism}");
            pty.send("kill %1; wait; exit\n");
            wait(&mut pty.leader);
        }
    }
}

/// A stop signal stops CMD and the init; SIGCONT continues both.
#[test]
fn stop_signal_stops_cmd_and_init() {
    let outer = Scratch::new();
    let mut all = vec![Program::init(&[]), Program::init(&["--setsid"])];
    all.extend(Program::both(&outer, "dumb-init", &["--"]));
    for init in all {
        for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
            let scratch = Scratch::new();
            let mut command = init.command(&["sleep", "1000"]);
            let mut process = command.marked(&scratch).spawn().unwrap();
            let sleeps = || scratch.marked().into_iter().find(|pid| comm(*pid) == "sleep\n");
            eventually("CMD runs", || sleeps().is_some());
            let cmd = sleeps().unwrap();
            kill(process.id(), signal);
            for pid in [cmd, process.id()] {
                eventually("a stopped process", || state(pid) == Some('T'));
            }
            kill(process.id(), libc::SIGCONT);
            for pid in [cmd, process.id()] {
                eventually("a continued process", || state(pid) == Some('S'));
            }
            kill(process.id(), libc::SIGTERM);
            wait(&mut process);
            scratch.marked_are_gone();
        }
    }
    needs_originals!("dumb-init");
}
