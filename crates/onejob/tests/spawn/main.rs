//! A child starts exactly as `std::process::Command` would start it.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod concurrent;
mod descriptors;
mod users;

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    process,
};

use common::{alone, for_each_mechanism, job};
use onejob::{Command, Job, Mechanism, Signal, SignalState, Stdio};

/// Prints the attributes with which the shell was started.
const PRINT_ATTRIBUTES: &str = r#"
    grep -E '^(Uid|Gid|Groups|Umask|Seccomp|NoNewPrivs|Cap|Sig(Blk|Ign|Cgt)|Cpus_allowed)' /proc/self/status
    cat /proc/self/limits
    cut -d' ' -f5,6,7,8,19 /proc/$$/stat
    cat /proc/self/oom_score_adj /proc/self/timerslack_ns 2>/dev/null
    for ns in /proc/$$/ns/*; do readlink $ns; done
    pwd; env | sort
    for fd in /proc/$$/fd/*; do echo fd ${fd##*/}; done
    echo "$0" "$@"
"#;

fn attributes_with_std(change: impl FnOnce(&mut process::Command)) -> String {
    let mut command = process::Command::new("sh");
    command.args(["-c", PRINT_ATTRIBUTES, "zero", "one", "t w o", ""]);
    change(&mut command);
    String::from_utf8(command.output().expect("std starts it").stdout).expect("text")
}

fn attributes(job: &Job, change: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", PRINT_ATTRIBUTES, "zero", "one", "t w o", ""]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    change(&mut command);
    output(job, &mut command)
}

fn output(job: &Job, command: &mut Command) -> String {
    let mut child = job.spawn(command.stdout(Stdio::piped())).expect("started");
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    child.wait().expect("a status");
    text
}

/// glibc's `posix_spawn` leaves its internal signals 32 and 33 ignored in the child. Programs do not use them.
fn without_internal_signals(text: &str) -> String {
    let clean = |line: &str| match line.strip_prefix("SigIgn:\t") {
        Some(set) => {
            let set = u64::from_str_radix(set, 16).expect("a signal set");
            format!("SigIgn:\t{:016x}\n", set & !(0b11 << 31))
        }
        None => format!("{line}\n"),
    };
    text.lines().map(clean).collect()
}

/// Compares line by line, so that a failure shows the line.
#[track_caller]
fn assert_same(ours: &str, stds: &str) {
    let (ours, stds) = (without_internal_signals(ours), without_internal_signals(stds));
    let (ours, stds): (BTreeSet<_>, BTreeSet<_>) = (ours.lines().collect(), stds.lines().collect());
    let more: Vec<_> = ours.difference(&stds).collect();
    let less: Vec<_> = stds.difference(&ours).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "only with onejob: {more:#?}\nonly with std: {less:#?}"
    );
    assert!(ours.len() > 40, "too few lines: {ours:#?}");
}

#[test]
fn a_child_starts_exactly_as_std_would_start_it() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        assert_same(&attributes(&job, |_| {}), &attributes_with_std(|_| {}));
    });
}

/// The child inherits changes that the owner has made after it made the job.
#[test]
fn the_child_inherits_what_changed_since() {
    const NAME: &str = "the_child_inherits_what_changed_since";
    if !alone(NAME, |_| {}) {
        return;
    }
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let dir = testkit::scratch_dir();
        std::env::set_current_dir(&dir).expect("a directory");
        // SAFETY: this process has no other thread that reads the environment.
        unsafe { std::env::set_var("CHANGED", "yes") };
        // SAFETY: changes numbers and dispositions of this process only.
        unsafe {
            libc::umask(0o027);
            libc::signal(libc::SIGUSR1, libc::SIG_IGN);
            let limit = libc::rlimit { rlim_cur: 300, rlim_max: 400 };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            libc::setpgid(0, 0);
        }
        let inherited = fs::File::open("/dev/null").expect("a file");
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).expect("a flag");
        assert_same(&attributes(&job, |_| {}), &attributes_with_std(|_| {}));
    });
}

