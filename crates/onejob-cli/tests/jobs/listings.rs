//! The listings as JSON and on a terminal.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, process::Command};

use crate::{
    common::{ONEJOB, eventually, is_error, kill, mechanisms, outcome, pty::Pty, text, wait},
    fixture::Fixture,
};

/// `tree` marks exactly the members without a living parent as orphans.
#[test]
fn orphans_are_marked() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let script = "(sleep 1001 &); (setsid sleep 1002 &); sleep 1003 & exec sleep 1004";
        let mut owner = fixture.start(&mechanism, "dev", &["sh", "-c", script]);
        let mut drawn = String::new();
        eventually("all four are drawn", || {
            drawn = text(&fixture.output_of(&["tree", "dev"]).stdout);
            // Not in the command line of the shell.
            (1001..=1004).all(|number| {
                let is_it = |line: &&str| line.ends_with(&format!(" sleep {number}"));
                drawn.lines().filter(is_it).any(|line| !line.contains("sh -c"))
            })
        });
        for (number, is_orphan) in [(1001, true), (1002, true), (1003, false), (1004, false)] {
            let line = drawn.lines().find(|line| line.contains(&format!("sleep {number}")));
            assert_eq!(line.unwrap().contains("(orphan)"), is_orphan, "{mechanism}:\n{drawn}");
        }
        let child = drawn.lines().find(|line| line.contains("sleep 1003")).unwrap();
        assert!(child.contains("└─ sleep 1003"), "{drawn}");
        fixture.expect_status(&["kill", "dev"], 0);
        wait(&mut owner);
        fixture.assert_empty();
    }
}

/// A job that cannot be observed is named in a warning, and not left out as if it had ended.
#[test]
fn a_job_that_cannot_be_observed() {
    if Command::new("strace").arg("-V").output().is_err() {
        return eprintln!("SKIPPED: strace is not installed");
    }
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let mut owner = fixture.start(&mechanism, "dev", &["sleep", "1000"]);
        for verb in ["ls", "tree"] {
            let mut strace = Command::new("strace");
            strace.args(["-qq", "-o", "/dev/null", "-e", "trace=pidfd_open"]);
            strace.args(["-e", "inject=pidfd_open:error=EMFILE", ONEJOB, verb]);
            let onejob = fixture.onejob(&[]);
            let variables = onejob.get_envs().filter_map(|(name, value)| Some((name, value?)));
            let output = strace.envs(variables).output().expect("strace starts");
            let said = text(&output.stderr);
            assert!(
                said.contains("dev") && said.contains("open files"),
                "{mechanism} {verb}: {said}"
            );
            assert_eq!(output.status.code(), Some(0), "{mechanism} {verb}: {said}");
        }
        fixture.expect_status(&["kill", "dev"], 0);
        wait(&mut owner);
        fixture.assert_empty();
    }
}

