//! The scenarios on Windows. A process cannot fork there: every helper process runs this program,
//! `helper PART REPORT [ARGS…]`, and gets the pid of its starter in its environment.

#![allow(clippy::zombie_processes, reason = "a process without an open handle leaves nothing")]

use std::{
    env, fs,
    os::windows::process::CommandExt as _,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use testkit::proc::{Held, Request};
use windows_sys::Win32::System::Threading::{
    CREATE_NEW_CONSOLE, CREATE_NEW_PROCESS_GROUP, DETACHED_PROCESS,
};

use crate::{arg, beside, invocation, report};

pub(crate) mod sys {
    //! System calls that the common part needs.

    use std::{
        fs::{self, File},
        io,
        os::windows::fs::OpenOptionsExt as _,
        path::Path,
    };

    use windows_sys::Win32::{
        Foundation::ERROR_SHARING_VIOLATION,
        Storage::FileSystem::{FILE_SHARE_READ, FILE_TYPE_PIPE, GetFileType},
        System::Console::{GetConsoleCP, GetStdHandle, STD_OUTPUT_HANDLE},
    };

    pub(crate) type Pid = i32;

    pub(crate) fn pid() -> Pid {
        std::process::id() as Pid
    }

    /// The pid of the starter, from the environment.
    pub(crate) fn parent() -> Pid {
        std::env::var(super::STARTER).ok().and_then(|pid| pid.parse().ok()).unwrap_or(0)
    }

    /// Opened exclusively for writing: under Wine, concurrent appends lose a line.
    pub(crate) fn open_to_append(path: &Path) -> io::Result<File> {
        let mut options = fs::OpenOptions::new();
        options.create(true).append(true).share_mode(FILE_SHARE_READ);
        loop {
            match options.open(path) {
                Err(e) if e.raw_os_error() == Some(ERROR_SHARING_VIOLATION.cast_signed()) => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                opened => return opened,
            }
        }
    }

    /// Whether the calling process has a console, and a pipe as its standard output.
    pub(crate) fn place() -> String {
        // SAFETY: all of them take or give numbers; a handle that is none has no type.
        let (has_console, kind) =
            unsafe { (GetConsoleCP() != 0, GetFileType(GetStdHandle(STD_OUTPUT_HANDLE))) };
        let stdout = if kind == FILE_TYPE_PIPE { "pipe" } else { "other" };
        format!("console={} stdout={stdout}", u8::from(has_console))
    }

    pub(crate) fn exit(status: i32) -> ! {
        std::process::exit(status)
    }
}

const STARTER: &str = "HELPER_STARTER";

pub(crate) const SCENARIOS: &[(&str, fn())] = &[
    ("generations", || generation(2)),
    ("generation", generations_next),
    ("daemon", daemonise),
    ("daemon-middle", daemon_middle),
    ("daemon-body", daemon_body),
    ("daemon-grandchild", || drop(start_part("daemon-parent", &[], 0))),
    ("daemon-parent", || {
        start_part("daemon-holder", &[], DETACHED_PROCESS);
        rest()
    }),
    ("daemon-holder", || {
        daemonise();
        rest()
    }),
    ("respawn", respawn),
    ("link", link),
    ("keeper", keep),
    ("kept", kept),
    ("hoppers", hoppers),
    ("hop", hop),
    ("many", || branches(0, number(0))),
    ("branch", branch),
    ("below", below),
    ("setsid", hold_stdout),
    ("hold-stdout", hold_stdout),
    ("holder", || {
        // Inherited, and not announced: it is passed on to the child.
        start_part("held", &[], DETACHED_PROCESS);
        rest()
    }),
    ("held", escapee),
    ("sleep", || {
        report("sleeper", sys::parent());
        rest()
    }),
    ("exit", || sys::exit(arg(0).parse().expect("a status"))),
];

/// Starts a part as a child of this process.
fn start_part(part: &str, args: &[&str], flags: u32) -> Child {
    let mut command = Command::new(env::current_exe().expect("our own program"));
    command.arg(part).arg(&invocation().report).args(args).env(STARTER, sys::pid().to_string());
    command.stdin(Stdio::null()).creation_flags(flags);
    start(&mut command)
}

/// Wine cannot start one process of some thousands when many start at once (measured without any
/// job): error 1359, `ERROR_INTERNAL_ERROR`, which Windows does not give here.
fn start(command: &mut Command) -> Child {
    for _ in 0..10 {
        match command.spawn() {
            Err(error) if error.raw_os_error() == Some(1359) => {}
            Err(error) => panic!("failed to start {command:?}: {error}"),
            Ok(child) => return child,
        }
    }
    panic!("failed to start {command:?} ten times")
}

fn number(index: usize) -> usize {
    arg(index).parse().expect("a number")
}

/// No process stays for ever.
fn rest() -> ! {
    thread::sleep(Duration::from_secs(crate::lifetime_limit::LIFETIME_SECONDS.unsigned_abs()));
    sys::exit(0)
}

fn escapee() {
    report("escapee", sys::parent());
    rest()
}

/// Main, child, grandchild and great-grandchild: in its own console group, without a console,
/// in a new one.
fn generation(number: usize) {
    let flags = [CREATE_NEW_PROCESS_GROUP, DETACHED_PROCESS, CREATE_NEW_CONSOLE][number % 3];
    start_part("generation", &[&number.to_string()], flags);
}

fn generations_next() {
    let number = number(0);
    if number < 4 {
        generation(number + 1);
    }
    report(&format!("generation{number}"), sys::parent());
    rest()
}

/// Returns once the daemon has no parent any more. It has no console, and announces itself then.
fn daemonise() {
    let mut middle = start_part("daemon-middle", &[], DETACHED_PROCESS);
    middle.wait().expect("a child of this process");
}

fn daemon_middle() {
    start_part("daemon-body", &[], DETACHED_PROCESS);
    sys::exit(0)
}

fn daemon_body() {
    let alive = |pid| Held::open(pid).is_some_and(|held| held.lives());
    while alive(sys::parent()) {
        thread::sleep(Duration::from_millis(1));
    }
    escapee()
}

const LINKS: usize = 40;

/// A process that gets a termination request starts the next one first. Beside that chain, a keeper
/// replaces its child whenever it was killed.
fn respawn() {
    start_part("link", &["1"], DETACHED_PROCESS);
    start_part("keeper", &[], DETACHED_PROCESS);
}

fn link() {
    let request = Request::to(sys::pid()).expect("an event");
    let number = number(0);
    report(&format!("link{number}"), sys::parent());
    request.wait();
    if number < LINKS {
        start_part("link", &[&(number + 1).to_string()], DETACHED_PROCESS);
    }
    sys::exit(0)
}

fn keep() {
    report("keeper", sys::parent());
    for number in 1..=LINKS {
        let mut child = start_part("kept", &[&number.to_string()], DETACHED_PROCESS);
        child.wait().expect("a child of this process");
    }
    rest()
}

fn kept() {
    report(&format!("kept{}", arg(0)), sys::parent());
    rest()
}

/// Runs for more than a minute if it is not killed.
const HOPS: usize = 5_000;

/// Two chains, each link of which starts the next and exits. The file `REPORT.hops` shows the
/// number of the latest hop of the first.
fn hoppers() {
    for chain in ["0", "1"] {
        start_part("hop", &[chain, "0"], DETACHED_PROCESS);
    }
}

fn hop() {
    let (chain, hop) = (number(0), number(1));
    if hop == 0 {
        report(&format!("hopper{chain}"), sys::parent());
    }
    if chain == 0 {
        let _ = fs::write(beside(".hops"), hop.to_string());
    }
    if hop < HOPS {
        start_part("hop", &[arg(0), &(hop + 1).to_string()], DETACHED_PROCESS);
    }
    sys::exit(0)
}

/// Ten children each; one in three has no console.
fn branches(node: usize, total: usize) {
    for child in (10 * node + 1..=10 * node + 10).take_while(|child| *child < total) {
        let flags = if child % 3 == 0 { DETACHED_PROCESS } else { 0 };
        start_part("branch", &[&child.to_string(), &total.to_string()], flags);
    }
}

fn branch() {
    branches(number(0), number(1));
    report("many", sys::parent());
    rest()
}

/// `below REPORT PROGRAM ARGS…`: runs a program as its child, and stays when that has ended.
fn below() {
    let mut program = Command::new(arg(0));
    start(program.args(&invocation().args[1..]).stdin(Stdio::null()));
}

/// A grandchild that keeps the standard output of the main process open.
fn hold_stdout() {
    start_part("holder", &[], 0);
}
