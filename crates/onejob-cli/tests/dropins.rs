//! Called tini, dumb-init or timeout: the same table for the originals, where they are installed,
//! and for us.
#![cfg(target_os = "linux")]

mod common;

use std::{
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{
    Marked as _, Scratch,
    actor::Actors,
    eventually,
    inits::{original, stand_in},
    kill, line, lives, outcome,
    pty::Pty,
    skip, state, text, wait, with_signals,
};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    With(i32),
    By(i32),
}

impl From<ExitStatus> for Ends {
    fn from(status: ExitStatus) -> Ends {
        match status.signal() {
            Some(signal) => Ends::By(signal),
            None => Ends::With(status.code().unwrap()),
        }
    }
}

use Ends::{By, With};

/// Variables, the command line, how it ends, and how each line on stderr begins (none: nothing is
/// said; `?` in front: whatever it says, it is to be something).
struct Case(&'static str, &'static str, Ends, &'static str);

/// Runs one line of a table.
fn play(program: &Path, case: &Case) -> Output {
    let mut command = Command::new("bash");
    let name = program.file_name().unwrap().to_str().unwrap();
    // The words of a table are a shell's; "exec" leaves the status to be the program's own.
    command.args(["-c", &format!("exec -a {name} \"$PROGRAM\" {}", case.1)]);
    command.env("PROGRAM", program);
    command.envs(case.0.split_whitespace().filter_map(|word| word.split_once('=')));
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir("/");
    with_signals(&mut command, &[], &[]);
    outcome(&mut command)
}

#[track_caller]
fn check(program: &Path, case: &Case, output: &Output) {
    let (Case(vars, line, ends, says), stderr) = (case, text(&output.stderr));
    let what = format!("{program:?}: {vars} {line}: {stderr}");
    assert_eq!(Ends::from(output.status), *ends, "{what}");
    let says = says.strip_prefix('?').unwrap_or(says);
    assert_eq!(stderr.is_empty(), says.is_empty() && !case.3.starts_with('?'), "{what}");
    // Its own number is in it.
    assert!(stderr.lines().all(|line| line.starts_with(says)) || case.3.starts_with('?'), "{what}");
}

/// Whether each line holds for us, and for the original but for those that it is too old for.
fn holds(name: &str, table: &[Case], is_too_old: impl Fn(&Case, &Output) -> bool) {
    let scratch = Scratch::new();
    let ours = stand_in(&scratch, name);
    let theirs = original(name);
    for case in table {
        let output = play(&ours, case);
        check(&ours, case, &output);
        let Some(theirs) = &theirs else { continue };
        let facts = play(theirs, case);
        if is_too_old(case, &facts) {
            eprintln!("the original is too old for {}", case.1);
            continue;
        }
        check(theirs, case, &facts);
        // Help and versions are of the form, but in our own words.
        if !["-h", "--help", "--version", "-V", "-l"].contains(&case.1) {
            assert_eq!(text(&output.stdout), text(&facts.stdout), "{name} {}", case.1);
        }
        assert_eq!(output.stdout.is_empty(), facts.stdout.is_empty(), "{name} {}", case.1);
    }
    if theirs.is_none() {
        skip!("{name} is not installed: ours was not compared with it");
    }
}

const TIMEOUT: &[Case] = &[
    Case("", "10 sh -c 'echo out; exit 3'", With(3), ""),
    Case("", "10 true", With(0), ""),
    Case("", "0 sh -c 'sleep .2; exit 3'", With(3), ""),
    Case("", "inf true", With(0), ""),
    Case("", "99999999999999999999d true", With(0), ""),
    Case("", "' 1' true", With(0), ""),
    Case("", "0x10 true", With(0), ""),
    Case("", "1d true", With(0), ""),
    Case("", "-- 10 sh -c 'exit 4'", With(4), ""),
    Case("", "10 sh -c 'kill $$'", By(15), ""),
    Case("", "10 sh -c 'kill -9 $$'", By(9), ""),
    Case("", ".2 sleep 1000", With(124), ""),
    Case("", "0.2s sleep 1000", With(124), ""),
    Case("", ".004m sleep 1000", With(124), ""),
    Case("", "2e-1 sleep 1000", With(124), ""),
    Case("", "1e-30 sleep 1000", With(124), ""),
    Case("", ".2 sh -c 'kill -STOP $$'", With(124), ""),
    Case("", "-s INT .2 sleep 1000", With(124), ""),
    Case("", "-s2 .2 sleep 1000", With(124), ""),
    Case("", "--signal=SIGHUP .2 sleep 1000", With(124), ""),
    Case("", "--sig usr1 .2 sleep 1000", With(124), ""),
    Case("", "-s KILL .2 sleep 1000", By(9), ""),
    Case("", "--foreground -s KILL .2 sleep 1000", With(137), ""),
    Case("", "--preserve-status -s KILL .2 sleep 1000", By(9), ""),
    Case("", "-k .2 .2 sh -c 'trap \"\" TERM; while :; do sleep .1; done'", By(9), ""),
    Case(
        "",
        "--kill-after=.2 --foreground .2 sh -c 'trap \"\" TERM; while :; do sleep .1; done'",
        With(137),
        "",
    ),
    Case("", "-k 10 .2 sleep 1000", With(124), ""),
    Case("", "-k 0 .2 sleep 1000", With(124), ""),
    Case(
        "",
        ".2 sh -c 'exec 2>/dev/null; trap \"exit 5\" TERM; while :; do sleep .05; done'",
        With(124),
        "",
    ),
    Case(
        "",
        "--preserve-status .2 sh -c 'exec 2>/dev/null; trap \"exit 5\" TERM; while :; do sleep .05; done'",
        With(5),
        "",
    ),
    Case("", "--preserve-status .2 sleep 1000", With(143), ""),
    Case("", "--pres .2 sleep 1000", With(143), ""),
    Case("", "--foreground .2 sleep 1000", With(124), ""),
    Case("", "--fore .2 sleep 1000", With(124), ""),
    Case("", "-v .2 sleep 1000", With(124), "timeout: sending signal TERM to command "),
    Case(
        "",
        "--verbose -s INT .2 sleep 1000",
        With(124),
        "timeout: sending signal INT to command ",
    ),
    Case("", "-p .2 sleep 1000", With(143), ""),
    Case("", "-f .2 sleep 1000", With(124), ""),
    Case("", "-fp .2 sleep 1000", With(143), ""),
    Case("", "", With(125), "?"),
    Case("", "10", With(125), "?"),
    Case("", "x true", With(125), "?timeout: invalid time interval"),
    Case("", "10ms true", With(125), "?"),
    Case("", "nan true", With(125), "?"),
    Case("", "1S true", With(125), "?"),
    Case("", "'' true", With(125), "?"),
    Case("", "-k x 1 true", With(125), "?"),
    Case("", "-s FOO 1 true", With(125), "?"),
    Case("", "-s 65 1 true", With(125), "?"),
    Case("", "-x 1 true", With(125), "?timeout: invalid option -- 'x'"),
    Case("", "-1 true", With(125), "?"),
    Case("", "--bogus 1 true", With(125), "?timeout: unrecognized option '--bogus'"),
    Case("", "--foreground=1 1 true", With(125), "?"),
    Case("", "-k", With(125), "?"),
    Case("", "10 no-such-program", With(127), "timeout: fail"),
    Case("", "10 ''", With(127), "timeout: fail"),
    Case("", "10 /etc/passwd", With(126), "timeout: fail"),
    Case("", "10 /", With(126), "timeout: fail"),
    Case("", "10 /etc/passwd/x", With(126), "timeout: fail"),
    Case("", "--help", With(0), ""),
    Case("", "--version", With(0), ""),
];

#[test]
fn timeout_has_the_statuses_and_messages_of_the_original() {
    // -f and -p are younger than some originals, which say that they do not know them.
    holds("timeout", TIMEOUT, |case, facts| {
        ["-f ", "-p ", "-fp "].iter().any(|option| case.1.starts_with(option))
            && text(&facts.stderr).contains("invalid option")
    });
}

const TINI: &[Case] = &[
    Case("", "-s -- sh -c 'echo out; exit 3'", With(3), ""),
    Case("", "-s true", With(0), ""),
    Case("", "-s printf -- '%s,' a -- b", With(0), ""),
    Case("", "-s -- printf '%s,' a -- -v", With(0), ""),
    Case("", "-s -- sh -c 'kill -9 $$'", With(137), ""),
    Case("", "-s -- sh -c 'kill $$'", With(143), ""),
    Case("", "-s -e 143 -- sh -c 'kill $$'", With(0), ""),
    Case("", "-s -e 3 -e143 -- sh -c 'exit 3'", With(0), ""),
    Case("", "-se 3 -- sh -c 'exit 4'", With(4), ""),
    Case("", "-s -p SIGTERM true", With(0), ""),
    Case("TINI_SUBREAPER=1", "true", With(0), ""),
    Case("TINI_SUBREAPER=", "true", With(0), ""),
    Case("TINI_KILL_PROCESS_GROUP=1 TINI_SUBREAPER=1", "true", With(0), ""),
    Case("TINI_VERBOSITY=0", "true", With(0), ""),
    Case("", "-sg true", With(0), ""),
    Case("", "true", With(0), "?[WARN  tini ("),
    Case("", "-s no-such-program", With(127), "[FATAL tini ("),
    Case("", "-s ''", With(127), "[FATAL tini ("),
    Case("", "-s /etc/passwd", With(126), "[FATAL tini ("),
    Case("", "-s /", With(126), "[FATAL tini ("),
    Case("", "-s /etc/passwd/x", With(1), "[FATAL tini ("),
    Case("", "-e 300 true", With(1), "[FATAL tini ("),
    Case("", "-e x true", With(1), "[FATAL tini ("),
    Case("", "-e -1 true", With(1), "[FATAL tini ("),
    Case("", "-p KILL true", With(1), "[FATAL tini ("),
    Case("", "-p 9 true", With(1), "[FATAL tini ("),
    Case("", "-x true", With(1), "?"),
    Case("", "-s --version", With(1), "?"),
    Case("", "-e", With(1), "?"),
    Case("", "", With(1), "?"),
    Case("", "-h", With(0), ""),
    Case("", "--version", With(0), ""),
    Case("", "-l", With(0), ""),
];

#[test]
fn tini_has_the_statuses_and_messages_of_the_original() {
    holds("tini", TINI, |_, _| false);
    holds("tini-static", TINI, |_, _| false);
}

const DUMB_INIT: &[Case] = &[
    Case("", "sh -c 'echo out; exit 3'", With(3), ""),
    Case("", "true", With(0), ""),
    Case("", "-- printf '%s,' a -- -v", With(0), ""),
    Case("", "printf '%s,' a -- -v", With(0), ""),
    Case("", "sh -c 'kill -9 $$'", With(137), ""),
    Case("", "-c sh -c 'kill $$'", With(143), ""),
    Case("", "--single-child sh -c 'exit 4'", With(4), ""),
    Case("", "--single sh -c 'exit 4'", With(4), ""),
    Case("", "-r 15:3 --rewrite 1:0 --rew=2:15 true", With(0), ""),
    Case("DUMB_INIT_SETSID=0", "true", With(0), ""),
    Case("DUMB_INIT_SETSID=1 DUMB_INIT_DEBUG=0", "true", With(0), ""),
    Case("DUMB_INIT_DEBUG=1", "true", With(0), "[dumb-init] "),
    Case("", "-v true", With(0), "[dumb-init] "),
    Case("", "--verbose true", With(0), "[dumb-init] "),
    Case("", "no-such-program", With(2), "[dumb-init] "),
    Case("", "''", With(2), "[dumb-init] "),
    Case("", "/etc/passwd", With(2), "[dumb-init] "),
    Case("", "/", With(2), "[dumb-init] "),
    Case("", "", With(1), "?"),
    Case("", "-x true", With(1), "?"),
    Case("", "--bogus true", With(1), "?"),
    Case("", "-r 15 true", With(1), "?"),
    Case("", "-r 99:1 true", With(1), "?"),
    Case("", "-r 0:1 true", With(1), "?"),
    Case("", "-r 15:99 true", With(1), "?"),
    Case("", "-r TERM:QUIT true", With(1), "?"),
    Case("", "-r", With(1), "?"),
    Case("", "-h", With(0), "?"),
    Case("", "--help", With(0), "?"),
    Case("", "-V", With(0), "?"),
    Case("", "--version", With(0), "?"),
];

#[test]
fn dumb_init_has_the_statuses_and_messages_of_the_original() {
    holds("dumb-init", DUMB_INIT, |_, _| false);
}

/// Ours, and the original if it is there.
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

#[test]
fn timeout_passes_on_a_signal_that_asks_for_an_end_and_kills_after_it_if_told() {
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
        // An alarm is a time-out.
        let mut process =
            timeout(&program, &["1000", "sleep", "1000"]).marked(&scratch).spawn().unwrap();
        eventually("CMD sleeps", || scratch.marked().iter().any(|pid| is_sleep(*pid)));
        is_waiting(&process);
        kill(process.id(), libc::SIGALRM);
        assert_eq!(wait(&mut process).code(), Some(124), "{program:?}");
    }
}

