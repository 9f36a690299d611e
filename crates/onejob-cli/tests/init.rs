//! `onejob init`, and its stand-ins for tini and dumb-init beside the originals: as PID 1 of a PID
//! namespace, and below another init.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use common::{
    Marked as _, ONEJOB, Scratch,
    actor::{Actors, actor},
    eventually,
    inits::{Container, Program, can_contain, children, original},
    kill, line, lives, mechanisms, outcome,
    pty::Pty,
    read, skip, state, text, wait,
};

/// The last signal of a test: whatever came twice came before it.
const FENCE: i32 = 64;

macro_rules! needs_containers {
    () => {
        if !can_contain() {
            skip!("no PID namespace can be made here (unshare)");
        }
    };
}

/// Leaves the test for good if an original is missing that it was to be compared with.
macro_rules! needs_originals {
    ($($name:literal),+) => {
        for name in [$($name),+] {
            if original(name).is_none() {
                skip!("{name} is not installed: ours was not compared with it");
            }
        }
    };
}

/// Every init, with the options that make it pass signals on to CMD alone.
fn inits(scratch: &Scratch) -> Vec<Program> {
    let mut all = vec![Program::init(&[])];
    all.extend(Program::both(scratch, "tini", &["-s", "--"]));
    all.extend(Program::both(scratch, "dumb-init", &["-c", "--"]));
    all
}

/// Every init, with the options that make it pass signals on to CMD's group.
fn group_inits(scratch: &Scratch) -> Vec<Program> {
    let mut all = vec![Program::init(&["-g"]), Program::init(&["--setsid"])];
    all.extend(Program::both(scratch, "tini", &["-s", "-g", "--"]));
    all.extend(Program::both(scratch, "dumb-init", &["--"]));
    all
}

const FORWARDED: [i32; 15] = [
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
    libc::SIGXCPU,
    libc::SIGPROF,
    libc::SIGVTALRM,
];

#[test]
fn pid_1_passes_every_signal_on_to_cmd_once() {
    needs_containers!();
    let scratch = Scratch::new();
    for (index, init) in inits(&scratch).into_iter().enumerate() {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let mut command = init.contained(&[&actor()]);
        let mut container = Container::start(actors.below(&mut command));
        let pid = actors.ready(1)[0];
        let mut signals = FORWARDED.to_vec();
        // dumb-init knows no real-time signals.
        if init.name != "dumb-init" || !init.is_original {
            signals.extend([34, 50, FENCE]);
        }
        for signal in &signals {
            kill(container.first, *signal);
            actors.gets(pid, *signal, 1);
        }
        assert_eq!(actors.got(pid), signals, "{index} {init:?}");
        actors.end();
        assert_eq!(container.wait().code(), Some(0), "{init:?}");
    }
    needs_originals!("tini", "dumb-init");
}

#[test]
fn with_a_group_its_other_members_get_the_signal_too_and_without_they_do_not() {
    needs_containers!();
    let outer = Scratch::new();
    let all = inits(&outer).into_iter().map(|init| (init, false));
    for (init, to_group) in all.chain(group_inits(&outer).into_iter().map(|init| (init, true))) {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        // The shell's number is that of its group; the second one is in it.
        let tree = "\"$ACTOR\" & echo $! >second; exec \"$ACTOR\"";
        let mut command = init.contained(&["sh", "-c", tree]);
        command.current_dir(scratch.path());
        let mut container = Container::start(actors.below(&mut command));
        let pids = actors.ready(2);
        let second: u32 = line(&scratch.file("second")).parse().unwrap();
        let cmd = pids.iter().copied().find(|pid| *pid != second).unwrap();
        kill(container.first, libc::SIGUSR1);
        actors.gets(cmd, libc::SIGUSR1, 1);
        if to_group {
            actors.gets(second, libc::SIGUSR1, 1);
        }
        kill(container.first, libc::SIGUSR2);
        actors.gets(cmd, libc::SIGUSR2, 1);
        let expected = if to_group { vec![libc::SIGUSR1, libc::SIGUSR2] } else { vec![] };
        eventually("both signals have come", || actors.got(second).len() >= expected.len());
        assert_eq!(actors.got(second), expected, "{init:?}");
        actors.end();
        assert_eq!(container.wait().code(), Some(0), "{init:?}");
    }
    needs_originals!("tini", "dumb-init");
}

