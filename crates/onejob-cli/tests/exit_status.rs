//! Every exit status of the table in src/exit.rs.
#![cfg(target_os = "linux")]

mod common;

use std::{
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Command, Output},
};

use common::{
    Marked as _, ONEJOB, Scratch, is_error, mechanisms, onejob, outcome, run, skip, text,
    with_signals,
};

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// `onejob run` with these arguments exits with this status, prints nothing to standard output, and at
/// most one error to standard error.
#[track_caller]
fn ends(mechanism: &str, scratch: &Scratch, args: &[&str], code: i32, says: &str) {
    let mut command = run(mechanism, args);
    // With an unreadable directory in PATH, a missing program would be one that may not be executed.
    command.env("PATH", PATH).current_dir(scratch.path());
    let output = outcome(command.marked(scratch));
    check(&output, code, says, args);
    scratch.marked_are_gone();
}

#[track_caller]
fn check(output: &Output, code: i32, says: &str, args: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {} {stderr}", output.status);
    assert_eq!(text(&output.stdout), "", "{args:?}");
    if says.is_empty() {
        assert_eq!(stderr, "", "{args:?}");
    } else {
        assert!(is_error(&stderr) && stderr.contains(says), "{args:?}: {stderr}");
    }
}

/// CMD's exit code is returned.
#[test]
fn exit_code_of_cmd() {
    let scratch = Scratch::new();
    for mechanism in mechanisms() {
        for code in [0, 1, 7, 124, 125, 126, 127, 128, 130, 255] {
            let exit = format!("exit {code}");
            ends(&mechanism, &scratch, &["sh", "-c", &exit], code, "");
            ends(&mechanism, &scratch, &["--", "sh", "-c", &exit], code, "");
        }
    }
}

/// The signal that ended CMD ends onejob, without a core dump.
#[test]
fn signal_of_cmd_without_core_dump() {
    let scratch = Scratch::new();
    for mechanism in mechanisms() {
        for signal in [1, 2, 4, 6, 8, 9, 10, 11, 13, 14, 15, 31, 34, 50, 64] {
            let kill = format!("kill -{signal} $$");
            let mut command = run(&mechanism, &["--", "bash", "-c", &kill]);
            command.current_dir(scratch.path());
            let unlimited = rustix::process::Rlimit { current: None, maximum: None };
            let allow_cores = move || {
                // The hard limit of an ordinary user may be lower.
                let _ = rustix::process::setrlimit(rustix::process::Resource::Core, unlimited);
                Ok(())
            };
            // SAFETY: one plain system call.
            unsafe { command.pre_exec(allow_cores) };
            let output = outcome(&mut command);
            assert_eq!(output.status.signal(), Some(signal), "{mechanism} {}", output.status);
            assert!(!output.status.core_dumped(), "{mechanism} {signal}");
            assert_eq!(text(&output.stderr), "", "{mechanism} {signal}");
        }
    }
}

/// The status is 129 after the lifeline was lost.
#[test]
fn status_129_lost_lifeline() {
    let scratch = Scratch::new();
    for mechanism in mechanisms() {
        for verb in ["run", "init"] {
            let mut command = common::onejob(&[verb, "--mechanism", &mechanism]);
            command.args(["--lifeline", "0", "sleep", "1000"]).marked(&scratch);
            let (reader, writer) = std::io::pipe().unwrap();
            let mut onejob = command.stdin(reader).spawn().unwrap();
            common::eventually("CMD runs", || scratch.marked().len() > 1);
            drop(writer);
            assert_eq!(common::wait(&mut onejob).code(), Some(129), "{mechanism} {verb}");
            scratch.marked_are_gone();
        }
    }
}

/// As PID 1, the exit code is 128 plus the number of the signal that ended CMD.
#[test]
fn pid_1_exits_with_128_plus_signal() {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]);
    if !unshare.arg("true").output().is_ok_and(|output| output.status.success()) {
        skip!("no PID namespace can be made here (unshare)");
    }
    for signal in [2, 9, 15] {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--"]);
        let kill = format!("kill -{signal} $$");
        unshare.args([ONEJOB, "run", "--", "sh", "-c", &kill]);
        with_signals(&mut unshare, &[], &[]);
        let output = outcome(&mut unshare);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(128 + signal), "{} {stderr}", output.status);
    }
}

