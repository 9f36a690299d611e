//! Signals without a terminal.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{
    Marked as _, ONEJOB, Scratch, eventually, kill, line, lives, mechanisms, outcome,
    recorder::{Recorders, recorder},
    run, sleeps, text, wait, with_signals,
};

/// The last signal of a test: a signal that is delivered twice arrives before it.
const FENCE: i32 = 64;

/// A signal that a process sends to onejob reaches CMD exactly once.
#[test]
fn signal_from_a_process() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let mut onejob = recorders
            .below(run(&mechanism, &["--", &recorder()]).marked(&scratch))
            .spawn()
            .unwrap();
        let pid = recorders.ready(1)[0];
        let signals = [
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGQUIT,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGALRM,
            libc::SIGCONT,
            libc::SIGWINCH,
            libc::SIGPIPE,
            libc::SIGURG,
            libc::SIGPWR,
            34,
            50,
            FENCE,
        ];
        for signal in signals {
            kill(onejob.id(), signal);
            recorders.gets(pid, signal, 1);
        }
        assert_eq!(recorders.got(pid), signals, "{mechanism}");
        recorders.end();
        assert!(wait(&mut onejob).success());
    }
}

/// Each real-time signal of a burst is forwarded.
#[test]
fn burst_of_real_time_signals() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let mut onejob = recorders
            .below(run(&mechanism, &["--", &recorder()]).marked(&scratch))
            .spawn()
            .unwrap();
        let pid = recorders.ready(1)[0];
        (0..100).for_each(|_| kill(onejob.id(), 40));
        recorders.gets(pid, 40, 100);
        kill(onejob.id(), FENCE);
        recorders.gets(pid, FENCE, 1);
        assert_eq!(recorders.got(pid).len(), 101, "{mechanism}");
        recorders.end();
        assert!(wait(&mut onejob).success());
    }
}

/// A forwarded signal that ends CMD ends the whole tree and onejob.
#[test]
fn terminating_signal() {
    for mechanism in mechanisms() {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1] {
            let scratch = Scratch::new();
            let tree = "setsid sleep 1000 & echo >ready; exec sleep 1000";
            let mut onejob = run(&mechanism, &["--", "sh", "-c", tree])
                .current_dir(scratch.path())
                .marked(&scratch)
                .spawn()
                .unwrap();
            line_or_empty(&scratch);
            kill(onejob.id(), signal);
            assert_eq!(wait(&mut onejob).signal(), Some(signal), "{mechanism}");
            scratch.marked_are_gone();
        }
    }
}

fn line_or_empty(scratch: &Scratch) {
    eventually("the tree is ready", || scratch.file("ready").exists());
}

/// A signal from a member to its own process group is not forwarded again.
#[test]
fn member_signals_its_own_group() {
    for mechanism in mechanisms() {
        let cmd_itself = ["--", "sh", "-c", "exec \"$RECORDER\""];
        let grandchild = ["--", "sh", "-c", "\"$RECORDER\" & ONEJOB_ACTS= exec \"$RECORDER\""];
        for (count, cmd) in [(1, cmd_itself), (2, grandchild)] {
            let scratch = Scratch::new();
            let recorders = Recorders::new(&scratch);
            let mut command = run(&mechanism, &cmd);
            command.env("ONEJOB_ACTS", "kill 0").process_group(0);
            let mut onejob = recorders.below(command.marked(&scratch)).spawn().unwrap();
            let pids = recorders.ready(count);
            recorders.go();
            pids.iter().for_each(|pid| recorders.gets(*pid, libc::SIGTERM, 1));
            kill(onejob.id(), FENCE);
            let got = || pids.iter().flat_map(|pid| recorders.got(*pid)).collect::<Vec<_>>();
            eventually("CMD gets the last signal", || got().contains(&FENCE));
            assert_eq!(got().len(), count + 1, "{mechanism}: {:?}", got());
            recorders.end();
            assert!(wait(&mut onejob).success());
        }
    }
}

/// `kill -9 0` by a member leaves no process behind.
#[test]
fn kill_9_0() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let tree = "setsid sleep 1000 & sleep 1000 & kill -9 0";
        let mut command = run(&mechanism, &["--", "sh", "-c", tree]);
        let mut onejob = command.process_group(0).marked(&scratch).spawn().unwrap();
        assert_eq!(wait(&mut onejob).signal(), Some(libc::SIGKILL), "{mechanism}");
        scratch.marked_are_gone();
    }
}

