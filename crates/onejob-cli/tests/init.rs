//! `onejob init`, tini and dumb-init, as PID 1 of a PID namespace and below another init.
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
    Marked as _, ONEJOB, Scratch, eventually,
    inits::{
        Container, Program, can_contain, children, needs_containers, needs_originals, original,
    },
    kill, line, lives, mechanisms, outcome, read,
    recorder::{Recorders, recorder},
    skip, state, text, wait,
};

/// The last signal of a test: a signal that is delivered twice arrives before it.
const FENCE: i32 = 64;

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

/// As PID 1, each signal reaches CMD once.
#[test]
fn pid_1_forwards_each_signal_once() {
    needs_containers!();
    let scratch = Scratch::new();
    for (index, init) in inits(&scratch).into_iter().enumerate() {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let mut command = init.contained(&[&recorder()]);
        let mut container = Container::start(recorders.below(&mut command));
        let pid = recorders.ready(1)[0];
        let mut signals = FORWARDED.to_vec();
        // dumb-init does not support real-time signals.
        if init.name != "dumb-init" || !init.is_original {
            signals.extend([34, 50, FENCE]);
        }
        for signal in &signals {
            kill(container.first, *signal);
            recorders.gets(pid, *signal, 1);
        }
        assert_eq!(recorders.got(pid), signals, "{index} {init:?}");
        recorders.end();
        assert_eq!(container.wait().code(), Some(0), "{init:?}");
    }
    needs_originals!("tini", "dumb-init");
}

/// With `-g`, the other members of CMD's process group receive the signal too; without, they do
/// not.
#[test]
fn signals_to_the_process_group() {
    needs_containers!();
    let outer = Scratch::new();
    let all = inits(&outer).into_iter().map(|init| (init, false));
    for (init, to_group) in all.chain(group_inits(&outer).into_iter().map(|init| (init, true))) {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        // The shell leads the process group; the second recorder is in it.
        let tree = "\"$RECORDER\" & echo $! >second; exec \"$RECORDER\"";
        let mut command = init.contained(&["sh", "-c", tree]);
        command.current_dir(scratch.path());
        let mut container = Container::start(recorders.below(&mut command));
        let pids = recorders.ready(2);
        let second: u32 = line(&scratch.file("second")).parse().unwrap();
        let cmd = pids.iter().copied().find(|pid| *pid != second).unwrap();
        kill(container.first, libc::SIGUSR1);
        recorders.gets(cmd, libc::SIGUSR1, 1);
        if to_group {
            recorders.gets(second, libc::SIGUSR1, 1);
        }
        kill(container.first, libc::SIGUSR2);
        recorders.gets(cmd, libc::SIGUSR2, 1);
        let expected = if to_group { vec![libc::SIGUSR1, libc::SIGUSR2] } else { vec![] };
        eventually("both signals", || recorders.got(second).len() >= expected.len());
        assert_eq!(recorders.got(second), expected, "{init:?}");
        recorders.end();
        assert_eq!(container.wait().code(), Some(0), "{init:?}");
    }
    needs_originals!("tini", "dumb-init");
}

/// `-r FROM:TO` forwards FROM as TO, or not at all.
#[test]
fn rewritten_signals() {
    needs_containers!();
    let outer = Scratch::new();
    let options = ["-r", "15:3", "--rewrite", "1:0", "-r10:12"];
    let mut all = vec![Program::init(&options)];
    let dumb_init = Program::both(&outer, "dumb-init", &["--"]);
    all.extend(dumb_init.into_iter().map(|init| init.with(&options)));
    for init in all {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let mut command = init.contained(&[&recorder()]);
        let mut container = Container::start(recorders.below(&mut command));
        let pid = recorders.ready(1)[0];
        for (sent, gets) in [
            (libc::SIGHUP, None),
            (libc::SIGTERM, Some(libc::SIGQUIT)),
            (libc::SIGUSR1, Some(libc::SIGUSR2)),
            (libc::SIGINT, Some(libc::SIGINT)),
        ] {
            kill(container.first, sent);
            if let Some(signal) = gets {
                recorders.gets(pid, signal, 1);
            }
        }
        let expected = [libc::SIGQUIT, libc::SIGUSR2, libc::SIGINT];
        assert_eq!(recorders.got(pid), expected, "{init:?}");
        recorders.end();
        assert_eq!(container.wait().code(), Some(0), "{init:?}");
    }
    needs_originals!("dumb-init");
}

/// Zombies that are children of this process.
fn zombies(parent: u32) -> usize {
    children(parent).into_iter().filter(|pid| state(*pid) == Some('Z')).count()
}