/// CMD can be there before the original knows that it is, and a signal then ends the original alone.
fn is_waiting(process: &Child) {
    eventually("it waits", || {
        // Where in the kernel it sleeps; 0 where that is not told.
        let place = common::read(format!("/proc/{}/wchan", process.id()));
        let is_known = ["sigsuspend", "poll"].iter().any(|name| place.contains(name));
        state(process.id()) == Some('S') && (is_known || ["", "0"].contains(&place.trim()))
    });
}

fn is_sleep(pid: u32) -> bool {
    common::read(format!("/proc/{pid}/comm")) == "sleep\n"
}

#[test]
fn timeout_gives_cmd_each_signal_once_and_its_group_too_unless_in_the_foreground() {
    let outer = Scratch::new();
    for (program, ours) in timeouts(&outer) {
        for foreground in [false, true] {
            let scratch = Scratch::new();
            let actors = Actors::new(&scratch);
            let tree = "\"$ACTOR\" & echo $! >second; exec \"$ACTOR\"";
            let options: &[&str] = if foreground { &["--foreground"] } else { &[] };
            let mut command = timeout(&program, &[options, &["1000", "sh", "-c", tree]].concat());
            command.current_dir(scratch.path()).marked(&scratch);
            let mut process = actors.below(&mut command).spawn().unwrap();
            let pids = actors.ready(2);
            let second: u32 = line(&scratch.file("second")).parse().unwrap();
            let cmd = pids.into_iter().find(|pid| *pid != second).unwrap();
            is_waiting(&process);
            kill(process.id(), libc::SIGHUP);
            actors.gets(cmd, libc::SIGHUP, 1);
            if !foreground {
                actors.gets(second, libc::SIGHUP, 1);
                actors.gets(cmd, libc::SIGCONT, 1);
            }
            // What came twice to CMD came before this.
            kill(cmd, libc::SIGUSR1);
            actors.gets(cmd, libc::SIGUSR1, 1);
            let count = |pid| actors.got(pid).iter().filter(|one| **one == libc::SIGHUP).count();
            assert_eq!(count(second), usize::from(!foreground), "{program:?}");
            // The original may reach CMD twice, by its number and with its group.
            assert!(count(cmd) == 1 || !ours, "{program:?}");
            actors.end();
            assert_eq!(wait(&mut process).code(), Some(0), "{program:?}");
        }
    }
}