/// The variables, the directory and `argv[0]` are those of the command.
#[test]
fn the_environment_directory_and_argv0() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let ours = attributes(&job, |command| {
            command.env("A", "1").env_remove("HOME").current_dir("/usr").arg0("another");
        });
        let stds = attributes_with_std(|command| {
            command.env("A", "1").env_remove("HOME").current_dir("/usr").arg0("another");
        });
        assert_same(&ours, &stds);
        let cleared = output(&job, Command::new("/usr/bin/env").env_clear().env("B", "2"));
        assert_eq!(cleared, "B=2\n");
    });
}

#[test]
fn the_program_is_searched_in_the_changed_path() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let dir = testkit::scratch_dir();
        let program = dir.join("only-here");
        fs::write(&program, "#!/bin/sh\necho found\n").expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
        let path = format!("/nowhere:{}:/usr/bin:/bin", dir.display());
        assert_eq!(output(&job, Command::new("only-here").env("PATH", &path)), "found\n");
        assert!(job.spawn(Command::new("only-here")).unwrap_err().is_not_found());
    });
}

#[test]
fn exec_errors_are_returned_as_std_returns_them() {
    let dir = testkit::scratch_dir();
    let file = |name: &str, text: &str, mode| {
        let path = dir.join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path.to_str().expect("text").to_owned()
    };
    let programs = [
        file("not-executable", "#!/bin/sh\n", 0o644),
        file("no-interpreter", "#!/nowhere/at/all\n", 0o755),
        file("no-shebang", "echo hello\n", 0o755),
        dir.to_str().expect("text").to_owned(),
        "/nowhere/at/all".to_owned(),
        "no-such-program-anywhere".to_owned(),
        "/dev/null/x".to_owned(),
        "/".to_owned(),
        "x".repeat(5000),
    ];
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        for program in &programs {
            let ours = job.spawn(Command::new(program)).expect_err(program);
            let stds = process::Command::new(program).spawn().expect_err(program);
            assert_eq!(ours.raw_os_error(), stds.raw_os_error(), "{program:.40}: {ours}");
            assert!(ours.is_exec(), "{ours:?}");
        }
        let huge = "x".repeat(3 << 20);
        let error = job.spawn(Command::new("true").arg(huge)).expect_err("too long");
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
        let absent = job.spawn(Command::new("true").current_dir("/nowhere")).expect_err("absent");
        assert!(absent.is_not_found() && !absent.is_exec(), "{absent}");
        assert!(absent.to_string().contains("/nowhere"), "{absent}");
        assert!(job.is_empty().expect("observable"), "a failed spawn left a process");
    });
}

#[test]
fn the_signal_state_is_as_asked() {
    const IGNORED: Signal = Signal::USR2;
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let state = SignalState::new().ignore(IGNORED).block(Signal::HUP);
        let mut command = Command::new("grep");
        command.args(["-E", "^Sig(Blk|Ign)", "/proc/self/status"]).signals(state);
        let blocked = 1_u64 << (libc::SIGHUP - 1);
        let ignored = 1_u64 << (libc::SIGUSR2 - 1);
        let expected = format!("SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n");
        assert_eq!(without_internal_signals(&output(&job, &mut command)), expected);
    });
}

