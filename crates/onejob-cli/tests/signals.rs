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
    Marked as _, ONEJOB, Scratch,
    actor::{Actors, actor},
    eventually, kill, line, lives, mechanisms, outcome, run, text, wait, with_signals,
};

/// The last signal of a test: whatever came twice came before it.
const FENCE: i32 = 64;

#[test]
fn a_signal_from_a_process_reaches_cmd_exactly_once() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let mut onejob =
            actors.below(run(&mechanism, &["--", &actor()]).marked(&scratch)).spawn().unwrap();
        let pid = actors.ready(1)[0];
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
            actors.gets(pid, signal, 1);
        }
        assert_eq!(actors.got(pid), signals, "{mechanism}");
        actors.end();
        assert!(wait(&mut onejob).success());
    }
}

#[test]
fn every_real_time_signal_of_a_burst_is_passed_on() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let mut onejob =
            actors.below(run(&mechanism, &["--", &actor()]).marked(&scratch)).spawn().unwrap();
        let pid = actors.ready(1)[0];
        (0..100).for_each(|_| kill(onejob.id(), 40));
        actors.gets(pid, 40, 100);
        kill(onejob.id(), FENCE);
        actors.gets(pid, FENCE, 1);
        assert_eq!(actors.got(pid).len(), 101, "{mechanism}");
        actors.end();
        assert!(wait(&mut onejob).success());
    }
}

#[test]
fn a_signal_that_ends_cmd_ends_us_with_the_whole_tree() {
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

#[test]
fn a_member_that_signals_its_own_group_is_not_echoed() {
    for mechanism in mechanisms() {
        let cmd_itself = ["--", "sh", "-c", "exec \"$ACTOR\""];
        let grandchild = ["--", "sh", "-c", "\"$ACTOR\" & ONEJOB_ACTS= exec \"$ACTOR\""];
        for (count, cmd) in [(1, cmd_itself), (2, grandchild)] {
            let scratch = Scratch::new();
            let actors = Actors::new(&scratch);
            let mut command = run(&mechanism, &cmd);
            command.env("ONEJOB_ACTS", "kill 0").process_group(0);
            let mut onejob = actors.below(command.marked(&scratch)).spawn().unwrap();
            let pids = actors.ready(count);
            actors.go();
            pids.iter().for_each(|pid| actors.gets(*pid, libc::SIGTERM, 1));
            kill(onejob.id(), FENCE);
            let got = || pids.iter().flat_map(|pid| actors.got(*pid)).collect::<Vec<_>>();
            eventually("CMD gets the last signal", || got().contains(&FENCE));
            assert_eq!(got().len(), count + 1, "{mechanism}: {:?}", got());
            actors.end();
            assert!(wait(&mut onejob).success());
        }
    }
}

#[test]
fn kill_9_0_leaves_nothing_behind() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let tree = "setsid sleep 1000 & sleep 1000 & kill -9 0";
        let mut command = run(&mechanism, &["--", "sh", "-c", tree]);
        let mut onejob = command.process_group(0).marked(&scratch).spawn().unwrap();
        assert_eq!(wait(&mut onejob).signal(), Some(libc::SIGKILL), "{mechanism}");
        scratch.marked_are_gone();
    }
}

#[test]
fn an_alarm_that_was_set_for_cmd_reaches_it() {
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

/// What a program sees of its signal settings when it is started like this.
fn settings(
    mut command: Command,
    blocked: &'static [i32],
    ignored: &'static [i32],
) -> (String, String) {
    with_signals(&mut command, blocked, ignored);
    let output = outcome(&mut command);
    // A C library keeps signals 32 and 33 to itself, and ignores them at will in what it spawns.
    let without_its_own = |line: &str| {
        let (name, set) = line.split_once('\t')?;
        let set = u64::from_str_radix(set, 16).ok()? & !(0b11 << 31);
        Some(format!("{name} {set:016x}\n"))
    };
    let settings = text(&output.stdout).lines().filter_map(without_its_own).collect();
    (settings, text(&output.stderr))
}

#[test]
fn blocked_and_ignored_signals_are_passed_on_as_they_were() {
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

#[test]
fn an_ignored_sigchld_does_not_lose_the_status() {
    for mechanism in mechanisms() {
        let mut command = run(&mechanism, &["--", "sh", "-c", "exit 7"]);
        with_signals(&mut command, &[], &[libc::SIGCHLD]);
        let output = outcome(&mut command);
        assert_eq!(output.status.code(), Some(7), "{mechanism} {}", text(&output.stderr));
    }
}

#[test]
fn a_closed_pipe_ends_cmd_and_us_without_a_word() {
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

/// A leftover that shrugs off every signal it can, and is ready to.
const LEAVES_ONE: &str =
    "\"$ACTOR\" & until test -s \"$ONEJOB_ACTOR/$!\"; do sleep .01; done; exit 3";

#[test]
fn a_further_signal_while_the_rest_is_stopped_is_the_last_rung() {
    for mechanism in mechanisms() {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
            let scratch = Scratch::new();
            let actors = Actors::new(&scratch);
            let mut command = run(&mechanism, &["-k", "1d", "--", "sh", "-c", LEAVES_ONE]);
            let mut onejob = actors.below(command.marked(&scratch)).spawn().unwrap();
            let pid = actors.ready(1)[0];
            actors.gets(pid, libc::SIGTERM, 1);
            kill(onejob.id(), signal);
            assert_eq!(wait(&mut onejob).code(), Some(3), "{mechanism}");
            scratch.marked_are_gone();
        }
    }
}

#[test]
fn a_signal_while_the_time_limit_is_enforced_is_the_last_rung() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let mut command = run(&mechanism, &["-t", "1", "-k", "1d", "-s", "USR1", "--", &actor()]);
        let mut onejob = actors.below(command.marked(&scratch)).spawn().unwrap();
        actors.gets(actors.ready(1)[0], libc::SIGUSR1, 1);
        kill(onejob.id(), libc::SIGINT);
        assert_eq!(wait(&mut onejob).code(), Some(124), "{mechanism}");
        scratch.marked_are_gone();
    }
}

