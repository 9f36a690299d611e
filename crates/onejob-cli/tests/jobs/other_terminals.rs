//! A job that is started on one terminal and listed, frozen, joined, waited for and killed on another.

use std::{
    fs::File,
    os::{
        fd::AsRawFd as _,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::Stdio,
    thread,
    time::Duration,
};

use crate::{
    common::{
        eventually, is_error, is_root, kill, line, lives, mechanisms, outcome, read, skip, state,
        text, wait,
    },
    fixture::Fixture,
};

/// A job is listed, frozen, joined, waited for and killed from another terminal.
#[test]
fn job_controlled_from_another_terminal() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let (mut first, mut second, mut third) =
            (fixture.terminal(), fixture.terminal(), fixture.terminal());
        let tree = "sh -c 'setsid sleep 1001 & while :; do echo x >>beat; sleep 0.01; done'";
        first.send(&format!(
            "\"$ONEJOB\" run -n dev --mechanism {mechanism} -- {tree}; echo sta''tus=$?\n"
        ));
        fixture.wait_for_job("dev");
        eventually("the daemon runs", || {
            text(&fixture.output_of(&["tree", "dev"]).stdout).contains("sleep 1001")
        });
        third.send("\"$ONEJOB\" wait dev; echo wai''ted=$?\n");

        let mut says = |command: &str, wanted: &str| {
            second.send(&format!("\"$ONEJOB\" {command}; echo e''nd=$?\n"));
            let said = second.expect(wanted);
            second.expect("READY> ");
            said
        };
        assert!(says("ls", "end=0").contains("dev"), "{mechanism}");
        assert!(says("tree dev", "end=0").contains("sleep 1001"), "{mechanism}");
        says("stats dev", "end=0");
        says("freeze dev", "end=0");
        let beat = || fixture.scratch.file("beat").metadata().map_or(0, |file| file.len());
        let before = beat();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(beat(), before, "{mechanism}: a frozen member ran");
        says("thaw dev", "end=0");
        eventually("it runs again", || beat() > before);
        says("exec dev -- sh -c 'exit 7'", "end=7");
        says("exec dev -- sh -c 'kill -USR1 $$'", &format!("end={}", 128 + libc::SIGUSR1));
        says("exec dev -- ./missing", "end=127");
        says("exec dev -- tty", "/dev/pts/");
        says("exec dev -- sh -c 'echo $PPID >by; sleep 1002' & sleep 0", "end=0");
        eventually("the new member is listed", || {
            text(&fixture.output_of(&["tree", "dev"]).stdout).contains("sleep 1002")
        });
        says("kill dev", "end=0");
        first.expect("status=143");
        third.expect("waited=143");
        drop((first, second, third));
        fixture.assert_empty();
    }
}

/// Ctrl-C ends a program started by `exec`, and the job continues.
#[test]
fn ctrl_c_reaches_exec() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let mut owner = fixture.start(&mechanism, "dev", &["sleep", "1000"]);
        let mut pty = fixture.terminal();
        pty.send("\"$ONEJOB\" exec dev -- sh -c 'echo $$ >ready; exec sleep 1000'\n");
        let member: u32 = line(&fixture.scratch.file("ready")).parse().unwrap();
        pty.send("\x03");
        eventually("it ends", || !lives(member));
        pty.expect("READY> ");
        pty.send("echo sta''tus=$?\n");
        pty.expect("status=130");
        assert!(owner.try_wait().unwrap().is_none(), "{mechanism}: the job continues");
        fixture.expect_status(&["kill", "--now", "dev"], 0);
        assert_eq!(wait(&mut owner).signal(), Some(libc::SIGKILL));
        fixture.assert_empty();
    }
}

/// Each `wait` returns CMD's exit status.
#[test]
fn wait_returns_the_status() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let cases: [(&[&str], &str, i32); 4] = [
            (&["--", "sh", "-c", "read x <go; exit 3"], "", 3),
            (&["--", "sh", "-c", "read x <go; kill -QUIT $$"], "", 131),
            (&["--", "sleep", "1000"], "kill", 143),
            (&["-k", "1d", "--wait-all", "--", "sh", "-c", "read x <go; exit 4"], "", 4),
        ];
        for (args, end, status) in cases {
            rustix::fs::mknodat(
                rustix::fs::CWD,
                fixture.scratch.file("go"),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RWXU,
                0,
            )
            .unwrap();
            let mut owner = fixture.start(&mechanism, "dev", args);
            let mut other = fixture.start(&mechanism, "other", &["sleep", "1000"]);
            let mut waiters: Vec<_> =
                (0..2).map(|_| fixture.onejob(&["wait", "dev"]).spawn().unwrap()).collect();
            let mut of_several = fixture.onejob(&["wait", "other", "dev"]).spawn().unwrap();
            eventually("all wait", || {
                let waits = |pid: u32| read(format!("/proc/{pid}/wchan")).contains("poll");
                let ids = waiters.iter().chain([&of_several]).map(|waiter| waiter.id());
                ids.into_iter().all(|pid| waits(pid) || !lives(pid) || state(pid) == Some('S'))
            });
            if args.iter().any(|word| word.contains("read x")) {
                std::fs::write(fixture.scratch.file("go"), "x\n").unwrap();
            }
            if !end.is_empty() {
                fixture.expect_status(&[end, "dev"], 0);
            }
            let code = |status: std::process::ExitStatus| {
                status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
            };
            assert_eq!(code(wait(&mut owner)), status, "{mechanism}: {args:?}");
            for waiter in &mut waiters {
                assert_eq!(wait(waiter).code(), Some(status), "{mechanism}: {args:?}");
            }
            fixture.expect_status(&["kill", "other"], 0);
            assert_eq!(wait(&mut of_several).code(), Some(status), "{mechanism}: {args:?}");
            wait(&mut other);
            std::fs::remove_file(fixture.scratch.file("go")).unwrap();
            fixture.assert_empty();
        }
    }
}

