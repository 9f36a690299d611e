//! `run -d` and `logs`.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Stdio};

use crate::{
    common::{eventually, is_error, lives, mechanisms, outcome, text, wait},
    fixture::Fixture,
};

/// Starts a detached job. Returns its name and the path of its log.
#[track_caller]
fn detach(fixture: &Fixture, mechanism: &str, args: &[&str]) -> (String, String) {
    let said = fixture.stdout_of(&[&["run", "-d", "--mechanism", mechanism][..], args].concat());
    let [name, log] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said:?}") };
    (name.to_owned(), log.to_owned())
}

/// `run -d` prints name and log file; the log is private, kept after the end, and the previous one
/// is renamed.
#[test]
fn log_file() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let (name, log) =
            detach(&fixture, &mechanism, &["-n", "dev", "sh", "-c", "echo one; echo two >&2"]);
        assert_eq!(name, "dev");
        assert!(log.starts_with(fixture.scratch.file("state").to_str().unwrap()), "{log}");
        fixture.assert_empty();
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fixture.stdout_of(&["logs", "dev"]), "one\ntwo\n", "{mechanism}: after its end");
        // The next job of this name keeps the log of the previous one.
        detach(&fixture, &mechanism, &["-n", "dev", "echo", "three"]);
        fixture.assert_empty();
        assert_eq!(fixture.stdout_of(&["logs", "dev"]), "three\n");
        assert_eq!(fs::read_to_string(format!("{log}.1")).unwrap(), "one\ntwo\n");
        // Without a name it is found by its id.
        let (id, log) = detach(&fixture, &mechanism, &["sh", "-c", "echo x; exec sleep 1000"]);
        eventually("the output of CMD", || fs::read_to_string(&log).unwrap() == "x\n");
        assert_eq!(fixture.stdout_of(&["logs", &id]), "x\n");
        fixture.expect_status(&["kill", &id[..12]], 0);
        assert_eq!(fixture.stdout_of(&["logs", &id]), "x\n");
        fixture.assert_empty();
    }
}

/// Without a home directory that can be written to, the log is beside the records, and `logs` finds it.
#[test]
fn log_file_without_a_home() {
    for home in ["/proc/1", "/", "relative", ""] {
        let fixture = Fixture::new();
        let detach = |name: &str, cmd: &str| {
            let mut command = fixture.onejob(&["run", "-d", "-n", name, "--", "sh", "-c", cmd]);
            // Not even root can make a directory in /proc.
            command.env("HOME", home).env("XDG_STATE_HOME", if home == "/" { "/proc" } else { "" });
            let output = crate::common::outcome(&mut command);
            let stderr = crate::common::text(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{home:?}: {stderr}");
        };
        detach("dev", "echo one");
        fixture.scratch.marked_are_gone();
        eventually("only the directory of logs is left", || fixture.files().len() == 1);
        assert_eq!(fixture.stdout_of(&["logs", "dev"]), "one\n", "{home:?}");
    }
}

/// A detached job outlives its terminal, and `logs -f` prints its output until its end.
#[test]
fn closed_terminal_and_logs_follow() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let mut pty = fixture.terminal();
        let script =
            "echo $$ >pid; echo begun; while ! test -e go; do sleep 0.02; done; echo done; exit 9";
        pty.send(&format!(
            "\"$ONEJOB\" run -d -n dev --mechanism {mechanism} -- sh -c '{script}'\n"
        ));
        pty.expect("dev.log");
        pty.expect("READY> ");
        let pid: u32 = crate::common::line(&fixture.scratch.file("pid")).parse().unwrap();
        pty.close();
        wait(&mut pty.leader);
        assert!(lives(pid), "{mechanism}: the job died with its terminal");
        let mut follower = fixture.onejob(&["logs", "-f", "dev"]);
        let follower = follower.stdout(Stdio::piped()).spawn().unwrap();
        let mut waiter = fixture.onejob(&["wait", "dev"]).spawn().unwrap();
        // If the reader closes the pipe, `logs -f` ends and the job continues.
        let mut head = std::process::Command::new("sh");
        head.args(["-c", "\"$0\" logs -f dev | head -n 1", crate::common::ONEJOB]);
        assert_eq!(text(&outcome(fixture.apply_to(&mut head)).stdout), "begun\n");
        fs::write(fixture.scratch.file("go"), "").unwrap();
        let followed = follower.wait_with_output().unwrap();
        assert_eq!(text(&followed.stdout), "begun\ndone\n", "{mechanism}");
        assert!(followed.status.success());
        let status = wait(&mut waiter).code();
        assert!(status == Some(9) || status == Some(125), "{mechanism}: {status:?}");
        fixture.assert_empty();
    }
}

