//! Tests on a pseudo-terminal, mostly below a shell.
#![cfg(target_os = "linux")]

mod common;

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{
    Marked as _, ONEJOB, Scratch, eventually, kill, line, lives, mechanisms,
    pty::Pty,
    read,
    recorder::{Recorders, recorder},
    run, skip, state, wait,
};

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// A session led by a shell without job control: the shell does not repair the terminal.
fn script(scratch: &Scratch, mechanism: &str, text: &str) -> Pty {
    Pty::start(&mut shell(scratch, mechanism, text))
}

fn shell(scratch: &Scratch, mechanism: &str, text: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["--norc", "--noprofile", "-c", text]).current_dir(scratch.path());
    command.env("RUN", format!("{ONEJOB} run --mechanism {mechanism}")).marked(scratch);
    command
}

/// A pid that a shell wrote into a file of the scratch.
fn pid_in(scratch: &Scratch, name: &str) -> u32 {
    line(&scratch.file(name)).parse().unwrap()
}

fn stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// Each process receives one SIGINT per Ctrl-C.
#[test]
fn ctrl_c_reaches_each_process_once() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let tree = "$RUN -- sh -c '\"$RECORDER\" & (\"$RECORDER\" &) ; exec \"$RECORDER\"' & echo $! >run; wait";
        // Without job control a background command ignores SIGINT, so the shell is made to exec.
        let tree = tree.replace(" & echo $! >run; wait", "");
        let mut command = shell(&scratch, &mechanism, &format!("echo $$ >run; exec {tree}"));
        let mut pty = Pty::start(recorders.below(&mut command));
        let pids = recorders.ready(3);
        for count in 1..=5 {
            pty.send(CTRL_C);
            pids.iter().for_each(|pid| recorders.gets(*pid, libc::SIGINT, count));
        }
        pty.send(CTRL_BACKSLASH);
        pids.iter().for_each(|pid| recorders.gets(*pid, libc::SIGQUIT, 1));
        pty.resize(77);
        pids.iter().for_each(|pid| recorders.gets(*pid, libc::SIGWINCH, 1));
        // A signal that is delivered twice arrives before this.
        kill(pid_in(&scratch, "run"), libc::SIGUSR1);
        let fenced = || pids.iter().any(|pid| recorders.got(*pid).contains(&libc::SIGUSR1));
        eventually("CMD gets the last signal", fenced);
        for pid in &pids {
            let got = recorders.got(*pid);
            let count = |signal| got.iter().filter(|one| **one == signal).count();
            assert_eq!(count(libc::SIGINT), 5, "{mechanism} {got:?}");
            assert_eq!(count(libc::SIGQUIT), 1, "{mechanism} {got:?}");
            assert_eq!(count(libc::SIGWINCH), 1, "{mechanism} {got:?}");
        }
        recorders.end();
        assert!(wait(&mut pty.leader).success());
    }
}

/// An interactive shell survives Ctrl-C, and the terminal is restored at its end.
#[test]
fn interactive_shell_survives_ctrl_c() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let run = "PS1='inner> ' $RUN -- bash --norc --noprofile --noediting -i";
        let text = format!("{run}; echo \"status=$?\"; read x");
        let mut pty = script(&scratch, &mechanism, &text);
        let outer = pty.leader.id();
        let modes = pty.first_modes();
        pty.expect("inner> ");
        assert_ne!(pty.foreground(), outer, "the inner shell has job control");
        for number in 0..5 {
            pty.send(CTRL_C);
            pty.expect("inner> ");
            pty.send(&format!("echo al''ive-{number}\n"));
            pty.expect(&format!("alive-{number}"));
            pty.expect("inner> ");
        }
        // Job control inside.
        pty.send("sleep 1000\n");
        eventually("sleep has the foreground", || pty.foreground() != outer);
        thread::sleep(Duration::from_millis(100));
        pty.send(CTRL_Z);
        pty.expect("Stopped");
        pty.expect("inner> ");
        pty.send("exit 42\nexit 42\n");
        pty.expect("status=42");
        assert_eq!(pty.foreground(), outer, "{mechanism}");
        assert_eq!(pty.modes(), modes, "{mechanism}");
        pty.send("\n");
        wait(&mut pty.leader);
        scratch.marked_are_gone();
    }
}

