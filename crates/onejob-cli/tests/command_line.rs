//! The command line: options, help, messages, pipes.
#![cfg(target_os = "linux")]

mod common;

use std::{
    ffi::{CString, OsStr},
    os::unix::{
        ffi::OsStrExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    process::Command,
};

use common::{
    HANG, Marked as _, ONEJOB, Scratch, inits::stand_in, mechanisms, onejob, outcome, pty::Pty,
    run, text, wait,
};

/// Runs a line of bash; `$RUN` runs a command through onejob.
fn bash(scratch: &Scratch, run: &str, line: &str) -> std::process::Output {
    let mut bash = Command::new("bash");
    bash.args(["-c", line]).env("RUN", run).current_dir(scratch.path()).marked(scratch);
    common::with_signals(&mut bash, &[], &[]);
    outcome(&mut bash)
}

/// Every way to run a command through onejob.
fn ways(scratch: &Scratch) -> Vec<String> {
    let path = |name| stand_in(scratch, name).to_str().unwrap().to_owned();
    let mut ways = vec![
        format!("{ONEJOB} init --"),
        format!("{} 1000", path("timeout")),
        format!("{} -s --", path("tini")),
        path("dumb-init"),
    ];
    for mechanism in mechanisms() {
        ways.push(format!("{ONEJOB} run --mechanism {mechanism} --"));
        ways.push(format!(
            "{ONEJOB} run --mechanism {mechanism} --lifeline 1 -t {}",
            HANG.as_secs()
        ));
    }
    ways
}

/// When the reader of CMD's output exits, the tree ends without a message.
#[test]
fn closed_pipe_ends_the_tree_silently() {
    let scratch = Scratch::new();
    for way in ways(&scratch) {
        let output = bash(&scratch, &way, "$RUN yes | head -1");
        assert_eq!(
            (text(&output.stdout), text(&output.stderr)),
            ("y\n".into(), "".into()),
            "{way}"
        );
        scratch.marked_are_gone();
        // CMD alone has the same status: SIGPIPE has ended it.
        if way.contains("onejob run") && !way.contains("--lifeline") {
            let output =
                bash(&scratch, &way, "$RUN yes | head -1 >/dev/null; exit ${PIPESTATUS[0]}");
            assert_eq!(output.status.code(), Some(128 + libc::SIGPIPE), "{way}");
        }
    }
}

/// Program names and arguments that are not UTF-8 reach CMD unchanged, and error messages.
#[test]
fn names_that_are_not_utf8() {
    let scratch = Scratch::new();
    let odd = OsStr::from_bytes(b"odd-\xff-name");
    let program = scratch.script("program", "#!/bin/sh\nprintf %s \"$1\"; exit 6\n");
    std::fs::rename(program, scratch.path().join(odd)).unwrap();
    let path = scratch.path().join(odd);
    for mechanism in mechanisms() {
        let output = outcome(run(&mechanism, &["--"]).arg(&path).arg(odd));
        assert_eq!(output.status.code(), Some(6), "{mechanism} {}", text(&output.stderr));
        assert_eq!(output.stdout, odd.as_bytes());
        let missing = scratch.path().join(OsStr::from_bytes(b"missing-\xff"));
        let output = outcome(run(&mechanism, &["--"]).arg(missing));
        assert_eq!(output.status.code(), Some(127));
        assert!(text(&output.stderr).contains("missing-"), "{}", text(&output.stderr));
    }
    for name in ["timeout", "tini", "dumb-init"] {
        let mut command = Command::new(stand_in(&scratch, name));
        command.args(if name == "timeout" { &["10"][..] } else { &[] }).arg(&path).arg(odd);
        let output = outcome(&mut command);
        assert_eq!(output.status.code(), Some(6), "{name} {}", text(&output.stderr));
        assert_eq!(output.stdout, odd.as_bytes());
    }
}

/// Environment entries that are not variables reach CMD as through `env`.
#[test]
fn odd_environment_entries() {
    let scratch = Scratch::new();
    let c = |text: &str| CString::new(text).unwrap();
    let seen = |way: &str| {
        let mut command = Command::new("/usr/bin/env");
        command.marked(&scratch);
        let marks = command.get_envs().map(|(key, value)| {
            let [key, value] = [key, value.unwrap()].map(|text| text.to_str().unwrap());
            c(&format!("{key}={value}"))
        });
        let odd = ["A=1", "no sign", "", "=", "=begins", "=a=b", "B=", "also-odd"].map(c);
        let path = c(&format!("PATH={}", std::env::var("PATH").unwrap()));
        let envp: Vec<CString> = odd.into_iter().chain([path]).chain(marks).collect();
        let words = way.split(' ').chain(["cat", "/proc/self/environ"]);
        let argv: Vec<CString> = words.map(c).collect();
        let execute = move || {
            let list = |texts: &[CString]| {
                let texts = texts.iter().map(|text| text.as_ptr());
                texts.chain([std::ptr::null()]).collect::<Vec<_>>()
            };
            let (argv, envp) = (list(&argv), list(&envp));
            // SAFETY: lists of strings that end with a null.
            unsafe { libc::execve(argv[0], argv.as_ptr(), envp.as_ptr()) };
            Err(std::io::Error::last_os_error())
        };
        // SAFETY: it allocates, which the C library lets a forked child do.
        unsafe { command.pre_exec(execute) };
        let output = outcome(&mut command);
        assert!(output.status.success(), "{way}: {}", text(&output.stderr));
        let mut entries: Vec<_> =
            output.stdout.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        entries.sort();
        entries
    };
    let expected = seen("/usr/bin/env");
    assert!(expected.contains(&b"no sign".to_vec()) && expected.contains(&b"=".to_vec()));
    for way in ways(&scratch) {
        assert_eq!(seen(&way), expected, "{way}");
    }
}

/// `--`, or the first word that is not an option, ends the options of onejob.
#[test]
fn end_of_options() {
    let scratch = Scratch::new();
    for verb in ["run", "init"] {
        for line in [
            "printf '<%s>' -k --help -- x",
            "-- printf '<%s>' -k --help -- x",
            "-k 1 printf '<%s>' -k --help -- x",
            "-k1 -- printf '<%s>' -k --help -- x",
        ] {
            let output = bash(&scratch, &format!("{ONEJOB} {verb}"), &format!("$RUN {line}"));
            assert_eq!(text(&output.stdout), "<-k><--help><--><x>", "{verb} {line}");
            assert!(output.status.success());
        }
        let output = outcome(&mut onejob(&[verb, "--", "--help"]));
        assert_eq!(output.status.code(), Some(127), "{verb}");
    }
}

/// Help is wrapped to the width of the terminal, at most 100 columns, and coloured unless the terminal or
/// NO_COLOR forbids it.
#[test]
fn help_on_a_terminal() {
    for (variables, columns, is_coloured) in [
        ("TERM=xterm-256color", 40, true),
        ("TERM=xterm-256color", 80, true),
        ("TERM=xterm-256color", 200, true),
        ("TERM=xterm-256color NO_COLOR=1", 80, false),
        ("TERM=dumb", 80, false),
        ("env -u TERM", 80, false),
    ] {
        for line in ["--help", "-h", "run -h", "run --help", "help kill", "init --help"] {
            // Through a pseudo-terminal.
            let mut command = Command::new("bash");
            let script = format!("stty cols {columns}; {variables} {ONEJOB} {line}; echo end=$?");
            let mut pty = Pty::start(command.args(["-c", &script]));
            let page = pty.expect("end=0");
            assert_eq!(page.contains('\x1b'), is_coloured, "{variables} {line}: {page:?}");
            let plain = without_escapes(&page);
            assert!(plain.contains("Usage: onejob"), "{line}: {plain}");
            let longest = plain.lines().map(|line| line.trim_end().chars().count()).max().unwrap();
            // A word that is longer than the line stays whole: a command line of an example.
            let most = if columns == 40 { 60 } else { columns.min(100) };
            assert!(
                longest <= most && longest > columns.min(100) / 2,
                "{line}: {longest}\n{plain}"
            );
            wait(&mut pty.leader);
        }
    }
}

fn without_escapes(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').map_or(part, |(_, rest)| rest))
}

/// The help of each subcommand has its exit statuses and an example, and groups the options.
#[test]
fn help_has_statuses_and_examples() {
    let help = |line: &[&str]| {
        let output = outcome(&mut onejob(line));
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let all = help(&["--help"]);
    let rows = all.split("Commands:\n").nth(1).unwrap().lines().take_while(|row| !row.is_empty());
    for verb in rows.filter_map(|row| row.split_whitespace().next()) {
        let page = help(&[verb, "--help"]);
        assert!(page.contains("\nExit status:\n  ") && page.contains("\nExamples:\n  "), "{page}");
        let summary = help(&[verb, "-h"]);
        assert!(!summary.contains("Examples:") && summary.len() < page.len(), "{summary}");
    }
    let run = help(&["run", "--help"]);
    let groups =
        ["\nLifetime:\n", "\nLimits:\n", "\nGuarantees:\n", "\nOutput:\n", "\nExit status:\n"];
    let places: Vec<_> = groups.iter().map(|group| run.find(group).expect(group)).collect();
    assert!(places.is_sorted(), "{places:?}");
}

/// An error on a terminal is one line and a hint, without escape sequences.
#[test]
fn message_on_a_terminal_has_no_colours() {
    for variables in [&[("TERM", "xterm-256color")][..], &[("NO_COLOR", "1")], &[("TERM", "dumb")]]
    {
        let mut command = Command::new("bash");
        command.args([
            "-c",
            &format!("{ONEJOB} rum; echo end=$?; {ONEJOB} run --tmeout 5 x; echo end=$?"),
        ]);
        let mut pty = Pty::start(command.envs(variables.iter().copied()));
        let first = pty.expect("end=125");
        assert_eq!(
            first,
            "onejob: unrecognized subcommand 'rum'\r\nhint: did you mean `onejob run`?\r\n"
        );
        let second = pty.expect("end=125");
        assert!(
            second.contains("did you mean --timeout?") && !second.contains('\x1b'),
            "{second:?}"
        );
        wait(&mut pty.leader);
    }
}

/// A mistyped subcommand is answered with the most similar one.
#[test]
fn mistyped_subcommand() {
    for (typed, nearest) in
        [("rum", "run"), ("inti", "init"), ("initt", "init"), ("kil", "kill"), ("docter", "doctor")]
    {
        let output = outcome(&mut onejob(&[typed]));
        assert_eq!(output.status.code(), Some(125), "{typed}");
        assert!(text(&output.stdout).is_empty());
        assert!(
            text(&output.stderr).contains(&format!("`onejob {nearest}`")),
            "{}",
            text(&output.stderr)
        );
    }
}

/// onejob writes nothing to standard output of `run` and `init`.
#[test]
fn stdout_belongs_to_cmd() {
    let scratch = Scratch::new();
    for verb in ["run", "init"] {
        for args in [
            &["sh", "-c", "exit 3"][..],
            &["sh", "-c", "kill $$"],
            &["sh", "-c", "setsid sleep 1000 & exit 0"],
            &["-k", "0", "sh", "-c", "setsid sleep 1000 & exit 0"],
            &["no-such-program"],
            &["/etc/passwd"],
            &["--bogus"],
            &["--lifeline", "9", "true"],
        ] {
            let output = outcome(onejob(&[&[verb], args].concat()).marked(&scratch));
            assert_eq!(text(&output.stdout), "", "{verb} {args:?}");
            assert!(output.status.signal().is_none_or(|signal| signal == libc::SIGTERM));
        }
    }
    scratch.marked_are_gone();
}
