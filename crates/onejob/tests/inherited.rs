//! The attributes that a child inherits from the thread that starts it, also if a guard is its parent.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    io::{Error, Read as _},
    process,
    sync::mpsc::channel,
};

use common::{alone, await_guards, for_each_mechanism, is_alone, job};
use onejob::{Command, Job, Mechanism, Stdio};

/// Prints the scheduling and memory attributes of the shell. Only a child of a real-time thread has a timer
/// slack of 0; the value cannot be set, so 1 is treated as 0.
const PRINT_ATTRIBUTES: &str = r#"
    grep -E '^(Cpus_allowed|THP_enabled)' /proc/self/status
    cut -d' ' -f18,19,40,41 /proc/self/stat
    sed 's/^1$/0/' /proc/self/timerslack_ns
    cat /proc/self/personality
    cat /proc/self/oom_score_adj /proc/self/coredump_filter
    ionice -p $$
    chrt -p $$ | sed "s/ $$'s / /"
"#;

fn attributes_with_std() -> String {
    let output =
        process::Command::new("sh").args(["-c", PRINT_ATTRIBUTES]).output().expect("std starts it");
    String::from_utf8(output.stdout).expect("text")
}

fn attributes(job: &Job) -> String {
    let mut command = Command::new("sh");
    let mut child =
        job.spawn(command.args(["-c", PRINT_ATTRIBUTES]).stdout(Stdio::piped())).expect("started");
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    child.wait().expect("a status");
    text
}

fn checked(answer: i64) -> Result<(), Error> {
    if answer == -1 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn nice(value: i32) -> Result<(), Error> {
    // SAFETY: takes numbers; on Linux it changes the calling thread.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) }.into())
}

fn scheduled(policy: i32, priority: i32) -> Result<(), Error> {
    // SAFETY: a struct of numbers, for which zero is a value.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = priority;
    // SAFETY: reads one number of a live struct.
    checked(unsafe { libc::sched_setscheduler(0, policy, &raw const param) }.into())
}

fn one_cpu() -> Result<(), Error> {
    // SAFETY: a set of numbers that the calls write and read.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &raw mut set);
        let last = (0..1024).rev().find(|cpu| libc::CPU_ISSET(*cpu, &set)).expect("at least one");
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(last, &mut set);
        checked(libc::sched_setaffinity(0, size_of_val(&set), &raw const set).into())
    }
}

fn io_priority(class: i64, level: i64) -> Result<(), Error> {
    // SAFETY: takes numbers; 1 means a thread, and 0 the calling one.
    checked(unsafe { libc::syscall(libc::SYS_ioprio_set, 1_i64, 0_i64, class << 13 | level) })
}

fn prctl(option: i32, value: u64) -> Result<(), Error> {
    // SAFETY: options that take a number.
    checked(unsafe { libc::prctl(option, value, 0_u64, 0_u64, 0_u64) }.into())
}

fn personality(value: u64) -> Result<(), Error> {
    // SAFETY: takes a number.
    checked(unsafe { libc::personality(value) }.into())
}

fn written(file: &str, value: &str) -> Result<(), Error> {
    fs::write(format!("/proc/self/{file}"), value)
}

/// A change that a thread makes to itself or to its process.
type Change = (&'static str, fn() -> Result<(), Error>);

const RESET: i32 = libc::SCHED_RESET_ON_FORK;

const CHANGES: &[Change] = &[
    ("nothing", || Ok(())),
    ("nice 7", || nice(7)),
    ("nice -5", || nice(-5)),
    ("nice -5, not for children", || {
        nice(-5).and_then(|()| scheduled(libc::SCHED_OTHER | RESET, 0))
    }),
    ("one CPU", one_cpu),
    ("batch", || scheduled(libc::SCHED_BATCH, 0)),
    ("idle", || scheduled(libc::SCHED_IDLE, 0)),
    ("realtime", || scheduled(libc::SCHED_FIFO, 3)),
    ("realtime in turns", || scheduled(libc::SCHED_RR, 1)),
    ("realtime, not for children", || scheduled(libc::SCHED_FIFO | RESET, 3)),
    ("device: best effort", || io_priority(2, 6)),
    ("device: idle", || io_priority(3, 0)),
    ("device: realtime", || io_priority(1, 4)),
    ("timer slack", || prctl(libc::PR_SET_TIMERSLACK, 1_234_567)),
    ("no random addresses", || personality(0x004_0000)),
    ("no huge pages", || prctl(libc::PR_SET_THP_DISABLE, 1)),
    ("oom_score_adj 300", || written("oom_score_adj", "300")),
    ("oom_score_adj 1000", || written("oom_score_adj", "1000")),
    ("oom_score_adj -200", || written("oom_score_adj", "-200")),
    ("core dumps: nothing", || written("coredump_filter", "0")),
    ("core dumps: all", || written("coredump_filter", "0x1ff")),
    ("several at once", || {
        nice(11)?;
        one_cpu()?;
        io_priority(2, 3)?;
        prctl(libc::PR_SET_TIMERSLACK, 70_000)?;
        written("coredump_filter", "0x33")
    }),
];

/// The number of changes that need no capability, which root may lack in a container.
const UNPRIVILEGED: usize = 14;

/// The attributes that a guard shares with its children. The timer slack is not one of them: it belongs to the
/// thread, and the kernel sets it to 0 when the outer guard takes a real-time policy.
fn memory_of(guards: &[i32]) -> Vec<String> {
    let files = ["oom_score_adj", "coredump_filter"];
    let read = |pid: &i32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    guards.iter().flat_map(|pid| files.map(|file| read(pid, file).unwrap_or_default())).collect()
}

/// A child has the attributes of a child of std, whatever the thread has changed since the job was made. The
/// attributes of the guards do not change.
#[test]
fn changed_after_the_job_was_made() {
    const NAME: &str = "changed_after_the_job_was_made";
    const MECHANISM: &str = "ONEJOB_TEST_MECHANISM";
    if !is_alone(NAME) {
        // In a new process: some changes affect the whole process and last.
        return for_each_mechanism(|mechanism| {
            assert!(!alone(NAME, |test| _ = test.env(MECHANISM, mechanism.to_string())));
        });
    }
    {
        let mechanism = std::env::var(MECHANISM).expect("a mechanism").parse().expect("its name");
        let mechanism: Mechanism = mechanism;
        let job = job(mechanism);
        let guards = await_guards();
        let before = memory_of(&guards);
        let mut made = 0;
        for (what, change) in CHANGES {
            // In a new thread: most changes affect only the thread.
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| match change() {
                    Err(error) => eprintln!("{mechanism}: not allowed here: {what}: {error}"),
                    Ok(()) => {
                        made += 1;
                        let (ours, stds) = (attributes(&job), attributes_with_std());
                        assert!(stds.lines().count() >= 10, "too few lines: {stds}");
                        assert_eq!(ours, stds, "{mechanism}: {what}");
                        assert_eq!(memory_of(&guards), before, "{mechanism}: {what}: the guards");
                    }
                });
                thread.join().expect("the thread has passed");
            });
        }
        assert!(made >= UNPRIVILEGED, "{mechanism}: only {made} changes were allowed");
    }
}