#[test]
fn timeout_leaves_background_children_of_a_normal_end_alone() {
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

#[test]
fn our_timeout_takes_the_whole_tree_down_on_a_time_out() {
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
        let actors = Actors::new(&scratch);
        // One that lives in a session of its own, and is deaf.
        let tree = "(setsid \"$ACTOR\" &) ; (setsid sleep 1000 &); exec sleep 1000";
        let args = [options, &["1", "sh", "-c", tree]].concat();
        let mut command = timeout(&program, &args);
        let mut process = actors.below(command.marked(&scratch)).spawn().unwrap();
        assert_eq!(Ends::from(wait(&mut process)), ends, "{options:?}");
        scratch.marked_are_gone();
    }
}

#[test]
fn our_timeout_waits_for_a_deaf_cmd_as_long_as_the_original() {
    let outer = Scratch::new();
    for (program, _) in timeouts(&outer) {
        let scratch = Scratch::new();
        let deaf = "trap '' TERM; until [ -e go ]; do sleep .05; done; exit 5";
        let mut command = timeout(&program, &[".2", "sh", "-c", deaf]);
        let mut process = command.current_dir(scratch.path()).marked(&scratch).spawn().unwrap();
        thread::sleep(Duration::from_secs(1));
        assert!(lives(process.id()), "{program:?}: nobody told it to kill");
        std::fs::write(scratch.file("go"), "").unwrap();
        assert_eq!(wait(&mut process).code(), Some(124), "{program:?}");
    }
}