#[test]
fn signals_are_rewritten_and_left_out_as_told() {
    needs_containers!();
    let outer = Scratch::new();
    let options = ["-r", "15:3", "--rewrite", "1:0", "-r10:12"];
    let mut all = vec![Program::init(&options)];
    let dumb_init = Program::both(&outer, "dumb-init", &["--"]);
    all.extend(dumb_init.into_iter().map(|init| init.with(&options)));
    for init in all {
        let scratch = Scratch::new();
        let actors = Actors::new(&scratch);
        let mut command = init.contained(&[&actor()]);
        let mut container = Container::start(actors.below(&mut command));
        let pid = actors.ready(1)[0];
        for (sent, gets) in [
            (libc::SIGHUP, None),
            (libc::SIGTERM, Some(libc::SIGQUIT)),
            (libc::SIGUSR1, Some(libc::SIGUSR2)),
            (libc::SIGINT, Some(libc::SIGINT)),
        ] {
            kill(container.first, sent);
            if let Some(signal) = gets {
                actors.gets(pid, signal, 1);
            }
        }
        let expected = [libc::SIGQUIT, libc::SIGUSR2, libc::SIGINT];
        assert_eq!(actors.got(pid), expected, "{init:?}");
        actors.end();
        assert_eq!(container.wait().code(), Some(0), "{init:?}");
    }
    needs_originals!("dumb-init");
}

/// Zombies that are children of this process.
fn zombies(parent: u32) -> usize {
    children(parent).into_iter().filter(|pid| state(*pid) == Some('Z')).count()
}

/// What an init holds: memory in KiB and descriptors.
fn held(pid: u32) -> (u64, usize) {
    let status = read(format!("/proc/{pid}/status"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let memory = line.split_whitespace().next().and_then(|number| number.parse().ok());
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    (memory.unwrap_or(0), descriptors)
}

/// Leaves many orphans, and says so when there have been `early` and when there have been all.
fn orphans(early: u32, all: u32) -> String {
    format!(
        "i=0; while [ $i -lt {all} ]; do (true &); i=$((i+1)); \
         if [ $i = {early} ]; then echo >early; while ! [ -e go ]; do sleep .01; done; fi; done; \
         echo >all; while ! [ -e end ]; do sleep .01; done; exit 5"
    )
}

#[test]
fn ten_thousand_orphans_are_reaped_while_cmd_runs_and_nothing_grows() {
    needs_containers!();
    let scratch = Scratch::new();
    let mut command = Program::init(&[]).contained(&["sh", "-c", &orphans(500, 10_000)]);
    let mut container = Container::start(command.current_dir(scratch.path()));
    let reaped = |what: &str| {
        line_in(&scratch, what);
        eventually("every orphan is reaped", || zombies(container.first) == 0);
    };
    reaped("early");
    let before = held(container.first);
    fs::write(scratch.file("go"), "").unwrap();
    reaped("all");
    let after = held(container.first);
    assert_eq!(after.1, before.1, "descriptors");
    assert!(after.0 <= before.0 + 64, "{} KiB, and {} before", after.0, before.0);
    fs::write(scratch.file("end"), "").unwrap();
    assert_eq!(container.wait().code(), Some(5));
}

fn line_in(scratch: &Scratch, name: &str) {
    eventually(&format!("there is {name}"), || scratch.file(name).exists());
}

#[test]
fn below_another_init_orphans_are_reaped_too() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut command = common::onejob(&["init", "--mechanism", &mechanism, "--", "sh", "-c"]);
        command.arg(orphans(1, 300)).current_dir(scratch.path()).marked(&scratch);
        fs::write(scratch.file("go"), "").unwrap();
        let mut onejob = command.spawn().unwrap();
        line_in(&scratch, "all");
        // Whose children they are depends on the mechanism.
        let left = || {
            let family: Vec<u32> = children(onejob.id()).into_iter().chain([onejob.id()]).collect();
            family.into_iter().map(zombies).sum::<usize>()
        };
        eventually("every orphan is reaped", || left() == 0);
        fs::write(scratch.file("end"), "").unwrap();
        assert_eq!(wait(&mut onejob).code(), Some(5), "{mechanism}");
    }
}

