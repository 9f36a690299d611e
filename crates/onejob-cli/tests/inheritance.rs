//! CMD inherits everything as without onejob.
#![cfg(target_os = "linux")]

mod common;

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Output},
};

use common::{ONEJOB, Scratch, mechanisms, outcome, run, skip, text};

/// The outcomes of a shell line with `$RUN` standing for nothing and for `onejob run …`.
fn both(mechanism: &str, line: &str) -> (Output, Output) {
    let shell = |prefix: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-c", &line.replace("$RUN", prefix)]);
        outcome(&mut bash)
    };
    (shell(""), shell(&format!("{ONEJOB} run --mechanism {mechanism} --")))
}

#[track_caller]
fn same(line: &str) {
    for mechanism in mechanisms() {
        let (plain, ours) = both(&mechanism, line);
        assert!(!plain.stdout.is_empty(), "{line} prints nothing: {}", text(&plain.stderr));
        assert_eq!(text(&ours.stdout), text(&plain.stdout), "{mechanism}: {line}");
        assert_eq!(text(&ours.stderr), text(&plain.stderr), "{mechanism}: {line}");
        assert_eq!(ours.status, plain.status, "{mechanism}: {line}");
    }
}

/// Lists its descriptors, without the one that it uses to list them.
const LIST: &str = "bash -c 'for f in /proc/self/fd/*; do test -e $f && echo ${f##*/}; done; true'";

/// CMD inherits the caller's descriptors and none of onejob's.
#[test]
fn descriptors() {
    same(&format!("$RUN {LIST}"));
    same(&format!("$RUN {LIST} 7</dev/null 8>&1 100</"));
    same("$RUN cat <(echo substituted)");
    same("$RUN sh -c 'echo to 9 >&9' 9>&1");
}

/// A closed standard stream stays closed for CMD.
#[test]
fn closed_standard_streams() {
    same(&format!("$RUN {LIST} <&-"));
    same("{ $RUN bash -c 'exec 3>&2; { : >&2; } 2>&3; echo $? >&9' 2>&-; } 9>&1");
    same("$RUN bash -c 'echo x 2>&9 >&1; echo $? >&9' 9>&1 >&-");
}

/// CMD inherits environment, working directory and umask.
#[test]
fn environment_directory_and_umask() {
    same("$RUN env | grep -v '^_=' | sort");
    same("export A='b c' D=; unset HOME; $RUN env | grep -v '^_=' | sort");
    same("env -i A=1 $RUN /usr/bin/env");
    same("cd /usr; $RUN sh -c 'pwd; umask'");
    same("umask 027; $RUN sh -c umask; $RUN grep -i umask /proc/self/status");
}

/// CMD inherits resource limits, nice value, credentials and capabilities.
#[test]
fn rlimits_nice_and_credentials() {
    same("ulimit -n 512; ulimit -c 0; ulimit -s 4096; $RUN cat /proc/self/limits");
    // A guard raises limits that are too small for it: this must not change the limits of CMD.
    same(
        "ulimit -Ss 2048; ulimit -Sf 8; ulimit -Sd 50000; ulimit -Sv 60000; ulimit -St 100; ulimit \
         -Sn 300; $RUN cat /proc/self/limits",
    );
    same("nice -n 5 $RUN nice");
    same(
        "$RUN grep -E '^(SigPnd|ShdPnd|Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap)' \
          /proc/self/status",
    );
    same("$RUN sh -c 'ulimit -a'");
}

/// CMD is in the process group and session of onejob.
#[test]
fn process_group_and_session() {
    for mechanism in mechanisms() {
        let mut command = run(&mechanism, &["--", "cat", "/proc/self/stat"]);
        let stat = text(&outcome(command.process_group(0)).stdout);
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let [_, _, group, session, ..] = fields.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{stat}")
        };
        // std has made onejob the leader of a new group.
        assert_ne!(Some(group), common::stat(std::process::id(), 2).as_deref());
        assert_ne!(stat.split(' ').next(), Some(group), "{mechanism}: CMD is in another group");
        assert_eq!(Some(session), common::stat(std::process::id(), 3).as_deref(), "{mechanism}");
    }
}