/// An alarm(2) that was set before the exec reaches CMD.
#[test]
fn inherited_alarm() {
    for mechanism in mechanisms() {
        let mut command = run(&mechanism, &["--", "sleep", "1000"]);
        // SAFETY: alarm is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::alarm(1);
                Ok(())
            })
        };
        assert_eq!(outcome(&mut command).status.signal(), Some(libc::SIGALRM), "{mechanism}");
    }
}

/// The signal settings of a program that is started like this.
fn settings(
    mut command: Command,
    blocked: &'static [i32],
    ignored: &'static [i32],
) -> (String, String) {
    with_signals(&mut command, blocked, ignored);
    let output = outcome(&mut command);
    // A C library reserves signals 32 and 33, and may ignore them in its children.
    let without_its_own = |line: &str| {
        let (name, set) = line.split_once('\t')?;
        let set = u64::from_str_radix(set, 16).ok()? & !(0b11 << 31);
        Some(format!("{name} {set:016x}\n"))
    };
    let settings = text(&output.stdout).lines().filter_map(without_its_own).collect();
    (settings, text(&output.stderr))
}

/// CMD inherits the blocked and ignored signals that onejob was started with.
#[test]
fn inherited_signal_settings() {
    const CASES: [(&[i32], &[i32]); 5] = [
        (&[], &[]),
        (&[], &[libc::SIGPIPE]),
        (&[], &[libc::SIGINT, libc::SIGQUIT, libc::SIGCHLD]),
        (&[libc::SIGTERM, libc::SIGUSR1, libc::SIGCHLD], &[libc::SIGHUP, libc::SIGTSTP]),
        (&[libc::SIGPIPE, libc::SIGALRM, 34, 64], &[libc::SIGPIPE, libc::SIGTTOU, 50]),
    ];
    let grep = ["-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"];
    for mechanism in mechanisms() {
        for (blocked, ignored) in CASES {
            let mut plain = Command::new("grep");
            plain.args(grep);
            let ours = run(&mechanism, &[&["--", "grep"], &grep[..]].concat());
            let expected = settings(plain, blocked, ignored);
            assert!(expected.0.lines().count() == 3, "{expected:?}");
            assert_eq!(settings(ours, blocked, ignored), expected, "{mechanism}");
        }
    }
}

/// CMD's status is returned also if SIGCHLD was ignored.
#[test]
fn ignored_sigchld() {
    for mechanism in mechanisms() {
        let mut command = run(&mechanism, &["--", "sh", "-c", "exit 7"]);
        with_signals(&mut command, &[], &[libc::SIGCHLD]);
        let output = outcome(&mut command);
        assert_eq!(output.status.code(), Some(7), "{mechanism} {}", text(&output.stderr));
    }
}

/// A closed pipe ends CMD and onejob by SIGPIPE, without a message.
#[test]
fn closed_pipe() {
    for mechanism in mechanisms() {
        let script = format!(
            "{ONEJOB} run --mechanism {mechanism} -- yes | head -1; echo ${{PIPESTATUS[0]}}"
        );
        let mut bash = Command::new("bash");
        let output = outcome(bash.args(["-c", &script]));
        assert_eq!(text(&output.stdout), "y\n141\n", "{mechanism}");
        assert_eq!(text(&output.stderr), "", "{mechanism}");
    }
}

/// Leaves a process behind that handles every signal it can.
const LEAVES_ONE: &str =
    "\"$RECORDER\" & until test -s \"$ONEJOB_RECORDER/$!\"; do sleep .01; done; exit 3";

/// A terminating signal while the leftovers are being stopped kills them.
#[test]
fn second_signal_kills_leftovers() {
    for mechanism in mechanisms() {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
            let scratch = Scratch::new();
            let recorders = Recorders::new(&scratch);
            let mut command = run(&mechanism, &["-k", "1d", "--", "sh", "-c", LEAVES_ONE]);
            let mut onejob = recorders.below(command.marked(&scratch)).spawn().unwrap();
            let pid = recorders.ready(1)[0];
            recorders.gets(pid, libc::SIGTERM, 1);
            kill(onejob.id(), signal);
            assert_eq!(wait(&mut onejob).code(), Some(3), "{mechanism}");
            scratch.marked_are_gone();
        }
    }
}

/// A terminating signal while the time limit is being enforced kills the tree.
#[test]
fn signal_during_the_time_limit_kills() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let mut command =
            run(&mechanism, &["-t", "1", "-k", "1d", "-s", "USR1", "--", &recorder()]);
        let mut onejob = recorders.below(command.marked(&scratch)).spawn().unwrap();
        recorders.gets(recorders.ready(1)[0], libc::SIGUSR1, 1);
        kill(onejob.id(), libc::SIGINT);
        assert_eq!(wait(&mut onejob).code(), Some(124), "{mechanism}");
        scratch.marked_are_gone();
    }
}