#[test]
fn what_cmd_leaves_behind_is_asked_and_then_killed() {
    needs_containers!();
    let outer = Scratch::new();
    let ours = [
        Program::init(&["-k", "1"]),
        Program::both(&outer, "tini", &["-s", "--"]).remove(0),
        Program::both(&outer, "dumb-init", &["--"]).remove(0),
    ];
    for init in ours {
        for contained in [true, false] {
            let scratch = Scratch::new();
            let actors = Actors::new(&scratch);
            // A daemon: forked twice, in a session of its own.
            let tree = "(setsid \"$ACTOR\" &); until [ -e go ]; do sleep .01; done; exit 3";
            let cmd = ["sh", "-c", tree];
            let mut command = if contained { init.contained(&cmd) } else { init.command(&cmd) };
            command.current_dir(scratch.path()).marked(&scratch);
            let mut process = actors.below(&mut command).spawn().unwrap();
            let pid = actors.ready(1)[0];
            fs::write(scratch.file("go"), "").unwrap();
            assert_eq!(wait(&mut process).code(), Some(3), "{init:?} contained: {contained}");
            assert_eq!(actors.got(pid), [libc::SIGTERM, libc::SIGCONT], "it was asked");
            scratch.marked_are_gone();
        }
    }
}

#[test]
fn a_cmd_that_ignores_term_is_killed_if_a_time_was_given_and_else_left_alone() {
    needs_containers!();
    let deaf = "trap '' TERM; echo >ready; while :; do sleep .05; done";
    for contained in [true, false] {
        let scratch = Scratch::new();
        let limited = Program::init(&["-k", ".3"]);
        let cmd = ["sh", "-c", deaf];
        let mut command = if contained { limited.contained(&cmd) } else { limited.command(&cmd) };
        command.current_dir(scratch.path()).marked(&scratch);
        if contained {
            let mut container = Container::start(&mut command);
            line_in(&scratch, "ready");
            kill(container.first, libc::SIGTERM);
            assert_eq!(container.wait().code(), Some(137));
        } else {
            let mut onejob = command.spawn().unwrap();
            line_in(&scratch, "ready");
            kill(onejob.id(), libc::SIGTERM);
            assert_eq!(wait(&mut onejob).signal(), Some(libc::SIGKILL));
        }
        scratch.marked_are_gone();
    }
    let scratch = Scratch::new();
    let mut command = Program::init(&[]).contained(&["sh", "-c", deaf]);
    let container = Container::start(command.current_dir(scratch.path()).marked(&scratch));
    line_in(&scratch, "ready");
    kill(container.first, libc::SIGTERM);
    thread::sleep(Duration::from_millis(500));
    assert!(lives(container.first), "nobody has said how long it may take");
}