/// `wait` reports that the status is unknown when the owner was killed.
#[test]
fn wait_after_the_owner_was_killed() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let mut owner = fixture.start(&mechanism, "dev", &["sleep", "1000"]);
        let waiter = fixture.onejob(&["wait", "dev"]).stderr(Stdio::piped()).spawn().unwrap();
        eventually("it waits", || state(waiter.id()) == Some('S'));
        thread::sleep(Duration::from_millis(50));
        kill(owner.id(), libc::SIGKILL);
        wait(&mut owner);
        let output = waiter.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{mechanism}: {said}");
        assert!(said.starts_with("onejob: dev: ") && said.lines().count() == 1, "{said}");
        fixture.assert_empty();
    }
}

/// A process that `exec` starts has the scheduling of its caller, not that of the job's guard.
#[test]
fn exec_passes_on_the_callers_scheduling() {
    const LOOK: &str = "cut -d' ' -f19 /proc/self/stat; grep ^Cpus_allowed: /proc/self/status; \
        cat /proc/self/oom_score_adj /proc/self/coredump_filter; ionice -p $$";
    const CHANGED: &str = "echo 0x73 >/proc/self/coredump_filter; echo 77 >/proc/self/oom_score_adj; \
        exec nice -n 7 taskset 1 ionice -c 2 -n 6 \"$@\"";
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let mut owner = fixture.start(&mechanism, "dev", &["sleep", "1000"]);
        let seen = |words: &[&str]| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", CHANGED, "sh"]).args(words).args(["sh", "-c", LOOK]);
            let output = outcome(fixture.apply_to(&mut command));
            assert!(output.status.success(), "{mechanism}: {}", text(&output.stderr));
            text(&output.stdout)
        };
        let expected = seen(&["env"]);
        assert_eq!(expected.lines().next(), Some("7"), "{expected}");
        assert_eq!(seen(&[crate::common::ONEJOB, "exec", "dev", "--"]), expected, "{mechanism}");
        fixture.expect_status(&["kill", "dev"], 0);
        wait(&mut owner);
        fixture.assert_empty();
    }
}

/// Another user can neither list nor change a job.
#[test]
fn another_user() {
    if !is_root() {
        skip!("only root can start processes of two users");
    }
    let fixture = Fixture::new();
    let mut owner = fixture.start("subreaper", "dev", &["sleep", "1000"]);
    let id = fixture.json(&["ls", "--json"])["jobs"][0]["id"].as_str().unwrap().to_owned();
    let theirs = Fixture::new();
    std::os::unix::fs::chown(theirs.scratch.path(), Some(54_321), Some(54_321)).unwrap();
    for runtime in [fixture.runtime(), theirs.runtime()] {
        let is_ours = runtime == fixture.runtime();
        let as_other_user = |args: &[&str]| {
            // Other users may not be able to read the build directory; the descriptor works for them.
            let fd = File::open(crate::common::ONEJOB).unwrap();
            let mut command =
                std::process::Command::new(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            // The descriptor must survive `execve`.
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
            theirs.apply_to(&mut command).env("ONEJOB_RUNTIME_DIR", &runtime).current_dir("/");
            let output = outcome(command.args(args).uid(54_321).gid(54_321));
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        for args in [
            &["ls"][..],
            &["tree", "dev"],
            &["kill", "--now", "dev"],
            &["wait", "dev"],
            &["stats", "dev"],
            &["freeze", "dev"],
            &["thaw", &id],
            &["exec", "dev", "--", "touch", "never"],
            &["logs", "dev"],
        ] {
            let (code, stdout, stderr) = as_other_user(args);
            assert!(!stdout.contains("dev") && !stdout.contains(&id), "{args:?}: {stdout}");
            let lists = args == ["ls"] && !is_ours;
            assert_eq!(code, Some(if lists { 0 } else { 125 }), "{args:?}: {stderr}");
            assert!(
                if lists { stderr.is_empty() } else { is_error(&stderr) },
                "{args:?}: {stderr}"
            );
        }
    }
    assert!(owner.try_wait().unwrap().is_none());
    fixture.expect_status(&["kill", "dev"], 0);
    wait(&mut owner);
    fixture.assert_empty();
}