/// Arguments reach CMD byte by byte.
#[test]
fn arguments() {
    same("$RUN printf '<%s>' a 'b c' '' '*' -- -t --help $'\\xff\\n'");
}

/// onejob reads nothing from standard input.
#[test]
fn standard_input() {
    same("echo hello | $RUN cat");
    same("printf 'a\\nb\\n' | { $RUN head -c 0; $RUN sh -c 'read x; echo $x'; cat; }");
}

/// The jobserver of make works through `onejob run`.
#[test]
fn make_jobserver() {
    if Command::new("make").arg("--version").output().is_err() {
        skip!("make is not installed");
    }
    let scratch = Scratch::new();
    let makefile = format!(
        "all: a b\na b:\n\t+@test -n \"$$MAKEFLAGS\" && {ONEJOB} run -- $(MAKE) --no-print-directory \
         sub\nsub:\n\t@echo sub\n"
    );
    std::fs::write(scratch.file("Makefile"), makefile).unwrap();
    for mechanism in mechanisms() {
        let mut command = run(&mechanism, &["--", "make", "--no-print-directory", "-j2"]);
        let output = outcome(command.current_dir(scratch.path()));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "sub\nsub\n");
        // Without the descriptors make prints "jobserver unavailable".
        assert_eq!(text(&output.stderr), "", "{mechanism}");
    }
}

/// Nested runs end together, with the innermost status and without a message.
#[test]
fn nested_runs() {
    let scratch = Scratch::new();
    for outer in mechanisms() {
        for inner in mechanisms() {
            let line = format!(
                "setsid sleep 1000 & exec {ONEJOB} run --mechanism {inner} -- sh -c 'setsid sleep \
                 1000 & exit 9'"
            );
            let mut command = run(&outer, &["--", "sh", "-c", &line]);
            let output = outcome(common::Marked::marked(&mut command, &scratch));
            assert_eq!(output.status.code(), Some(9), "{inner} in {outer}");
            assert_eq!(text(&output.stderr), "", "{inner} in {outer}");
            scratch.marked_are_gone();
        }
    }
}

/// The mapped and the resident kilobytes of a program's read-only segments.
fn program_of(pid: u32) -> Option<[u64; 2]> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let (mut sizes, mut is_counted) = ([0; 2], false);
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [place, mode, _, _, _, ref file @ ..] if place.contains('-') => {
                is_counted = file.concat() == program.to_str()? && !mode.contains('w');
            }
            ["Size:", size, _] if is_counted => sizes[0] += size.parse::<u64>().ok()?,
            ["Rss:", size, _] if is_counted => sizes[1] += size.parse::<u64>().ok()?,
            _ => {}
        }
    }
    Some(sizes)
}

/// A waiting run keeps less than half of its program resident.
#[test]
fn resident_memory_of_a_waiting_run() {
    for mechanism in mechanisms() {
        let mut command = run(&mechanism, &["--", "sleep", "1000"]);
        let mut waiting = command.spawn().unwrap();
        let deadline = std::time::Instant::now() + common::HANG;
        let is_small =
            |sizes: Option<[u64; 2]>| sizes.is_some_and(|[all, held]| 0 < held && 2 * held < all);
        // It is also small at the start, so it must be small twice.
        let (mut sizes, mut times) = (None, 0);
        while times < 2 && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(100));
            sizes = program_of(waiting.id());
            times = if is_small(sizes) { times + 1 } else { 0 };
        }
        // It still works: a signal is forwarded.
        let pid = rustix::process::Pid::from_child(&waiting);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = waiting.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15), "{mechanism}");
        assert!(times == 2, "{mechanism}: {sizes:?}");
    }
}