#[test]
fn the_status_is_cmds_and_128_and_the_signal() {
    needs_containers!();
    let outer = Scratch::new();
    for init in inits(&outer).into_iter().chain(group_inits(&outer)) {
        for code in [0, 1, 7, 125, 126, 127, 255] {
            let exit = format!("exit {code}");
            let output = outcome(&mut init.contained(&["sh", "-c", &exit]));
            assert_eq!(output.status.code(), Some(code), "{init:?}");
            assert_eq!(text(&output.stderr), "", "{init:?}");
        }
        for signal in [1, 2, 6, 9, 15, 40] {
            let end = format!("kill -{signal} $$");
            let output = outcome(&mut init.contained(&["bash", "-c", &end]));
            assert_eq!(output.status.code(), Some(128 + signal), "{init:?}");
        }
    }
    // Below another init, ours ends as CMD did; the stand-ins as the originals do.
    for init in inits(&outer) {
        let status = outcome(&mut init.command(&["sh", "-c", "kill $$"])).status;
        match init.name {
            "init" => assert_eq!(status.signal(), Some(libc::SIGTERM)),
            _ => assert_eq!(status.code(), Some(143), "{init:?}"),
        }
    }
    needs_originals!("tini", "dumb-init");
}

#[test]
fn chosen_statuses_become_a_success() {
    needs_containers!();
    let outer = Scratch::new();
    let mut all = vec![Program::init(&["-e", "143", "-e", "7"])];
    all.extend(Program::both(&outer, "tini", &["-s", "-e", "143", "-e", "7", "--"]));
    for init in all {
        for (line, code) in [("kill $$", 0), ("exit 7", 0), ("exit 8", 8), ("kill -9 $$", 137)] {
            let output = outcome(&mut init.contained(&["sh", "-c", line]));
            assert_eq!(output.status.code(), Some(code), "{init:?} {line}");
        }
    }
    needs_originals!("tini");
}

#[test]
fn a_missing_program_and_one_that_cannot_be_executed_have_their_statuses() {
    needs_containers!();
    for contained in [true, false] {
        for (program, code) in [("no-such-program", 127), ("/etc/passwd", 126), ("/", 126)] {
            let init = Program::init(&[]);
            let mut command =
                if contained { init.contained(&[program]) } else { init.command(&[program]) };
            command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
            let output = outcome(&mut command);
            assert_eq!(output.status.code(), Some(code), "{program}: {}", text(&output.stderr));
            assert!(text(&output.stderr).starts_with("onejob: failed to execute"));
            assert_eq!(text(&output.stdout), "");
        }
    }
}

/// The process group and the session of CMD, by its own numbers and those of the init.
fn places(init: &Program) -> (bool, bool) {
    let output = outcome(&mut init.contained(&["cat", "/proc/self/stat"]));
    let stat = text(&output.stdout);
    let (head, fields) = stat.rsplit_once(") ").unwrap();
    let pid = head.split(' ').next();
    let fields: Vec<_> = fields.split(' ').collect();
    (Some(fields[2]) == pid, Some(fields[3]) == pid)
}

#[test]
fn cmd_leads_a_group_or_a_session_as_with_the_originals() {
    needs_containers!();
    let outer = Scratch::new();
    let mut all = vec![(Program::init(&[]), (true, false))];
    all.push((Program::init(&["--setsid"]), (true, true)));
    let tini = Program::both(&outer, "tini", &["--"]).into_iter();
    all.extend(tini.map(|init| (init, (true, false))));
    let dumb_init = Program::both(&outer, "dumb-init", &["--"]).into_iter();
    all.extend(dumb_init.map(|init| (init, (true, true))));
    let single = Program::both(&outer, "dumb-init", &["-c", "--"]).into_iter();
    all.extend(single.map(|init| (init, (false, false))));
    for (init, expected) in all {
        assert_eq!(places(&init), expected, "{init:?}");
    }
    needs_originals!("tini", "dumb-init");
}

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

#[test]
fn a_shell_in_a_container_has_the_terminal_and_job_control() {
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

#[test]
fn a_shell_in_a_pid_namespace_made_from_a_terminal_has_it_and_job_control() {
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

#[test]
fn below_a_shell_the_terminal_comes_back_and_none_is_taken_away() {
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
            // In the background it takes nothing.
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

#[test]
fn a_stop_signal_stops_cmd_and_us_and_both_go_on() {
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
                eventually("it is stopped", || state(pid) == Some('T'));
            }
            kill(process.id(), libc::SIGCONT);
            for pid in [cmd, process.id()] {
                eventually("it goes on", || state(pid) == Some('S'));
            }
            kill(process.id(), libc::SIGTERM);
            wait(&mut process);
            scratch.marked_are_gone();
        }
    }
    needs_originals!("dumb-init");
}