/// A child with `setsid` leads a session. A signal to its group reaches the processes in its group only.
#[test]
fn setsid_child_is_signalled_as_a_group() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let said = output(&job, Command::new("cat").arg("/proc/self/stat").setsid(true));
        let (head, fields) = said.rsplit_once(") ").unwrap();
        let fields: Vec<_> = fields.split(' ').collect();
        let pid = head.split(' ').next().unwrap();
        assert_eq!((fields[2], fields[3]), (pid, pid), "{mechanism}: group and session");

        // The `sleep` in its group ends with it; the `sleep` in another session does not.
        let tree = "setsid sleep 1000 & sleep 1000 & echo; wait";
        let mut command = Command::new("sh");
        command.args(["-c", tree]).process_group(0).stdout(Stdio::piped());
        let mut leader = job.spawn(command).unwrap();
        let mut ready = [0];
        std::io::Read::read_exact(leader.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let has_left =
            || job.processes().unwrap().iter().filter(|p| p.name == "sleep").count() == 2;
        while !has_left() {
            std::thread::yield_now();
        }
        leader.signal_group(Signal::KILL).unwrap();
        assert_eq!(leader.wait().unwrap().signal(), Some(9), "{mechanism}");
        while job.processes().unwrap().len() > 1 {
            std::thread::yield_now();
        }
        // The leader has ended, and no process is left in its group.
        leader.signal_group(Signal::KILL).unwrap();
        assert_eq!(job.processes().unwrap().len(), 1, "{mechanism}");
    });
}

/// A child does not inherit the signal mask of its owner.
#[test]
fn owner_signal_mask_is_not_inherited() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        // SAFETY: changes the mask of this thread, which is the test's own.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        }
        let text = output(&job, Command::new("grep").args(["SigBlk", "/proc/self/status"]));
        assert_eq!(text, "SigBlk:\t0000000000000000\n");
        // SAFETY: reads the mask of this thread into a local.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set);
            assert_eq!(
                libc::sigismember(&raw const set, libc::SIGTERM),
                1,
                "the mask of the owner has changed"
            );
        }
    });
}

/// `pre_exec` runs in the child and does not change the owner.
#[test]
fn pre_exec_runs_in_the_child_only() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static HERE: AtomicU32 = AtomicU32::new(0);
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let mut command = Command::new("sh");
        // SAFETY: changes a number and a mask.
        unsafe {
            command.args(["-c", "umask"]).pre_exec(|| {
                HERE.fetch_add(1, Ordering::Relaxed);
                libc::umask(0o123);
                Ok(())
            })
        };
        if mechanism == Mechanism::Subreaper {
            assert!(job.spawn(&mut command).unwrap_err().is_unsupported());
            return;
        }
        for _ in 0..2 {
            assert_eq!(output(&job, &mut command), "0123\n");
        }
        assert_eq!(HERE.load(Ordering::Relaxed), 0);
        // SAFETY: does nothing.
        unsafe { command.pre_exec(|| Err(std::io::Error::from_raw_os_error(libc::EDOM))) };
        assert_eq!(job.spawn(&mut command).unwrap_err().raw_os_error(), Some(libc::EDOM));
        assert!(job.is_empty().expect("observable"));
    });
}

#[test]
fn a_std_command_is_started_inside() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let mut command = process::Command::new("sleep");
        let started = job.spawn_std(command.arg("300"));
        if mechanism == Mechanism::Subreaper {
            assert!(started.unwrap_err().is_unsupported());
            return;
        }
        let mut child = started.expect("started");
        let pids: Vec<_> = job.processes().expect("a list").iter().map(|p| p.pid()).collect();
        assert_eq!(pids, [child.id()]);
        job.kill().expect("killed");
        assert_eq!(child.wait().expect("a status").signal(), Some(libc::SIGKILL));
    });
}

#[test]
fn a_megabyte_of_arguments_arrives_whole() {
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        for (count, size) in [(0, 0), (1, 20_000), (1, 30_000), (10, 100_000)] {
            let argument = "x".repeat(size);
            let mut command = Command::new("sh");
            command.args(["-c", "printf %s \"$#:$*\" | wc -c", "sh"]);
            command.args(std::iter::repeat_n(&argument, count));
            let whole = format!("{count}:").len() + count * size + count.saturating_sub(1);
            assert_eq!(output(&job, &mut command).trim(), whole.to_string(), "{count} × {size}");
        }
    });
}