/// The status is 124 after the time limit, however CMD reacts.
#[test]
fn status_124_time_limit() {
    let scratch = Scratch::new();
    for mechanism in mechanisms() {
        ends(&mechanism, &scratch, &["-t", "0.2", "sleep", "1000"], 124, "");
        ends(&mechanism, &scratch, &["-t200ms", "-s", "INT", "sleep", "1000"], 124, "");
        // CMD's reaction to the signal does not matter.
        let ends_well = "trap 'exit 0' TERM; sleep 1000 & wait";
        ends(&mechanism, &scratch, &["-t", ".2", "sh", "-c", ends_well], 124, "");
        let deaf = "trap '' TERM; setsid sleep 1000 & sleep 1000";
        ends(&mechanism, &scratch, &["-t", ".2", "-k", ".1", "sh", "-c", deaf], 124, "");
        ends(&mechanism, &scratch, &["-t", ".2", "-k", "0", "sh", "-c", deaf], 124, "");
        let stopped = "kill -STOP $$";
        ends(&mechanism, &scratch, &["-t", ".2", "sh", "-c", stopped], 124, "");
        let all = ["--wait-all", "-t", ".2", "sh", "-c", "sleep 1000 & exit 3"];
        ends(&mechanism, &scratch, &all, 124, "");
    }
}

/// A time limit that is not reached, or 0, does not change the status.
#[test]
fn unreached_time_limit() {
    let scratch = Scratch::new();
    for mechanism in mechanisms() {
        ends(&mechanism, &scratch, &["-t", "1000", "sh", "-c", "exit 3"], 3, "");
        ends(&mechanism, &scratch, &["-t", "0", "sh", "-c", "sleep .1; exit 3"], 3, "");
    }
}

/// Invalid usage gives 125 and one error, and starts nothing.
#[test]
fn status_125_invalid_usage() {
    let scratch = Scratch::new();
    let ours = |args: &[&str], says: &str| {
        let output = outcome(onejob(args).marked(&scratch));
        check(&output, 125, says, args);
        assert_eq!(scratch.marked(), [] as [u32; 0]);
    };
    ours(&["rum", "true"], "`onejob run true`");
    ours(&["run"], "no command given");
    ours(&["run", "--"], "no command given");
    ours(&["run", "--bogus", "true"], "--bogus");
    ours(&["run", ""], "empty");
    for time in ["", "x", "-1", "1x", "1e3", "inf", "nan", "0x10", "1..2", "1 s"] {
        ours(&["run", "-t", time, "true"], "invalid duration");
        ours(&["run", "-k", time, "true"], "invalid duration");
    }
    for time in ["18446744073709551616", "99999999999999999999d"] {
        ours(&["run", "-t", time, "true"], "too long");
    }
    for signal in ["", "0", "-1", "65", "FOO", "SIGFOO", "32", "9999999999"] {
        ours(&["run", "-s", signal, "true"], "unknown signal");
    }
    ours(&["run", "--mechanism", "magic", "true"], "cgroup, subreaper");
    ours(&["run", "--require", "kill=softly", "true"], "best-effort, converging, atomic");
    ours(&["run", "--require", "luck=much", "true"], "owner-death");
    ours(&["run", "--keep", "--wait-all", "true"], "--wait-all");
    ours(&["run", "--lifeline", "x", "true"], "invalid descriptor");
    ours(&["init"], "no command given");
    ours(&["init", ""], "empty");
    ours(&["init", "--bogus", "true"], "--bogus");
    for rewrite in ["15", "15:", "0:1", "x:y", "15:99", "1:2:3"] {
        ours(&["init", "--rewrite", rewrite, "true"], "--rewrite");
    }
    for code in ["256", "-1", "x", ""] {
        ours(&["init", "-e", code, "true"], "invalid exit status");
    }
    ours(&["init", "-k", "x", "true"], "invalid duration");
    ours(&["init", "-s", "FOO", "true"], "unknown signal");
}