#[test]
fn an_init_that_is_killed_takes_everything_along() {
    let outer = Scratch::new();
    let tree = "setsid sleep 1000 & echo >ready; exec sleep 1000";
    let mut all: Vec<_> = mechanisms()
        .into_iter()
        .map(|mechanism| {
            let mechanism: &'static str = mechanism.leak();
            Program::init(&["--mechanism", mechanism])
        })
        .collect();
    all.push(Program::both(&outer, "tini", &["-s", "--"]).remove(0));
    all.push(Program::both(&outer, "dumb-init", &["--"]).remove(0));
    for init in all {
        let scratch = Scratch::new();
        let mut command = init.command(&["sh", "-c", tree]);
        let mut process = command.current_dir(scratch.path()).marked(&scratch).spawn().unwrap();
        line_in(&scratch, "ready");
        kill(process.id(), libc::SIGKILL);
        wait(&mut process);
        scratch.marked_are_gone();
    }
}

#[test]
fn a_pid_1_that_is_killed_takes_everything_along() {
    needs_containers!();
    let scratch = Scratch::new();
    let tree = "setsid sleep 1000 & echo >ready; exec sleep 1000";
    let mut command = Program::init(&[]).contained(&["sh", "-c", tree]);
    let mut container = Container::start(command.current_dir(scratch.path()).marked(&scratch));
    line_in(&scratch, "ready");
    kill(container.first, libc::SIGKILL);
    assert!(!container.wait().success());
    scratch.marked_are_gone();
}

#[test]
fn pid_1_needs_no_proc_of_its_own_if_it_may_mount_one_and_may_have_had_children() {
    if !common::is_root() {
        skip!("only root may make a PID namespace without a user namespace");
    }
    let scratch = Scratch::new();
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--", ONEJOB, "init", "-k", ".2", "--"]);
    let leaves = "setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' & sleep .2; exit 4";
    let output = outcome(unshare.args(["sh", "-c", leaves]).marked(&scratch));
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    scratch.marked_are_gone();

    let script = format!("sleep 1000 & exec {ONEJOB} init -- sh -c 'exit 6'");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c", &script]);
    let output = outcome(command.marked(&scratch));
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    scratch.marked_are_gone();
}

#[test]
fn it_warns_if_asked_that_it_is_not_pid_1() {
    needs_containers!();
    let init = Program::init(&["-w"]);
    let below = outcome(&mut init.command(&["true"]));
    assert!(text(&below.stderr).starts_with("onejob: not running as PID 1"));
    assert!(below.status.success());
    let first = outcome(&mut init.contained(&["true"]));
    assert_eq!(text(&first.stderr), "");
    assert!(first.status.success());
}

#[test]
fn cmd_finds_everything_as_if_there_were_no_init() {
    needs_containers!();
    let script = "grep -E '^(Sig(Blk|Ign)|Uid|Gid|Groups|Cap)' /proc/self/status; umask; pwd; \
                  ulimit -a; ls /proc/self/fd; env | sort | grep -v ^_=; echo $PPID";
    let mut plain = Command::new("bash");
    plain.args(["-c", script]).current_dir("/usr");
    common::with_signals(&mut plain, &[], &[]);
    let mut ours = Program::init(&[]).command(&["bash", "-c", script]);
    let lines = |command: &mut Command| {
        let output = outcome(command.stderr(Stdio::inherit()));
        let mut lines: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
        // The parent.
        lines.pop();
        lines
    };
    let expected = lines(&mut plain);
    assert!(expected.len() > 10, "{expected:?}");
    assert_eq!(lines(ours.current_dir("/usr")), expected);
}