/// The foreground is taken back from an interactive shell that was killed.
#[test]
fn killed_interactive_shell() {
    for mechanism in mechanisms() {
        for inner in ["sleep 1000", "read x"] {
            let scratch = Scratch::new();
            let run = "PS1='inner> ' $RUN -- bash --norc --noprofile -i";
            let text = format!("{run}; echo \"status=$?\"; read x");
            let mut pty = script(&scratch, &mechanism, &text);
            let (outer, modes) = (pty.leader.id(), pty.first_modes());
            pty.expect("inner> ");
            pty.send(&format!("echo $$ >inner; {inner}\n"));
            let shell = pid_in(&scratch, "inner");
            eventually("it has taken the foreground", || pty.foreground() != outer);
            kill(shell, libc::SIGKILL);
            pty.expect("status=137");
            assert_eq!(pty.foreground(), outer, "{mechanism} {inner}");
            assert_eq!(pty.modes(), modes, "{mechanism} {inner}");
            pty.send("\n");
            wait(&mut pty.leader);
            scratch.marked_are_gone();
        }
    }
}

/// The foreground is taken back from a process group that was killed with its shell.
#[test]
fn killed_foreground_group() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let run = "PS1='inner> ' $RUN -- bash --norc --noprofile -i";
        let text = format!("{run}; echo \"status=$?\"; read x");
        let mut pty = script(&scratch, &mechanism, &text);
        let outer = pty.leader.id();
        pty.expect("inner> ");
        pty.send("echo $$ >inner; sh -c 'echo $$ >job; exec sleep 1000'\n");
        let (shell, job) = (pid_in(&scratch, "inner"), pid_in(&scratch, "job"));
        eventually("the job has the foreground", || pty.foreground() == job);
        // It may still be a zombie when onejob checks.
        kill(shell, libc::SIGSTOP);
        kill(job, libc::SIGKILL);
        kill(shell, libc::SIGKILL);
        pty.expect("status=137");
        assert_eq!(pty.foreground(), outer, "{mechanism}");
    }
}

/// A REPL survives Ctrl-C.
#[test]
fn repl_survives_ctrl_c() {
    let available = Command::new("python3").arg("--version").output();
    if !available.is_ok_and(|output| output.status.success()) {
        skip!("python3 is not installed");
    }
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut pty = script(&scratch, &mechanism, "$RUN -- python3 -q -i; echo \"status=$?\"");
        pty.expect(">>> ");
        for number in 0..5 {
            pty.send(CTRL_C);
            // Python notices an interrupt between its prompt and its read only at the next line,
            // which is lost with it.
            let alive = format!("alive {number}");
            eventually("an answer", || {
                pty.send(&format!("print('alive', {number})\n"));
                let deadline = Instant::now() + Duration::from_secs(1);
                while Instant::now() < deadline && !pty.has_seen(&alive) {
                    thread::sleep(Duration::from_millis(10));
                }
                pty.has_seen(&alive)
            });
        }
        pty.send("raise SystemExit(5)\n");
        pty.expect("status=5");
        assert!(pty.has_seen("KeyboardInterrupt"), "{mechanism}");
    }
}

/// Ctrl-Z stops the tree, and `fg` continues it.
#[test]
fn ctrl_z_and_fg() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut pty = Pty::bash(&scratch);
        let (bash, modes) = (pty.leader.id(), pty.modes());
        pty.send(&format!("\"$ONEJOB\" run --mechanism {mechanism} -- cat\n"));
        pty.send("hello\n");
        pty.expect("hello");
        pty.expect("hello");
        let onejob = pty.foreground();
        assert_ne!(onejob, bash);
        let cat = common::pids()
            .into_iter()
            .find(|pid| {
                read(format!("/proc/{pid}/comm")) == "cat\n"
                    && common::stat(*pid, 2) == Some(onejob.to_string())
            })
            .unwrap();
        for _ in 0..3 {
            pty.send(CTRL_Z);
            pty.expect("Stopped");
            pty.expect("READY> ");
            eventually("both are stopped", || stopped(onejob) && stopped(cat));
            assert_eq!(pty.foreground(), bash);
            pty.send("fg\n");
            eventually("it has the foreground", || pty.foreground() == onejob);
            pty.send("again\n");
            pty.expect("again");
            pty.expect("again");
        }
        pty.send(CTRL_D);
        pty.expect("READY> ");
        assert_eq!((pty.foreground(), pty.modes()), (bash, modes), "{mechanism}");
        eventually("the end of both", || !lives(onejob) && !lives(cat));
    }
}

/// After Ctrl-Z and `bg`, the foreground is not taken back.
#[test]
fn ctrl_z_and_bg() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut pty = Pty::bash(&scratch);
        let bash = pty.leader.id();
        let cmd = "sh -c 'echo $$ >cmd; until test -e end; do sleep .05; done; kill -9 $$'";
        pty.send(&format!("\"$ONEJOB\" run --mechanism {mechanism} -- {cmd}\n"));
        let (cmd, onejob) = (pid_in(&scratch, "cmd"), pty.foreground());
        pty.send(CTRL_Z);
        pty.expect("Stopped");
        pty.send("bg\n");
        eventually("CMD runs in the background", || !stopped(cmd) && lives(cmd));
        pty.send("stty -echo; echo mo''des\n");
        pty.expect("modes");
        pty.expect("READY> ");
        let modes = pty.modes();
        assert_eq!(pty.foreground(), bash);
        std::fs::write(scratch.file("end"), "").unwrap();
        eventually("onejob is gone", || !lives(onejob));
        // The shell would take it back only for its next command.
        assert_eq!((pty.foreground(), pty.modes()), (bash, modes), "{mechanism}");
    }
}

