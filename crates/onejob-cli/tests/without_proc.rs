//! Inits and drop-ins where no `/proc` is mounted, as in a minimal container or a chroot.
#![cfg(target_os = "linux")]

mod common;

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use common::{
    Marked as _, ONEJOB, Scratch, eventually,
    inits::{Container, Ends, Program},
    is_root, kill, line, lives, outcome,
    recorder::{Recorders, recorder},
    skip, text, wait, with_signals,
};

/// The process that has no `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    /// Root of this host, which may mount a `/proc`.
    Root,
    /// Root of a user namespace, which may mount one in a PID namespace of its own.
    NamespaceRoot,
    /// A user without capabilities.
    Ordinary,
}

use User::{NamespaceRoot, Ordinary, Root};

/// Where the program is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// As PID 1 of a PID namespace.
    Pid1,
    /// Below other processes.
    Below,
}

/// The users that this test can have here.
fn users() -> Vec<User> {
    let all = [Root, NamespaceRoot, Ordinary];
    all.into_iter().filter(|user| *user != Root || is_root()).collect()
}

/// Whether namespaces without `/proc` can be made here.
fn can_unmount() -> bool {
    [NamespaceRoot, Ordinary].into_iter().all(|user| {
        let mut probe = without_proc(user, Place::Below, "test", &["!", "-e", "/proc/self"]);
        probe.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    })
}

macro_rules! needs_namespaces {
    () => {
        if !can_unmount() {
            skip!("no mount namespace can be made here (unshare)");
        }
    };
}

/// `program args` where an empty directory is in the place of `/proc`.
fn without_proc(user: User, place: Place, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    match user {
        Root => {}
        NamespaceRoot => _ = command.args(["--user", "--map-root-user"]),
        Ordinary => {
            command.args(["--user", "--map-user=1000", "--map-group=1000", "--keep-caps"]);
        }
    }
    if place == Place::Pid1 {
        command.args(["--pid", "--fork", "--kill-child"]);
    }
    let drop = match user {
        Ordinary => "setpriv --ambient-caps=-all --inh-caps=-all --",
        Root | NamespaceRoot => "",
    };
    let script = format!("mount -t tmpfs none /proc; exec {drop} \"$@\"");
    command.args(["--", "sh", "-ec", &script, "sh", program]).args(args);
    with_signals(&mut command, &[], &[]);
    command
}

impl Program {
    fn without_proc(&self, user: User, place: Place, cmd: &[&str]) -> Command {
        let args = [&self.args[..], cmd].concat();
        without_proc(user, place, self.path.to_str().unwrap(), &args)
    }
}

fn inits(scratch: &Scratch) -> Vec<Program> {
    let mut all = vec![Program::init(&[])];
    all.extend(Program::both(scratch, "tini", &["-s", "--"]));
    all.extend(Program::both(scratch, "dumb-init", &["-c", "--"]));
    all
}

/// The drop-ins below other processes, and the originals.
fn drop_ins(scratch: &Scratch) -> Vec<Program> {
    let mut all = inits(scratch).split_off(1);
    all.extend(Program::both(scratch, "timeout", &["300"]));
    all
}

/// The programs that work in each place, each with a user.
fn all(scratch: &Scratch) -> Vec<(Program, User, Place)> {
    let mut all = Vec::new();
    for user in users() {
        all.extend(inits(scratch).into_iter().map(|program| (program, user, Place::Pid1)));
        all.extend(drop_ins(scratch).into_iter().map(|program| (program, user, Place::Below)));
    }
    all
}

/// Inits as PID 1, and the drop-ins anywhere, run CMD and exit with its status.
#[test]
fn exit_status_of_cmd() {
    needs_namespaces!();
    let scratch = Scratch::new();
    for (program, user, place) in all(&scratch) {
        for (cmd, expected) in [("exit 0", 0), ("exit 7", 7)] {
            let output = outcome(&mut program.without_proc(user, place, &["sh", "-c", cmd]));
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(expected), "{user:?} {program:?}: {stderr}");
            if !program.is_original {
                assert_eq!(stderr, "", "{user:?} {place:?} {program:?}");
            }
        }
        let output = outcome(&mut program.without_proc(user, place, &["sh", "-c", "kill -9 $$"]));
        let ends = Ends::from(output.status);
        let killed = matches!(ends, Ends::With(137) | Ends::By(9));
        assert!(killed, "{user:?} {place:?} {program:?}: {ends:?}");
    }
}

/// A signal reaches CMD once.
#[test]
fn forwards_signals() {
    needs_namespaces!();
    let outer = Scratch::new();
    for (program, user, place) in all(&outer) {
        let scratch = Scratch::new();
        let recorders = Recorders::new(&scratch);
        let mut command = program.without_proc(user, place, &[&recorder()]);
        recorders.below(&mut command).marked(&scratch);
        let signals = [libc::SIGTERM, libc::SIGHUP, libc::SIGINT];
        let at = format!("{user:?} {place:?} {program:?}");
        let status = match place {
            Place::Pid1 => {
                let mut container = Container::start(&mut command);
                let pid = recorders.ready(1)[0];
                forward(&recorders, container.first, pid, &signals, &at);
                container.wait()
            }
            Place::Below => {
                // A group of its own: timeout becomes the leader of one, or is it already.
                let mut child = command.process_group(0).spawn().unwrap();
                let pid = recorders.ready(1)[0];
                forward(&recorders, child.id(), pid, &signals, &at);
                wait(&mut child)
            }
        };
        assert_eq!(status.code(), Some(0), "{at}");
    }
}

