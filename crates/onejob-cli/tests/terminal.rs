//! A real terminal, mostly with a shell above.
#![cfg(target_os = "linux")]

mod common;

use std::{
    os::unix::process::ExitStatusExt as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use common::{
    Marked as _, ONEJOB, Scratch,
    actor::{Actors, actor},
    eventually, kill, line, lives, mechanisms,
    pty::Pty,
    read, run, skip, state, wait,
};

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// A session whose leader is a shell without job control: whatever happens to the terminal is
/// onejob's doing, and not repaired by the shell.
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

#[test]
fn every_actor_gets_one_sigint_per_ctrl_c() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let tree =
            "$RUN -- sh -c '\"$ACTOR\" & (\"$ACTOR\" &) ; exec \"$ACTOR\"' & echo $! >run; wait";
        // Without job control a background command ignores SIGINT, so the shell is made to exec.
        let tree = tree.replace(" & echo $! >run; wait", "");
        let mut command = shell(&scratch, &mechanism, &format!("echo $$ >run; exec {tree}"));
        let mut pty = Pty::start(actors.below(&mut command));
        let pids = actors.ready(3);
        for count in 1..=5 {
            pty.send(CTRL_C);
            pids.iter().for_each(|pid| actors.gets(*pid, libc::SIGINT, count));
        }
        pty.send(CTRL_BACKSLASH);
        pids.iter().for_each(|pid| actors.gets(*pid, libc::SIGQUIT, 1));
        pty.resize(77);
        pids.iter().for_each(|pid| actors.gets(*pid, libc::SIGWINCH, 1));
        // What came twice to CMD came before this.
        kill(pid_in(&scratch, "run"), libc::SIGUSR1);
        let fenced = || pids.iter().any(|pid| actors.got(*pid).contains(&libc::SIGUSR1));
        eventually("CMD gets the last signal", fenced);
        for pid in &pids {
            let got = actors.got(*pid);
            let count = |signal| got.iter().filter(|one| **one == signal).count();
            assert_eq!(count(libc::SIGINT), 5, "{mechanism} {got:?}");
            assert_eq!(count(libc::SIGQUIT), 1, "{mechanism} {got:?}");
            assert_eq!(count(libc::SIGWINCH), 1, "{mechanism} {got:?}");
        }
        actors.end();
        assert!(wait(&mut pty.leader).success());
    }
}

#[test]
fn an_interactive_shell_survives_any_number_of_ctrl_c_and_the_terminal_comes_back() {
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

#[test]
fn an_interactive_shell_that_was_killed_leaves_us_the_foreground() {
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

#[test]
fn a_foreground_group_that_died_with_its_shell_leaves_us_the_foreground() {
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
        // Not even reaped when we look, perhaps.
        kill(shell, libc::SIGSTOP);
        kill(job, libc::SIGKILL);
        kill(shell, libc::SIGKILL);
        pty.expect("status=137");
        assert_eq!(pty.foreground(), outer, "{mechanism}");
    }
}

#[test]
fn a_repl_survives_any_number_of_ctrl_c() {
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
            eventually("it answers", || {
                pty.send(&format!("print('alive', {number})\n"));
                let patience = Instant::now() + Duration::from_secs(1);
                while Instant::now() < patience && !pty.has_seen(&alive) {
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

#[test]
fn ctrl_z_stops_the_tree_and_fg_resumes_it() {
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
        eventually("everybody is gone", || !lives(onejob) && !lives(cat));
    }
}

#[test]
fn ctrl_z_then_bg_never_takes_the_foreground_back() {
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

#[test]
fn ctrl_z_does_no_harm_without_a_shell_above() {
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

#[test]
fn a_program_that_suspends_its_group_goes_on_without_a_shell_above() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut command = run(&mechanism, &["--", "sh", "-c", "kill -TSTP 0; echo al''ive"]);
        let mut pty = Pty::start(command.marked(&scratch));
        pty.expect("alive");
        assert!(wait(&mut pty.leader).success(), "{mechanism}");
    }
}

#[test]
fn the_modes_come_back_after_a_killed_program_but_are_its_own_otherwise() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let text = "$RUN -- \"$ACTOR\"; echo \"status=$?\"; read x; \
                    unset ONEJOB_ACTOR; $RUN -- stty -echo; echo changed; read x";
        let mut command = shell(&scratch, &mechanism, text);
        let mut pty = Pty::start(actors.below(command.env("ONEJOB_ACTS", "raw")));
        let (outer, modes) = (pty.leader.id(), pty.first_modes());
        let pid = actors.ready(1)[0];
        actors.gets(pid, 1, 1);
        assert_ne!(pty.modes(), modes, "it is in raw mode");
        kill(pid, libc::SIGKILL);
        pty.expect("status=137");
        assert_eq!((pty.foreground(), pty.modes()), (outer, modes.clone()), "{mechanism}");
        pty.send("\n");
        pty.expect("changed");
        assert_ne!(pty.modes(), modes, "{mechanism}");
    }
}

#[test]
fn the_modes_come_back_after_a_time_limit() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let text = "$RUN -t 1 -s KILL -- \"$ACTOR\"; echo \"status=$?\"; read x";
        let mut command = shell(&scratch, &mechanism, text);
        let mut pty = Pty::start(actors.below(command.env("ONEJOB_ACTS", "raw")));
        let modes = pty.first_modes();
        pty.expect("status=124");
        assert!(!actors.got(actors.ready(1)[0]).is_empty(), "it was in raw mode");
        assert_eq!(pty.modes(), modes, "{mechanism}");
    }
}