/// Ctrl-Z without a shell above has no effect.
#[test]
fn ctrl_z_without_a_shell() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut command = run(&mechanism, &["--", "cat"]);
        let mut pty = Pty::start(command.marked(&scratch));
        pty.send("hello\n");
        pty.expect("hello");
        pty.expect("hello");
        (0..3).for_each(|_| pty.send(CTRL_Z));
        pty.send("alive\n");
        pty.expect("alive");
        pty.expect("alive");
        pty.send(CTRL_D);
        assert!(wait(&mut pty.leader).success(), "{mechanism}");
    }
}

/// A program that stops its own process group continues without a shell above.
#[test]
fn self_suspension_without_a_shell() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut command = run(&mechanism, &["--", "sh", "-c", "kill -TSTP 0; echo al''ive"]);
        let mut pty = Pty::start(command.marked(&scratch));
        pty.expect("alive");
        assert!(wait(&mut pty.leader).success(), "{mechanism}");
    }
}

/// A program that stops its own process group continues without a shell above, also while the outer guard
/// has not left the session yet; with a record and without.
#[test]
fn self_suspension_beside_a_slow_guard() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        skip!("strace is not installed");
    }
    for mechanism in mechanisms() {
        for is_listed in [true, false] {
            let scratch = Scratch::new();
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o"]).arg(scratch.file("strace"));
            command.args(["-e", "trace=setsid", "-e", "inject=setsid:delay_enter=1000000", ONEJOB]);
            command.args(["run", "--mechanism", &mechanism]);
            command.args(["--", "sh", "-c", "kill -TSTP 0; echo al''ive"]).marked(&scratch);
            if !is_listed {
                command.env("ONEJOB_RUNTIME_DIR", "/dev/null/none");
            }
            let mut pty = Pty::start(&mut command);
            pty.expect("alive");
            assert!(wait(&mut pty.leader).success(), "{mechanism}, listed: {is_listed}");
        }
    }
}

/// The terminal modes are restored after a kill, and kept after a normal exit.
#[test]
fn terminal_modes_after_a_kill() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let text = "$RUN -- \"$RECORDER\"; echo \"status=$?\"; read x; \
                    unset ONEJOB_RECORDER; $RUN -- stty -echo; echo changed; read x";
        let mut command = shell(&scratch, &mechanism, text);
        let mut pty = Pty::start(recorders.below(command.env("ONEJOB_ACTS", "raw")));
        let (outer, modes) = (pty.leader.id(), pty.first_modes());
        let pid = recorders.ready(1)[0];
        recorders.gets(pid, 1, 1);
        assert_ne!(pty.modes(), modes, "it is in raw mode");
        kill(pid, libc::SIGKILL);
        pty.expect("status=137");
        assert_eq!((pty.foreground(), pty.modes()), (outer, modes.clone()), "{mechanism}");
        pty.send("\n");
        pty.expect("changed");
        assert_ne!(pty.modes(), modes, "{mechanism}");
    }
}

/// The terminal modes are restored after a time limit.
#[test]
fn terminal_modes_after_a_time_limit() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let text = "$RUN -t 1 -s KILL -- \"$RECORDER\"; echo \"status=$?\"; read x";
        let mut command = shell(&scratch, &mechanism, text);
        let mut pty = Pty::start(recorders.below(command.env("ONEJOB_ACTS", "raw")));
        let modes = pty.first_modes();
        pty.expect("status=124");
        assert!(!recorders.got(recorders.ready(1)[0]).is_empty(), "it was in raw mode");
        assert_eq!(pty.modes(), modes, "{mechanism}");
    }
}

/// Ctrl-C stops a shell script that runs onejob.
#[test]
fn ctrl_c_stops_a_script() {
    for mechanism in mechanisms() {
        for prefix in ["", "$RUN --"] {
            let scratch = Scratch::new();
            let sleep = "sh -c 'echo $$ >ready; exec sleep 1000'";
            let text = format!("{prefix} {sleep}; echo went''-on");
            let mut pty = script(&scratch, &mechanism, &text);
            pid_in(&scratch, "ready");
            pty.send(CTRL_C);
            assert_eq!(wait(&mut pty.leader).signal(), Some(libc::SIGINT), "{mechanism} {prefix}");
            assert!(!pty.has_seen("went-on"), "{mechanism} {prefix}");
            scratch.marked_are_gone();
        }
    }
}

