//! The behaviour of onejob called timeout, beside GNU timeout where it is installed.
#![cfg(target_os = "linux")]

mod common;

use std::{
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use common::{
    Marked as _, Scratch, eventually,
    inits::{
        Ends,
        Ends::{By, With},
        original, stand_in,
    },
    kill, line, lives,
    pty::Pty,
    recorder::Recorders,
    state, wait, with_signals,
};

/// onejob, and the original if it is installed.
fn timeouts(scratch: &Scratch) -> Vec<(std::path::PathBuf, bool)> {
    let ours = Some((stand_in(scratch, "timeout"), true));
    let theirs = original("timeout").map(|path| (path, false));
    [ours, theirs].into_iter().flatten().collect()
}

fn timeout(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    with_signals(&mut command, &[], &[]);
    command
}

/// A terminating signal is forwarded to CMD and starts the time of `-k`; SIGALRM is a time-out.
#[test]
fn forwards_terminating_signals() {
    let outer = Scratch::new();
    for (program, _) in timeouts(&outer) {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
            let scratch = Scratch::new();
            let mut process =
                timeout(&program, &["1000", "sleep", "1000"]).marked(&scratch).spawn().unwrap();
            eventually("CMD sleeps", || scratch.marked().iter().any(|pid| is_sleep(*pid)));
            is_waiting(&process);
            kill(process.id(), signal);
            assert_eq!(wait(&mut process).signal(), Some(signal), "{program:?}");
            scratch.marked_are_gone();
        }
        let scratch = Scratch::new();
        let deaf = "trap '' TERM; echo >ready; while :; do sleep .05; done";
        let mut command = timeout(&program, &["-k", ".2", "1000", "sh", "-c", deaf]);
        let mut process = command.current_dir(scratch.path()).marked(&scratch).spawn().unwrap();
        line(&scratch.file("ready"));
        is_waiting(&process);
        kill(process.id(), libc::SIGTERM);
        assert_eq!(wait(&mut process).signal(), Some(libc::SIGKILL), "{program:?}");
        // SIGALRM counts as the time-out.
        let mut process =
            timeout(&program, &["1000", "sleep", "1000"]).marked(&scratch).spawn().unwrap();
        eventually("CMD sleeps", || scratch.marked().iter().any(|pid| is_sleep(*pid)));
        is_waiting(&process);
        kill(process.id(), libc::SIGALRM);
        assert_eq!(wait(&mut process).code(), Some(124), "{program:?}");
    }
}

/// Waits until the program waits: before that, a signal would end the original alone.
fn is_waiting(process: &Child) {
    eventually("a waiting program", || {
        // The kernel function in which it sleeps; 0 if the kernel hides that.
        let place = common::read(format!("/proc/{}/wchan", process.id()));
        let is_known = ["sigsuspend", "poll"].iter().any(|name| place.contains(name));
        state(process.id()) == Some('S') && (is_known || ["", "0"].contains(&place.trim()))
    });
}

fn is_sleep(pid: u32) -> bool {
    common::read(format!("/proc/{pid}/comm")) == "sleep\n"
}

/// CMD receives each signal once; its process group receives it too, unless with `--foreground`.
#[test]
fn signals_cmd_once_and_its_group() {
    let outer = Scratch::new();
    for (program, ours) in timeouts(&outer) {
        for foreground in [false, true] {
            let scratch = Scratch::new();
            let recorders = Recorders::new(&scratch);
            let tree = "\"$RECORDER\" & echo $! >second; exec \"$RECORDER\"";
            let options: &[&str] = if foreground { &["--foreground"] } else { &[] };
            let mut command = timeout(&program, &[options, &["1000", "sh", "-c", tree]].concat());
            command.current_dir(scratch.path()).marked(&scratch);
            let mut process = recorders.below(&mut command).spawn().unwrap();
            let pids = recorders.ready(2);
            let second: u32 = line(&scratch.file("second")).parse().unwrap();
            let cmd = pids.into_iter().find(|pid| *pid != second).unwrap();
            is_waiting(&process);
            kill(process.id(), libc::SIGHUP);
            recorders.gets(cmd, libc::SIGHUP, 1);
            if !foreground {
                recorders.gets(second, libc::SIGHUP, 1);
                recorders.gets(cmd, libc::SIGCONT, 1);
            }
            // A signal that is delivered twice arrives before this.
            kill(cmd, libc::SIGUSR1);
            recorders.gets(cmd, libc::SIGUSR1, 1);
            let count = |pid| recorders.got(pid).iter().filter(|one| **one == libc::SIGHUP).count();
            assert_eq!(count(second), usize::from(!foreground), "{program:?}");
            // The original may signal CMD twice, by its pid and by its group.
            assert!(count(cmd) == 1 || !ours, "{program:?}");
            recorders.end();
            assert_eq!(wait(&mut process).code(), Some(0), "{program:?}");
        }
    }
}