/// Resident memory in KiB and the number of descriptors.
fn held(pid: u32) -> (u64, usize) {
    let status = read(format!("/proc/{pid}/status"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let memory = line.split_whitespace().next().and_then(|number| number.parse().ok());
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    (memory.unwrap_or(0), descriptors)
}

/// Leaves many orphans; writes a file after the first `early` and after all.
fn orphans(early: u32, all: u32) -> String {
    format!(
        "i=0; while [ $i -lt {all} ]; do (true &); i=$((i+1)); \
         if [ $i = {early} ]; then echo >early; while ! [ -e go ]; do sleep .01; done; fi; done; \
         echo >all; while ! [ -e end ]; do sleep .01; done; exit 5"
    )
}

/// 10,000 orphans are reaped while CMD runs, and neither memory nor descriptors grow.
#[test]
fn ten_thousand_orphans() {
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

/// Orphans are reaped also below another init.
#[test]
fn orphans_below_another_init() {
    for mechanism in mechanisms() {
        let scratch = Scratch::new();
        let mut command = common::onejob(&["init", "--mechanism", &mechanism, "--", "sh", "-c"]);
        command.arg(orphans(1, 300)).current_dir(scratch.path()).marked(&scratch);
        fs::write(scratch.file("go"), "").unwrap();
        let mut onejob = command.spawn().unwrap();
        line_in(&scratch, "all");
        // Their parent depends on the mechanism.
        let left = || {
            let family: Vec<u32> = children(onejob.id()).into_iter().chain([onejob.id()]).collect();
            family.into_iter().map(zombies).sum::<usize>()
        };
        eventually("every orphan is reaped", || left() == 0);
        fs::write(scratch.file("end"), "").unwrap();
        assert_eq!(wait(&mut onejob).code(), Some(5), "{mechanism}");
    }
}

/// The processes that CMD leaves behind get SIGTERM, and SIGKILL after the grace period.
#[test]
fn leftovers_get_term_then_kill() {
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
            let recorders = Recorders::new(&scratch);
            // A daemon: forked twice, in a session of its own.
            let tree = "(setsid \"$RECORDER\" &); until [ -e go ]; do sleep .01; done; exit 3";
            let cmd = ["sh", "-c", tree];
            let mut command = if contained { init.contained(&cmd) } else { init.command(&cmd) };
            command.current_dir(scratch.path()).marked(&scratch);
            let mut process = recorders.below(&mut command).spawn().unwrap();
            let pid = recorders.ready(1)[0];
            fs::write(scratch.file("go"), "").unwrap();
            assert_eq!(wait(&mut process).code(), Some(3), "{init:?} contained: {contained}");
            assert_eq!(recorders.got(pid), [libc::SIGTERM, libc::SIGCONT], "SIGTERM first");
            scratch.marked_are_gone();
        }
    }
}

/// A CMD that ignores SIGTERM is killed after the time of `-k`; without `-k` it lives on.
#[test]
fn cmd_ignoring_term() {
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
    assert!(lives(container.first), "there is no time limit");
}

/// The exit status is CMD's, 128+n after signal n.
#[test]
fn exit_status_of_cmd() {
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
    // Below another init, onejob has the status of CMD; the drop-ins that of the originals.
    for init in inits(&outer) {
        let status = outcome(&mut init.command(&["sh", "-c", "kill $$"])).status;
        match init.name {
            "init" => assert_eq!(status.signal(), Some(libc::SIGTERM)),
            _ => assert_eq!(status.code(), Some(143), "{init:?}"),
        }
    }
    needs_originals!("tini", "dumb-init");
}

/// `-e CODE` turns CMD's status CODE into 0.
#[test]
fn success_statuses() {
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

/// A missing program gives 127, one that cannot be executed 126.
#[test]
fn missing_or_not_executable_program() {
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

/// Whether CMD leads a process group and a session.
fn places(init: &Program) -> (bool, bool) {
    let output = outcome(&mut init.contained(&["cat", "/proc/self/stat"]));
    let stat = text(&output.stdout);
    let (head, fields) = stat.rsplit_once(") ").unwrap();
    let pid = head.split(' ').next();
    let fields: Vec<_> = fields.split(' ').collect();
    (Some(fields[2]) == pid, Some(fields[3]) == pid)
}

/// CMD leads a process group or a session as under the originals.
#[test]
fn process_group_and_session_of_cmd() {
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

/// When the init is killed, the whole tree ends.
#[test]
fn killed_init() {
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

/// When an init that is PID 1 is killed, the whole tree ends.
#[test]
fn killed_pid_1() {
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

/// PID 1 works without a /proc of its namespace if it can mount one, and with existing children.
#[test]
fn pid_1_without_its_own_proc() {
    if !common::is_root() {
        skip!("only root can make a PID namespace without a user namespace");
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

/// `-w` prints a warning if onejob is not PID 1.
#[test]
fn warning_if_not_pid_1() {
    needs_containers!();
    let init = Program::init(&["-w"]);
    let below = outcome(&mut init.command(&["true"]));
    assert!(text(&below.stderr).starts_with("onejob: not running as PID 1"));
    assert!(below.status.success());
    let first = outcome(&mut init.contained(&["true"]));
    assert_eq!(text(&first.stderr), "");
    assert!(first.status.success());
}

/// CMD inherits the same attributes as without an init.
#[test]
fn attributes_cmd_inherits() {
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