/// A failed start is reported by the foreground process and leaves no job.
#[test]
fn failed_start() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        fs::write(fixture.scratch.file("data"), "no program").unwrap();
        for (program, code) in [("./missing", 127), ("./data", 126)] {
            let words = ["run", "-d", "-n", "dev", "--mechanism", &mechanism, program];
            let (stdout, stderr) = fixture.expect_status(&words, code);
            assert_eq!(stdout, "");
            assert!(is_error(&stderr), "{stderr}");
            fixture.assert_empty();
        }
        // Without a directory for the log, nothing is started.
        let no_directory = fixture.runtime().join("logs");
        fs::write(&no_directory, "").unwrap();
        let mut command =
            fixture.onejob(&["run", "-d", "--mechanism", &mechanism, "touch", "started"]);
        let output = outcome(command.env_remove("HOME").env_remove("XDG_STATE_HOME"));
        assert_eq!(output.status.code(), Some(125));
        assert!(text(&output.stderr).contains("write the log"), "{}", text(&output.stderr));
        fs::remove_file(no_directory).unwrap();
        fixture.assert_empty();
        assert!(!fixture.scratch.file("started").exists());
    }
}

/// `--keep`, `--wait-all` and `-t` work with `-d`.
#[test]
fn keep_wait_all_and_time_limit() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let tree = "setsid sh -c \"echo \\$\\$ >left; while ! test -e go; do sleep 0.02; done\" & \
                    while ! test -s left; do sleep 0.01; done";
        detach(&fixture, &mechanism, &["-n", "dev", "--wait-all", "sh", "-c", tree]);
        let left = || crate::common::line(&fixture.scratch.file("left")).parse::<u32>().unwrap();
        let waiting = left();
        let mut waiter = fixture.onejob(&["wait", "dev"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(lives(waiting) && waiter.try_wait().unwrap().is_none(), "{mechanism}: --wait-all");
        fs::write(fixture.scratch.file("go"), "").unwrap();
        assert_eq!(wait(&mut waiter).code(), Some(0), "{mechanism}");
        fixture.assert_empty();
        fs::remove_file(fixture.scratch.file("go")).unwrap();
        fs::remove_file(fixture.scratch.file("left")).unwrap();

        detach(&fixture, &mechanism, &["-n", "dev", "--keep", "sh", "-c", tree]);
        let kept = left();
        eventually("the end of the job", || fixture.files().is_empty());
        assert!(lives(kept), "{mechanism}: --keep");
        fixture.expect_status(&["wait", "dev"], 125);
        fs::write(fixture.scratch.file("go"), "").unwrap();
        fixture.assert_empty();

        eventually("a wait that begins before the time limit", || {
            detach(&fixture, &mechanism, &["-n", "dev", "-t", "0.5", "sleep", "1000"]);
            let status = fixture.output_of(&["wait", "dev"]).status.code();
            fixture.assert_empty();
            // On a busy machine the job may have ended before.
            assert!(matches!(status, Some(124 | 125)), "{mechanism}: -t: {status:?}");
            status == Some(124)
        });
    }
}