/// An ignored SIGHUP does not shorten the grace period.
#[test]
fn nohup() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let mut command = run(&mechanism, &["-k", "1d", "--", "sh", "-c", LEAVES_ONE]);
        with_signals(&mut command, &[], &[libc::SIGHUP]);
        let mut onejob = recorders.below(command.marked(&scratch)).spawn().unwrap();
        let pid = recorders.ready(1)[0];
        recorders.gets(pid, libc::SIGTERM, 1);
        kill(onejob.id(), libc::SIGHUP);
        // Both signals are read in the order of their numbers: the hangup has been handled by then.
        thread::sleep(Duration::from_millis(100));
        assert!(lives(onejob.id()) && lives(pid), "{mechanism}");
        recorders.end();
        assert_eq!(wait(&mut onejob).code(), Some(3), "{mechanism}");
    }
}

/// `--wait-all` waits for the last member.
#[test]
fn wait_all() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let mut command = run(&mechanism, &["--wait-all", "--", "sh", "-c", LEAVES_ONE]);
        let mut onejob = recorders.below(command.marked(&scratch)).spawn().unwrap();
        let pid = recorders.ready(1)[0];
        thread::sleep(Duration::from_millis(100));
        assert!(lives(onejob.id()), "{mechanism}");
        assert_eq!(recorders.got(pid), [] as [i32; 0], "a signal before the end of CMD");
        recorders.end();
        assert_eq!(wait(&mut onejob).code(), Some(3), "{mechanism}");
        assert!(!lives(pid));
    }
}

/// During `--wait-all`, the first terminating signal stops the leftovers and the second kills them.
#[test]
fn signals_during_wait_all() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let leaves = ["--wait-all", "-k", "1d", "--", "sh", "-c", LEAVES_ONE];
        let mut command = run(&mechanism, &leaves);
        // CMD has been reaped when it is not listed any more.
        command.stdout(Stdio::null());
        let mut onejob = recorders.below(command.marked(&scratch)).spawn().unwrap();
        let pid = recorders.ready(1)[0];
        eventually("CMD has ended", || scratch.marked().len() == 2);
        // A signal that arrives before onejob has noticed CMD's exit is forwarded to CMD. The next
        // one must not arrive while an earlier one has started a slow stop: it would kill.
        eventually("the first signal stops", || {
            kill(onejob.id(), libc::SIGINT);
            let deadline = Instant::now() + Duration::from_secs(5);
            let asked = || recorders.got(pid).contains(&libc::SIGTERM);
            while !asked() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            asked()
        });
        kill(onejob.id(), libc::SIGTERM);
        assert_eq!(wait(&mut onejob).code(), Some(3), "{mechanism}");
        scratch.marked_are_gone();
    }
}

/// `--keep` lets the leftovers run on.
#[test]
fn keep() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let mut command = run(&mechanism, &["--keep", "--", "sh", "-c", LEAVES_ONE]);
        let mut onejob = recorders.below(command.marked(&scratch)).spawn().unwrap();
        assert_eq!(wait(&mut onejob).code(), Some(3), "{mechanism}");
        let pid = recorders.ready(1)[0];
        assert!(lives(pid), "{mechanism}");
        assert_eq!(recorders.got(pid), [] as [i32; 0]);
        recorders.end();
        scratch.marked_are_gone();
    }
}

/// When onejob is killed, the whole tree ends.
#[test]
fn killed_owner() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let tree = "setsid sleep 1000 & echo $! >ready; exec sleep 1000";
        let mut command = run(&mechanism, &["--", "sh", "-c", tree]);
        let mut onejob = command.current_dir(scratch.path()).marked(&scratch).spawn().unwrap();
        line(&scratch.file("ready"));
        kill(onejob.id(), libc::SIGKILL);
        wait(&mut onejob);
        scratch.marked_are_gone();
    }
}

/// A waiting run has one thread and no wake-ups.
#[test]
fn waiting_needs_one_thread_and_no_wakeups() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let mut command = run(&mechanism, &["-t", "1d", "--", &recorder()]);
        let mut onejob = recorders.below(command.marked(&scratch)).spawn().unwrap();
        recorders.ready(1);
        let pid = onejob.id();
        eventually("a sleeping process", || common::state(pid) == Some('S'));
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
        assert_eq!(threads, 1, "{mechanism}");
        thread::sleep(Duration::from_millis(200));
        let before = sleeps(pid);
        thread::sleep(Duration::from_secs(2));
        assert_eq!(sleeps(pid), before, "{mechanism}");
        recorders.end();
        assert!(wait(&mut onejob).success());
    }
}