#[test]
fn a_script_stops_on_ctrl_c_as_it_would_without_us() {
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

#[test]
fn a_ctrl_c_that_ends_cmd_leaves_the_rest_its_grace_and_the_next_does_not() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let text = "$RUN -k 1d -- sh -c '\"$ACTOR\" & echo $$ >ready; exec sleep 1000'";
        let mut command = shell(&scratch, &mechanism, text);
        let mut pty = Pty::start(actors.below(&mut command));
        pid_in(&scratch, "ready");
        let pid = actors.ready(1)[0];
        pty.send(CTRL_C);
        actors.gets(pid, libc::SIGTERM, 1);
        assert_eq!(actors.got(pid)[0], libc::SIGINT);
        assert!(lives(pid), "{mechanism}");
        pty.send(CTRL_C);
        wait(&mut pty.leader);
        scratch.marked_are_gone();
    }
}

#[test]
fn kill_0_and_kill_9_0_leave_nothing_behind() {
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

#[test]
fn a_time_limit_that_passes_while_stopped_holds_at_the_latest_on_continuing() {
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

#[test]
fn a_hangup_is_passed_on_when_only_we_are_told() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let mut command = run(&mechanism, &["--", &actor()]);
        let mut pty = Pty::start(actors.below(command.marked(&scratch)));
        let pid = actors.ready(1)[0];
        pty.close();
        actors.gets(pid, libc::SIGHUP, 1);
        actors.end();
        wait(&mut pty.leader);
        scratch.marked_are_gone();
    }
}

#[test]
fn a_hangup_ends_an_ordinary_tree() {
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

#[test]
fn a_message_from_the_background_does_not_stop_us() {
    let scratch = Scratch::new();
    let mut pty = Pty::bash(&scratch);
    pty.send("stty tostop; \"$ONEJOB\" run ./missing & wait $!; echo sta''tus=$?\n");
    pty.expect("status=127");
}

#[test]
fn a_background_program_that_reads_is_stopped_with_us_and_fg_resumes_both() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut pty = Pty::bash(&scratch);
        let cmd = "sh -c 'echo $$ >cmd; read x; echo got-$x'";
        pty.send(&format!("\"$ONEJOB\" run --mechanism {mechanism} -- {cmd} &\n"));
        let cmd = pid_in(&scratch, "cmd");
        eventually("it is stopped for reading", || stopped(cmd));
        // The shell goes by us alone: as long as we run there is nothing to resume for it.
        // SAFETY: takes a number.
        let ours = unsafe { libc::getpgid(cmd as i32) } as u32;
        eventually("and so are we", || stopped(ours));
        pty.send("fg\n");
        eventually("it is resumed", || !stopped(cmd));
        pty.send("text\n");
        pty.expect("got-text");
    }
}