/// Background children live on when CMD exits before the time-out.
#[test]
fn keeps_background_children() {
    let outer = Scratch::new();
    for (program, _) in timeouts(&outer) {
        let scratch = Scratch::new();
        let tree = "setsid sleep 1000 & sleep 1000 & echo >ready; exit 3";
        let mut command = timeout(&program, &["1000", "sh", "-c", tree]);
        let mut process = command
            .current_dir(scratch.path())
            .marked(&scratch)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(wait(&mut process).code(), Some(3), "{program:?}");
        let sleeping = || scratch.marked().into_iter().filter(|pid| is_sleep(*pid)).count();
        eventually("both live", || sleeping() == 2);
        thread::sleep(Duration::from_millis(300));
        assert_eq!(sleeping(), 2, "{program:?}");
    }
}

/// At the time-out the whole tree ends, daemons included.
#[test]
fn ends_the_whole_tree() {
    let scratch = Scratch::new();
    let program = stand_in(&scratch, "timeout");
    for (options, ends) in [
        (&[][..], With(124)),
        (&["--foreground"], With(124)),
        (&["-k", ".2"], With(124)),
        (&["-s", "KILL"], By(9)),
        (&["--preserve-status"], With(143)),
    ] {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        // A process in its own session that handles every signal.
        let tree = "(setsid \"$RECORDER\" &) ; (setsid sleep 1000 &); exec sleep 1000";
        let args = [options, &["1", "sh", "-c", tree]].concat();
        let mut command = timeout(&program, &args);
        let mut process = recorders.below(command.marked(&scratch)).spawn().unwrap();
        assert_eq!(Ends::from(wait(&mut process)), ends, "{options:?}");
        scratch.marked_are_gone();
    }
}

/// Without `-k`, a CMD that ignores SIGTERM is waited for.
#[test]
fn waits_for_cmd_ignoring_term() {
    let outer = Scratch::new();
    for (program, _) in timeouts(&outer) {
        let scratch = Scratch::new();
        let deaf = "trap '' TERM; until [ -e go ]; do sleep .05; done; exit 5";
        let mut command = timeout(&program, &[".2", "sh", "-c", deaf]);
        let mut process = command.current_dir(scratch.path()).marked(&scratch).spawn().unwrap();
        thread::sleep(Duration::from_secs(1));
        assert!(lives(process.id()), "{program:?}: it has killed without -k");
        std::fs::write(scratch.file("go"), "").unwrap();
        assert_eq!(wait(&mut process).code(), Some(124), "{program:?}");
    }
}

/// Terminal input and Ctrl-C reach CMD as under the original.
#[test]
fn on_a_terminal() {
    let outer = Scratch::new();
    for (program, _) in timeouts(&outer) {
        let scratch = Scratch::new();
        let path = program.to_str().unwrap();
        // Below a script CMD is in the background, and stopped for reading, until its time is over.
        let script = format!(
            "{path} 1 head -1; echo status=$?; {path} --foreground 1000 head -1; echo status=$?"
        );
        let mut command = Command::new("bash");
        command.args(["--norc", "--noprofile", "-c", &script]).marked(&scratch);
        let mut pty = Pty::start(&mut command);
        pty.expect("status=124");
        pty.send("hello\n");
        pty.expect("hello");
        pty.expect("hello");
        pty.expect("status=0");
        wait(&mut pty.leader);
        // At a prompt it leads the foreground job, and CMD receives Ctrl-C too.
        let mut pty = Pty::bash(&scratch);
        pty.send(&format!("{path} 1000 cat\n"));
        eventually("cat runs", || {
            scratch.marked().is_empty()
                && state(pty.foreground()) == Some('S')
                && pty.foreground() != pty.leader.id()
        });
        pty.send("echoed\n");
        pty.expect("echoed");
        pty.expect("echoed");
        pty.send("\x03");
        pty.expect("READY> ");
        pty.send("echo status=$?\n");
        pty.expect("status=130");
        pty.send("exit\n");
        wait(&mut pty.leader);
    }
}