/// If the guard lacks the privilege to give a child the attributes of its owner, the spawn is an error.
#[test]
fn beyond_the_guards_privilege() {
    if !rustix::process::geteuid().is_root() {
        return testkit::skip("only root can start processes of two users");
    }
    if !alone("beyond_the_guards_privilege", |_| {}) {
        return;
    }
    nice(10).expect("always allowed");
    let (thread_sender, threads) = channel();
    let (is_done, done) = channel();
    std::thread::scope(|scope| {
        let unprivileged = scope.spawn(move || {
            const USER: libc::c_long = 54321;
            // SAFETY: the system call changes only the calling thread.
            checked(unsafe { libc::syscall(libc::SYS_setresuid, USER, USER, USER) }).expect("root");
            // SAFETY: takes nothing.
            let thread = unsafe { libc::syscall(libc::SYS_gettid) };
            let job = job(Mechanism::Subreaper);
            assert_eq!(attributes(&job), attributes_with_std());
            thread_sender.send(thread as u32).expect("a receiver");
            done.recv().expect("the change is made");
            let error = job.spawn(&mut Command::new("true")).expect_err("not as privileged");
            assert!(error.is_permission_denied() && !error.is_exec(), "{error}");
            assert!(error.to_string().contains("scheduling"), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("new job")), "{error}");
            assert!(job.is_empty().expect("observable"), "a failed spawn left a process");
            let renewed = self::job(Mechanism::Subreaper);
            assert_eq!(attributes(&renewed), attributes_with_std());
        });
        let thread = threads.recv().expect("a thread");
        // SAFETY: takes numbers.
        checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, 3) }.into()).expect("root");
        is_done.send(()).expect("a receiver");
        unprivileged.join().expect("the thread has passed");
    });
}

/// A child inherits all descriptors at their numbers, up to the limit of the kernel.
#[test]
fn more_descriptors_than_one_message_holds() {
    const NAME: &str = "more_descriptors_than_one_message_holds";
    if !alone(NAME, |_| {}) {
        return;
    }
    const PRINT_ATTRIBUTES: &str =
        "for fd in /proc/$$/fd/*; do echo ${fd##*/}; done; readlink /proc/$$/fd/900; :";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)
        .expect("up to the hard limit");
    let null = fs::File::open("/dev/null").expect("a device");
    for_each_mechanism(|mechanism| {
        let mut held = Vec::new();
        let job = job(mechanism);
        let most = limit.maximum.map_or(4_000, |most| most.min(4_000)) as usize;
        for count in [240, 247, 260, 520, 1_000, most - 64] {
            held.truncate(0);
            held.resize_with(count, || rustix::io::dup(&null).expect("below the limit"));
            let mut command = process::Command::new("sh");
            let output = command.args(["-c", PRINT_ATTRIBUTES]).output().expect("std starts it");
            let stds = String::from_utf8(output.stdout).expect("text");
            assert!(stds.lines().count() > count, "std passes the descriptors on: {stds}");
            for padding in [0, 40_000] {
                let mut command = Command::new("sh");
                command.args(["-c", PRINT_ATTRIBUTES]).stdin(Stdio::null()).stdout(Stdio::piped());
                command.stderr(Stdio::piped()).env("PADDING", "x".repeat(padding));
                let mut child = job.spawn(&mut command).expect("started");
                let mut ours = String::new();
                child.stdout.take().expect("piped").read_to_string(&mut ours).expect("text");
                assert!(child.wait().expect("a status").success());
                assert_eq!(ours, stds, "{mechanism}: {count}");
            }
        }
    });
}