/// Names with control characters neither move the cursor nor exceed the width of the terminal.
#[test]
fn control_characters_in_names() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let names: [&[u8]; 4] = [
            b"\x1b[2J\x07evil\r\n\t",
            b"\xff\xfe not UTF-8 \x9b31m",
            "長い名前のプロセス長い名前のプロセス長い名前のプロセス".as_bytes(),
            "\u{202e}back\u{2066}wards \u{1f980}\u{1f980}\u{1f980}\u{1f980}\u{1f980}".as_bytes(),
        ];
        let mut owners: Vec<_> = (0..)
            .zip(names)
            .map(|(number, name)| {
                let mut command = fixture.onejob(&["run", "--mechanism", &mechanism, "-n"]);
                command.arg(format!("job-{number}"));
                command
                    .args(["sh", "-c", "sleep 1000; :"])
                    .arg(OsStr::from_bytes(name))
                    .spawn()
                    .unwrap()
            })
            .collect();
        (0..4).for_each(|number| fixture.wait_for_job(&format!("job-{number}")));
        for verb in ["ls", "tree"] {
            let said = fixture.output_of(&[verb]);
            let plain = text(&said.stdout);
            assert!(!plain.chars().any(|c| c.is_control() && c != '\n'), "{plain:?}");
            assert!(!plain.contains('\u{202e}') && !plain.contains('\u{2066}'), "{plain:?}");
            serde_json::from_str::<serde_json::Value>(&fixture.stdout_of(&[verb, "--json"]))
                .unwrap();
            let mut pty = Pty::start(&mut fixture.onejob(&[
                "run",
                "--mechanism",
                &mechanism,
                "sh",
                "-c",
                &format!("stty cols 40; TERM=xterm '{ONEJOB}' {verb}; echo e''nd; sleep 1000"),
            ]));
            let drawn = pty.expect("end");
            let lines = drawn.replace("\x1b[1m", "").replace("\x1b[0m", "");
            assert!(lines.lines().count() > 4 && drawn.contains("\x1b[1m"), "{drawn:?}");
            for line in lines.lines() {
                let line = line.trim_end_matches('\r');
                assert!(!line.contains('\x1b'), "{line:?}");
                let wide = |c: char| {
                    if ('\u{1100}'..).contains(&c) && !('\u{2000}'..='\u{2fff}').contains(&c) {
                        2
                    } else {
                        1
                    }
                };
                let width: usize = line.chars().map(wide).sum();
                assert!(width <= 40, "{width} columns: {line:?}");
            }
        }
        fixture.expect_status(&["kill", "--now", "job-0", "job-1", "job-2", "job-3"], 0);
        for owner in &mut owners {
            wait(owner);
        }
        fixture.assert_empty();
    }
}

/// Escape sequences are printed only on terminals that support them, and not with NO_COLOR.
#[test]
fn escape_sequences_on_terminals_only() {
    let fixture = Fixture::new();
    let mechanism = &mechanisms()[0];
    let mut owner = fixture.start(mechanism, "dev", &["sleep", "1000"]);
    let draw = |settings: &str, verb: &str| {
        let mut sh = Command::new("sh");
        sh.args(["-c", &format!("{settings} \"$0\" {verb}; echo e''nd; read x"), ONEJOB]);
        Pty::start(fixture.apply_to(&mut sh)).expect("end")
    };
    for verb in ["ls", "tree"] {
        assert!(draw("TERM=xterm", verb).contains("\x1b[1m"));
        for settings in ["TERM=dumb", "NO_COLOR=1 TERM=xterm", "env -u TERM"] {
            let drawn = draw(settings, verb);
            assert!(drawn.contains("dev") && !drawn.contains('\x1b'), "{settings}: {drawn:?}");
        }
        assert!(!fixture.stdout_of(&[verb]).contains('\x1b'));
    }
    fixture.expect_status(&["kill", "dev"], 0);
    wait(&mut owner);
}

/// `--watch` repeats a listing on a terminal and fails elsewhere; a closed pipe is not an error.
#[test]
fn watch_needs_a_terminal() {
    let fixture = Fixture::new();
    let mut owner = fixture.start(&mechanisms()[0], "dev", &["sleep", "1000"]);
    for verb in ["ls", "tree"] {
        let (stdout, stderr) = fixture.expect_status(&[verb, "--watch"], 125);
        assert!(stdout.is_empty() && is_error(&stderr), "{stdout}{stderr}");
        let mut pty = fixture.terminal();
        pty.send(&format!("\"$ONEJOB\" {verb} --watch=0.05\n"));
        (0..3).for_each(|_| drop(pty.expect("sleep 1000")));
        pty.send("\x03");
        pty.expect("READY> ");
        let mut sh = Command::new("bash");
        sh.args(["-o", "pipefail", "-c", &format!("\"$0\" {verb} | head -n 1 | cat"), ONEJOB]);
        let output = outcome(fixture.apply_to(&mut sh));
        assert_eq!((text(&output.stderr), output.status.code()), (String::new(), Some(0)));
        assert_eq!(text(&output.stdout).lines().count(), 1);
    }
    kill(owner.id(), libc::SIGTERM);
    wait(&mut owner);
    fixture.assert_empty();
}