fn forward(recorders: &Recorders, program: u32, cmd: u32, signals: &[i32], at: &str) {
    for signal in signals {
        kill(program, *signal);
        eventually(&format!("{at}: signal {signal} is forwarded"), || {
            recorders.got(cmd).contains(signal)
        });
    }
    // The original timeout signals CMD and then its group, so that CMD can get a signal twice.
    if !at.contains("is_original: true") {
        let mut got = recorders.got(cmd);
        got.retain(|signal| *signal != libc::SIGCONT);
        assert_eq!(got, signals, "{at}");
    }
    recorders.end();
}

/// As PID 1, the leftovers of CMD receive SIGTERM, and SIGKILL after the grace period, wherever they are.
#[test]
fn pid_1_stops_leftovers() {
    needs_namespaces!();
    for user in users() {
        let scratch = Scratch::new();
        let script = format!(
            "cd {}; setsid sh -c 'trap \"echo term >term; exit\" TERM; echo $$ >one; \
             while :; do sleep .05; done' & \
             setsid sh -c 'trap \"\" TERM; echo $$ >two; while :; do sleep .05; done' & \
             while ! [ -s one ] || ! [ -s two ]; do sleep .01; done; exit 6",
            scratch.str()
        );
        for init in [Program::init(&["-k", ".3"]), Program::init(&["-k", "0"])] {
            let mut command = init.without_proc(user, Place::Pid1, &["sh", "-c", &script]);
            let output = outcome(command.marked(&scratch));
            assert_eq!(output.status.code(), Some(6), "{user:?}: {}", text(&output.stderr));
            scratch.marked_are_gone();
            if init.args.contains(&".3") {
                assert_eq!(line(&scratch.file("term")), "term", "{user:?}");
            }
        }
    }
}

/// As PID 1 with `-k`, CMD is killed if SIGTERM does not end it.
#[test]
fn pid_1_kills_cmd_after_the_grace_period() {
    needs_namespaces!();
    for user in users() {
        let scratch = Scratch::new();
        let script =
            format!("trap '' TERM; echo >{}/up; while :; do sleep .05; done", scratch.str());
        let init = Program::init(&["-k", ".2"]);
        let mut command = init.without_proc(user, Place::Pid1, &["sh", "-c", &script]);
        let mut container = Container::start(command.marked(&scratch));
        line(&scratch.file("up"));
        kill(container.first, libc::SIGTERM);
        assert_eq!(container.wait().code(), Some(137), "{user:?}");
        scratch.marked_are_gone();
    }
}

/// `timeout` ends CMD and its process group at the time limit, with the statuses of the original; no
/// process outside is signalled.
#[test]
fn timeout_ends_the_group() {
    needs_namespaces!();
    let outer = Scratch::new();
    for user in users() {
        for (options, status) in [
            (&[".3"][..], Ends::With(124)),
            (&["-s", "KILL", ".3"], Ends::By(9)),
            (&["-k", ".2", ".3"], Ends::By(9)),
        ] {
            for program in Program::both(&outer, "timeout", options) {
                let scratch = Scratch::new();
                let mut bystander = Command::new("sleep").arg("1000").spawn().unwrap();
                let trap = if status == Ends::By(9) { "trap '' TERM;" } else { "" };
                let script = format!("{trap} sleep 1000 & sleep 1000; sleep 1000");
                let mut command = program.without_proc(user, Place::Below, &["sh", "-c", &script]);
                let output = outcome(command.marked(&scratch));
                let stderr = text(&output.stderr);
                let at = format!("{user:?} {program:?}: {stderr}");
                assert_eq!(Ends::from(output.status), status, "{at}");
                scratch.marked_are_gone();
                assert!(lives(bystander.id()), "{at}");
                bystander.kill().unwrap();
                bystander.wait().unwrap();
            }
        }
    }
}

/// With `--foreground` the original signals CMD alone; ours exits as it does.
#[test]
fn timeout_in_the_foreground() {
    needs_namespaces!();
    let outer = Scratch::new();
    for user in users() {
        for (options, status) in
            [(&["--foreground", ".3"][..], 124), (&["--foreground", "-sKILL", ".3"], 137)]
        {
            for program in Program::both(&outer, "timeout", options) {
                let mut command = program.without_proc(user, Place::Below, &["sleep", "1000"]);
                let output = outcome(&mut command);
                let at = format!("{user:?} {program:?}: {}", text(&output.stderr));
                assert_eq!(output.status.code(), Some(status), "{at}");
            }
        }
    }
}

/// What needs `/proc` fails before anything is started, and names the reason.
#[test]
fn the_others_say_what_they_need() {
    needs_namespaces!();
    for user in users() {
        for args in [&["run"][..], &["run", "-d"], &["run", "-n", "x"], &["init"]] {
            let scratch = Scratch::new();
            let started = scratch.file("started");
            let args = [args, &["--", "touch", started.to_str().unwrap()]].concat();
            let output = outcome(&mut without_proc(user, Place::Below, ONEJOB, &args));
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{user:?} {args:?}: {stderr}");
            assert!(common::is_error(&stderr), "{stderr}");
            assert!(stderr.contains("/proc is not mounted"), "{user:?} {args:?}: {stderr}");
            assert!(!started.exists(), "{user:?} {args:?}");
        }
    }
}