/// An unavailable guarantee gives 125, and nothing is started.
#[test]
fn status_125_unavailable_guarantee() {
    let scratch = Scratch::new();
    for mechanism in mechanisms() {
        let args = ["--require", "sealed", "sh", "-c", "touch started"];
        ends(&mechanism, &scratch, &args, 125, "containment=sealed");
        assert!(!scratch.file("started").exists());
        let args = ["--require", "tracked", "--require", "kill=converging", "true"];
        ends(&mechanism, &scratch, &args, 0, "");
    }
}

/// A file that cannot be executed gives 126.
#[test]
fn status_126_not_executable() {
    let scratch = Scratch::new();
    std::fs::write(scratch.file("plain"), "exit 3\n").unwrap();
    for mechanism in mechanisms() {
        ends(&mechanism, &scratch, &["./plain"], 126, "plain");
        ends(&mechanism, &scratch, &["/"], 126, "\"/\"");
        ends(&mechanism, &scratch, &["./plain/below"], 126, "below");
    }
}

/// A missing program gives 127.
#[test]
fn status_127_not_found() {
    let scratch = Scratch::new();
    for mechanism in mechanisms() {
        ends(&mechanism, &scratch, &["no-such-program-here"], 127, "no-such-program-here");
        ends(&mechanism, &scratch, &["./missing", "x"], 127, "missing");
        ends(&mechanism, &scratch, &["--", "--missing"], 127, "--missing");
    }
}

/// A script without a `#!` line is run by `/bin/sh`.
#[test]
fn script_without_interpreter_line() {
    let scratch = Scratch::new();
    scratch.script("script", "test \"$1,$2\" = 'a,b c' && exit 9\n");
    for mechanism in mechanisms() {
        ends(&mechanism, &scratch, &["./script", "a", "b c"], 9, "");
        let path = format!("{}:/usr/bin:/bin", scratch.str());
        let mut command = run(&mechanism, &["script", "a", "b c"]);
        let output = outcome(command.env("PATH", path).marked(&scratch));
        assert_eq!(output.status.code(), Some(9), "{}", text(&output.stderr));
    }
}

/// Help and version go to standard output, usage errors to standard error.
#[test]
fn help_and_version_go_to_stdout() {
    let version = outcome(&mut onejob(&["--version"]));
    assert_eq!(text(&version.stdout), format!("onejob {}\n", env!("CARGO_PKG_VERSION")));
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["init", "--help"],
        &["kill", "-h"],
        &["doctor", "-h"],
    ] {
        let help = outcome(&mut onejob(args));
        assert!(help.status.success() && help.stderr.is_empty(), "{args:?}");
        assert!(text(&help.stdout).contains("Usage: onejob"), "{args:?}");
    }
    let bare = outcome(&mut onejob(&[]));
    assert_eq!(bare.status.code(), Some(125));
    assert!(bare.stdout.is_empty() && text(&bare.stderr).contains("`onejob --help`"));
}

/// A reader that closes standard output early is not an error.
#[test]
fn closed_stdout_is_a_success() {
    let pipe = format!("set -o pipefail; {ONEJOB} run --help | true && {ONEJOB} --help | head -1");
    let output = outcome(Command::new("bash").args(["-c", &pipe]));
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.success(), "{}", output.status);
}

/// A closed standard error does not change the status.
#[test]
fn closed_stderr_keeps_the_status() {
    let scratch = Scratch::new();
    for mechanism in mechanisms() {
        let script = format!(
            "exec 2> >(exec true); sleep .1; {ONEJOB} run --mechanism {mechanism} --stats -- \
             sh -c 'exit 5'; test $? = 5 && {ONEJOB} run no-such-program; test $? = 127 && \
             {ONEJOB} run --stats -- sh -c 'exit 5' 2>&-"
        );
        let output =
            outcome(Command::new("bash").args(["-c", &script]).env("PATH", PATH).marked(&scratch));
        assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    }
}

/// `--stats` prints one line to standard error.
#[test]
fn stats_are_one_line_on_stderr() {
    for mechanism in mechanisms() {
        let output = outcome(&mut run(&mechanism, &["--stats", "--", "sh", "-c", "exit 3"]));
        check(&output, 3, "onejob: real ", &["--stats"]);
        assert!(text(&output.stderr).contains(", user "), "{}", text(&output.stderr));
    }
}