#[test]
fn nohup_means_that_a_hangup_does_not_hurry_us() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let mut command = run(&mechanism, &["-k", "1d", "--", "sh", "-c", LEAVES_ONE]);
        with_signals(&mut command, &[], &[libc::SIGHUP]);
        let mut onejob = actors.below(command.marked(&scratch)).spawn().unwrap();
        let pid = actors.ready(1)[0];
        actors.gets(pid, libc::SIGTERM, 1);
        kill(onejob.id(), libc::SIGHUP);
        // Both are read in the order of their numbers: the hangup has been looked at by then.
        thread::sleep(Duration::from_millis(100));
        assert!(lives(onejob.id()) && lives(pid), "{mechanism}");
        actors.end();
        assert_eq!(wait(&mut onejob).code(), Some(3), "{mechanism}");
    }
}

#[test]
fn wait_all_waits_for_the_last_one() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let mut command = run(&mechanism, &["--wait-all", "--", "sh", "-c", LEAVES_ONE]);
        let mut onejob = actors.below(command.marked(&scratch)).spawn().unwrap();
        let pid = actors.ready(1)[0];
        thread::sleep(Duration::from_millis(100));
        assert!(lives(onejob.id()), "{mechanism}");
        assert_eq!(actors.got(pid), [] as [i32; 0], "nobody asked it to end");
        actors.end();
        assert_eq!(wait(&mut onejob).code(), Some(3), "{mechanism}");
        assert!(!lives(pid));
    }
}

#[test]
fn a_signal_while_waiting_for_all_stops_them_and_another_kills_them() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let leaves = ["--wait-all", "-k", "1d", "--", "sh", "-c", LEAVES_ONE];
        let mut command = run(&mechanism, &leaves);
        // CMD's end is known when it is nobody's any more.
        command.stdout(Stdio::null());
        let mut onejob = actors.below(command.marked(&scratch)).spawn().unwrap();
        let pid = actors.ready(1)[0];
        eventually("CMD has ended", || scratch.marked().len() == 2);
        // One that comes before onejob has seen CMD's end is CMD's. The next must not come while the
        // stop by an earlier one is only slow: it would kill.
        eventually("the first signal stops", || {
            kill(onejob.id(), libc::SIGINT);
            let patience = Instant::now() + Duration::from_secs(5);
            let asked = || actors.got(pid).contains(&libc::SIGTERM);
            while !asked() && Instant::now() < patience {
                thread::sleep(Duration::from_millis(5));
            }
            asked()
        });
        kill(onejob.id(), libc::SIGTERM);
        assert_eq!(wait(&mut onejob).code(), Some(3), "{mechanism}");
        scratch.marked_are_gone();
    }
}

#[test]
fn keep_leaves_running_what_cmd_left() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let mut command = run(&mechanism, &["--keep", "--", "sh", "-c", LEAVES_ONE]);
        let mut onejob = actors.below(command.marked(&scratch)).spawn().unwrap();
        assert_eq!(wait(&mut onejob).code(), Some(3), "{mechanism}");
        let pid = actors.ready(1)[0];
        assert!(lives(pid), "{mechanism}");
        assert_eq!(actors.got(pid), [] as [i32; 0]);
        actors.end();
        scratch.marked_are_gone();
    }
}

#[test]
fn the_owner_killed_takes_the_tree_along() {
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

#[test]
fn waiting_wakes_nobody_and_needs_one_thread() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let mut command = run(&mechanism, &["-t", "1d", "--", &actor()]);
        let mut onejob = actors.below(command.marked(&scratch)).spawn().unwrap();
        actors.ready(1);
        let pid = onejob.id();
        eventually("it sleeps", || common::state(pid) == Some('S'));
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
        assert_eq!(threads, 1, "{mechanism}");
        let switches = || {
            let status = common::read(format!("/proc/{pid}/status"));
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt"));
            line.unwrap_or_default().to_owned()
        };
        thread::sleep(Duration::from_millis(200));
        let before = switches();
        thread::sleep(Duration::from_secs(2));
        assert_eq!(switches(), before, "{mechanism}");
        actors.end();
        assert!(wait(&mut onejob).success());
    }
}