/// The Ctrl-C that ends CMD leaves its leftovers the grace period; the next one kills them.
#[test]
fn second_ctrl_c_ends_the_grace_period() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let text = "$RUN -k 1d -- sh -c '\"$RECORDER\" & echo $$ >ready; exec sleep 1000'";
        let mut command = shell(&scratch, &mechanism, text);
        let mut pty = Pty::start(recorders.below(&mut command));
        pid_in(&scratch, "ready");
        let pid = recorders.ready(1)[0];
        pty.send(CTRL_C);
        recorders.gets(pid, libc::SIGTERM, 1);
        assert_eq!(recorders.got(pid)[0], libc::SIGINT);
        assert!(lives(pid), "{mechanism}");
        pty.send(CTRL_C);
        wait(&mut pty.leader);
        scratch.marked_are_gone();
    }
}

/// `kill 0` and `kill -9 0` by a member leave no process behind and restore the terminal.
#[test]
fn kill_0_and_kill_9_0() {
    for mechanism in mechanisms() {
        for signal in ["TERM", "KILL"] {
            let scratch = Scratch::new();
            let mut pty = Pty::bash(&scratch);
            let (bash, modes) = (pty.leader.id(), pty.modes());
            let tree = format!("setsid sleep 1000 & sleep 1000 & kill -{signal} 0; sleep 1000");
            let mark = scratch.mark();
            pty.send(&format!(
                "{mark} \"$ONEJOB\" run --mechanism {mechanism} -- sh -c '{tree}'\n"
            ));
            pty.expect("READY> ");
            scratch.marked_are_gone();
            assert_eq!((pty.foreground(), pty.modes()), (bash, modes), "{mechanism} {signal}");
        }
    }
}

/// A time limit that expires while the tree is stopped is enforced when it continues.
#[test]
fn time_limit_while_stopped() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut pty = Pty::bash(&scratch);
        let started = Instant::now();
        let sleep = "sh -c 'echo $$ >ready; exec sleep 1000'";
        pty.send(&format!("\"$ONEJOB\" run --mechanism {mechanism} -t 2 -- {sleep}\n"));
        let cmd = pid_in(&scratch, "ready");
        pty.send(CTRL_Z);
        pty.expect("Stopped");
        while started.elapsed() < Duration::from_millis(2500) {
            thread::sleep(Duration::from_millis(50));
        }
        assert!(stopped(cmd), "{mechanism}");
        pty.send("fg; echo sta''tus=$?\n");
        pty.expect("status=124");
        eventually("CMD is gone", || !lives(cmd));
    }
}

/// A hang-up that only onejob receives, as session leader, is forwarded.
#[test]
fn hangup_of_a_session_leader() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let mut command = run(&mechanism, &["--", &recorder()]);
        let mut pty = Pty::start(recorders.below(command.marked(&scratch)));
        let pid = recorders.ready(1)[0];
        pty.close();
        recorders.gets(pid, libc::SIGHUP, 1);
        recorders.end();
        wait(&mut pty.leader);
        scratch.marked_are_gone();
    }
}

/// A hang-up ends the tree.
#[test]
fn hangup_ends_the_tree() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let tree = "setsid sleep 1000 & echo $$ >ready; exec sleep 1000";
        let mut command = run(&mechanism, &["--", "sh", "-c", tree]);
        command.current_dir(scratch.path());
        let mut pty = Pty::start(command.marked(&scratch));
        pid_in(&scratch, "ready");
        pty.close();
        assert_eq!(wait(&mut pty.leader).signal(), Some(libc::SIGHUP), "{mechanism}");
        scratch.marked_are_gone();
    }
}

/// `stty tostop` does not stop onejob for a message.
#[test]
fn message_from_the_background() {
    let scratch = Scratch::new();
    let mut pty = Pty::bash(&scratch);
    pty.send("stty tostop; \"$ONEJOB\" run ./missing & wait $!; echo sta''tus=$?\n");
    pty.expect("status=127");
}

/// A background program that reads is stopped together with onejob, and `fg` continues both.
#[test]
fn background_read_and_fg() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut pty = Pty::bash(&scratch);
        let cmd = "sh -c 'echo $$ >cmd; read x; echo got-$x'";
        pty.send(&format!("\"$ONEJOB\" run --mechanism {mechanism} -- {cmd} &\n"));
        let cmd = pid_in(&scratch, "cmd");
        eventually("it is stopped for reading", || stopped(cmd));
        // The shell checks onejob only: as long as onejob runs, `fg` continues nothing.
        // SAFETY: takes a number.
        let ours = unsafe { libc::getpgid(cmd as i32) } as u32;
        eventually("a stopped onejob", || stopped(ours));
        pty.send("fg\n");
        eventually("a continued CMD", || !stopped(cmd));
        pty.send("text\n");
        pty.expect("got-text");
    }
}
