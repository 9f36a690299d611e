//! onejob called tini, dumb-init or timeout: the same table for the originals, where they are installed,
//! and for onejob.
#![cfg(target_os = "linux")]

mod common;

use std::{
    path::Path,
    process::{Command, Output},
    time::Instant,
};

use common::{
    Marked as _, Scratch,
    inits::{
        Ends,
        Ends::{By, With},
        original, stand_in,
    },
    outcome,
    recorder::Recorders,
    skip, text, wait, with_signals,
};

/// Environment variables, the command line, the exit status, and the beginning of each line on standard
/// error (empty: no output; with `?` in front: any output).
struct Case(&'static str, &'static str, Ends, &'static str);

/// Runs one line of a table.
fn run_case(program: &Path, case: &Case) -> Output {
    let mut command = Command::new("bash");
    let name = program.file_name().unwrap().to_str().unwrap();
    // A line of the table is a shell script; with "exec" the status is that of the program.
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
    // A message contains the pid.
    assert!(stderr.lines().all(|line| line.starts_with(says)) || case.3.starts_with('?'), "{what}");
}

/// Checks each case with onejob, and with the original unless it is too old for the case.
fn holds(name: &str, table: &[Case], is_too_old: impl Fn(&Case, &Output) -> bool) {
    let scratch = Scratch::new();
    let ours = stand_in(&scratch, name);
    let theirs = original(name);
    for case in table {
        let output = run_case(&ours, case);
        check(&ours, case, &output);
        let Some(theirs) = &theirs else { continue };
        let facts = run_case(theirs, case);
        if is_too_old(case, &facts) {
            eprintln!("the original is too old for {}", case.1);
            continue;
        }
        check(theirs, case, &facts);
        // Help and version texts differ.
        if !["-h", "--help", "--version", "-V", "-l"].contains(&case.1) {
            assert_eq!(text(&output.stdout), text(&facts.stdout), "{name} {}", case.1);
        }
        assert_eq!(output.stdout.is_empty(), facts.stdout.is_empty(), "{name} {}", case.1);
    }
    if theirs.is_none() {
        skip!("{name} is not installed, so onejob was not compared with it");
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

/// Exit statuses, output and message formats are those of GNU timeout.
#[test]
fn timeout_statuses_and_messages() {
    // Older originals do not know -f and -p.
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

/// Exit statuses, output and message formats are those of tini.
#[test]
fn tini_statuses_and_messages() {
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

/// Exit statuses, output and message formats are those of dumb-init.
#[test]
fn dumb_init_statuses_and_messages() {
    holds("dumb-init", DUMB_INIT, |_, _| false);
}

/// A copy works like a link; any other name is onejob itself.
#[test]
fn copy_instead_of_a_link() {
    let scratch = Scratch::new();
    for (name, code) in [("timeout", 124), ("another-name", 125)] {
        let copy = scratch.file(name);
        // Copied by cp: children of other threads could inherit a descriptor of a file that this process writes.
        assert!(Command::new("cp").arg(common::ONEJOB).arg(&copy).status().unwrap().success());
        let mut command = Command::new(&copy);
        command.args([".1", "sleep", "1000"]);
        with_signals(&mut command, &[], &[]);
        let output = outcome(&mut command);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    }
}

/// Nested drop-ins return the innermost exit status and print nothing.
#[test]
fn nested_timeouts_and_inits() {
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
    // The innermost time limit expires first, and the outer ones print nothing.
    let line = "\"$T\" 1000 \"$T\" .2 sleep 1000";
    let start = Instant::now();
    let mut command = Command::new("bash");
    command.args(["-c", line]).env("T", stand_in(&scratch, "timeout"));
    assert_eq!(outcome(command.marked(&scratch)).status.code(), Some(124));
    assert!(start.elapsed() < common::HANG);
}

/// `tini -p SIGNAL` receives the signal when its parent exits.
#[test]
fn tini_parent_death_signal() {
    let scratch = Scratch::new();
    let tini = stand_in(&scratch, "tini");
    let recorders = Recorders::new(&scratch);
    // The parent is a shell that is killed.
    let line = "\"$TINI\" -s -p SIGUSR2 -- \"$RECORDER\" & echo $! >tini; wait";
    let mut command = Command::new("bash");
    command.args(["-c", line]).env("TINI", tini).current_dir(scratch.path()).marked(&scratch);
    let mut shell = recorders.below(&mut command).spawn().unwrap();
    let pid = recorders.ready(1)[0];
    shell.kill().unwrap();
    wait(&mut shell);
    recorders.gets(pid, libc::SIGUSR2, 1);
    recorders.end();
    scratch.marked_are_gone();
}