#[test]
fn timeout_and_the_terminal() {
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
        // At a prompt it leads the foreground job itself, and Ctrl-C is CMD's, too.
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

#[test]
fn a_copy_is_as_good_as_a_link_and_other_names_are_ours() {
    let scratch = Scratch::new();
    for (name, code) in [("timeout", 124), ("another-name", 125)] {
        let copy = scratch.file(name);
        // By a program of its own: what is open here for writing, others' children would hold.
        assert!(Command::new("cp").arg(common::ONEJOB).arg(&copy).status().unwrap().success());
        let output = outcome(&mut timeout(&copy, &[".1", "sleep", "1000"]));
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    }
}

#[test]
fn nested_timeouts_and_inits_are_transparent() {
    let scratch = Scratch::new();
    let [timeout, tini, dumb_init] =
        ["timeout", "tini", "dumb-init"].map(|name| stand_in(&scratch, name));
    let line = "\"$T\" 1000 \"$I\" -s -- \"$D\" \"$T\" 1000 sh -c 'setsid sleep 1000 & exit 9'";
    let mut command = Command::new("bash");
    command.args(["-c", line]).env("T", timeout).env("I", tini).env("D", dumb_init);
    let output = outcome(command.marked(&scratch));
    assert_eq!(output.status.code(), Some(9), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    scratch.marked_are_gone();
    // The innermost time limit counts first, and the outer ones say nothing of it.
    let line = "\"$T\" 1000 \"$T\" .2 sleep 1000";
    let start = Instant::now();
    let mut command = Command::new("bash");
    command.args(["-c", line]).env("T", stand_in(&scratch, "timeout"));
    assert_eq!(outcome(command.marked(&scratch)).status.code(), Some(124));
    assert!(start.elapsed() < common::HANG);
}

#[test]
fn tini_ends_with_its_parent_if_told() {
    let scratch = Scratch::new();
    let tini = stand_in(&scratch, "tini");
    let actors = Actors::new(&scratch);
    // The parent is a shell that is killed.
    let line = "\"$TINI\" -s -p SIGUSR2 -- \"$ACTOR\" & echo $! >tini; wait";
    let mut command = Command::new("bash");
    command.args(["-c", line]).env("TINI", tini).current_dir(scratch.path()).marked(&scratch);
    let mut shell = actors.below(&mut command).spawn().unwrap();
    let pid = actors.ready(1)[0];
    shell.kill().unwrap();
    wait(&mut shell);
    actors.gets(pid, libc::SIGUSR2, 1);
    actors.end();
    scratch.marked_are_gone();
}
