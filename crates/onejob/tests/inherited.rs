//! What a child inherits of the thread that starts it, also where a guard is its parent.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    io::{Error, Read as _},
    process,
    sync::mpsc::channel,
};

use common::{alone, for_each_mechanism, is_alone, job, standing_guards};
use onejob::{Command, Job, Mechanism, Stdio};

/// What a program can see of how it and its memory are treated. A timer slack of 0 has only a child of
/// a realtime thread; it cannot be set otherwise, so that 1 is as good.
const LOOK: &str = r#"
    grep -E '^(Cpus_allowed|THP_enabled)' /proc/self/status
    cut -d' ' -f18,19,40,41 /proc/self/stat
    sed 's/^1$/0/' /proc/self/timerslack_ns
    cat /proc/self/personality
    cat /proc/self/oom_score_adj /proc/self/coredump_filter
    ionice -p $$
    chrt -p $$ | sed "s/ $$'s / /"
"#;

fn look_with_std() -> String {
    let output = process::Command::new("sh").args(["-c", LOOK]).output().expect("std starts it");
    String::from_utf8(output.stdout).expect("text")
}

fn look(job: &Job) -> String {
    let mut command = Command::new("sh");
    let mut child =
        job.spawn(command.args(["-c", LOOK]).stdout(Stdio::piped())).expect("we start it");
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    child.wait().expect("a status");
    text
}

fn checked(answer: i64) -> Result<(), Error> {
    if answer == -1 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn nice(value: i32) -> Result<(), Error> {
    // SAFETY: takes numbers; on Linux it is the calling thread's.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) }.into())
}

fn scheduled(policy: i32, priority: i32) -> Result<(), Error> {
    // SAFETY: all of it may be zero.
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
        let last = (0..1024).rev().find(|cpu| libc::CPU_ISSET(*cpu, &set)).expect("one at least");
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(last, &mut set);
        checked(libc::sched_setaffinity(0, size_of_val(&set), &raw const set).into())
    }
}

fn io_priority(class: i64, level: i64) -> Result<(), Error> {
    // SAFETY: takes numbers; 1 says that the next is a thread, 0 the calling one.
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

/// What a thread can change of itself, or of its process.
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
    ("oom: rather than others", || written("oom_score_adj", "300")),
    ("oom: more so", || written("oom_score_adj", "1000")),
    ("oom: rather not", || written("oom_score_adj", "-200")),
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

/// Of these there is none that root needs a privilege for, which a container may lack.
const UNPRIVILEGED: usize = 14;

/// What a guard shares with its children. The timer slack belongs to the thread: the kernel sets it to 0
/// when the outer guard takes a real-time policy.
fn memory_of(guards: &[i32]) -> Vec<String> {
    let files = ["oom_score_adj", "coredump_filter"];
    let read = |pid: &i32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    guards.iter().flat_map(|pid| files.map(|file| read(pid, file).unwrap_or_default())).collect()
}

/// A child has what a child of std's has, whatever the thread that starts it has changed since the job was
/// made; the guards stay as they are.
#[test]
fn changed_after_the_job_was_made() {
    const NAME: &str = "changed_after_the_job_was_made";
    const MECHANISM: &str = "ONEJOB_TEST_MECHANISM";
    if !is_alone(NAME) {
        // What is a process' stays changed.
        return for_each_mechanism(|mechanism| {
            assert!(!alone(NAME, |test| _ = test.env(MECHANISM, mechanism.to_string())));
        });
    }
    {
        let mechanism = std::env::var(MECHANISM).expect("a mechanism").parse().expect("its name");
        let mechanism: Mechanism = mechanism;
        let job = job(mechanism);
        let guards = standing_guards();
        let before = memory_of(&guards);
        let mut made = 0;
        for (what, change) in CHANGES {
            // In a thread of its own, which is all that most of these change.
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| match change() {
                    Err(error) => eprintln!("{mechanism}: not allowed here: {what}: {error}"),
                    Ok(()) => {
                        made += 1;
                        let (ours, stds) = (look(&job), look_with_std());
                        assert!(stds.lines().count() >= 10, "something was seen: {stds}");
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

/// What a guard lacks the privilege for is an error that says so: a child is never started otherwise than
/// its owner is.
#[test]
fn beyond_the_guards_privilege() {
    if !rustix::process::geteuid().is_root() {
        return testkit::skip("only root can play two users");
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
            // SAFETY: the bare call changes the calling thread alone.
            checked(unsafe { libc::syscall(libc::SYS_setresuid, USER, USER, USER) }).expect("root");
            // SAFETY: takes nothing.
            let thread = unsafe { libc::syscall(libc::SYS_gettid) };
            let job = job(Mechanism::Subreaper);
            assert_eq!(look(&job), look_with_std());
            thread_sender.send(thread as u32).expect("it listens");
            done.recv().expect("it has changed it");
            let error = job.spawn(&mut Command::new("true")).expect_err("not as privileged");
            assert!(error.is_permission_denied() && !error.is_exec(), "{error}");
            assert!(error.to_string().contains("scheduling"), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("new job")), "{error}");
            assert!(job.is_empty().expect("observable"), "a failed spawn leaves nothing behind");
            let renewed = self::job(Mechanism::Subreaper);
            assert_eq!(look(&renewed), look_with_std());
        });
        let thread = threads.recv().expect("a thread");
        // SAFETY: takes numbers.
        checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, 3) }.into()).expect("root");
        is_done.send(()).expect("it listens");
        unprivileged.join().expect("the thread has passed");
    });
}

/// As many descriptors as the kernel lets a process have are inherited, at their numbers.
#[test]
fn more_descriptors_than_one_message_holds() {
    const NAME: &str = "more_descriptors_than_one_message_holds";
    if !alone(NAME, |_| {}) {
        return;
    }
    const LOOK: &str =
        "for fd in /proc/$$/fd/*; do echo ${fd##*/}; done; readlink /proc/$$/fd/900; :";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("up to the other");
    let null = fs::File::open("/dev/null").expect("a device");
    for_each_mechanism(|mechanism| {
        let mut held = Vec::new();
        let job = job(mechanism);
        let most = limit.maximum.map_or(4_000, |most| most.min(4_000)) as usize;
        for count in [240, 247, 260, 520, 1_000, most - 64] {
            held.truncate(0);
            held.resize_with(count, || rustix::io::dup(&null).expect("below the limit"));
            let mut command = process::Command::new("sh");
            let output = command.args(["-c", LOOK]).output().expect("std starts it");
            let stds = String::from_utf8(output.stdout).expect("text");
            assert!(stds.lines().count() > count, "they are inherited: {stds}");
            for padding in [0, 40_000] {
                let mut command = Command::new("sh");
                command.args(["-c", LOOK]).stdin(Stdio::null()).stdout(Stdio::piped());
                command.stderr(Stdio::piped()).env("PADDING", "x".repeat(padding));
                let mut child = job.spawn(&mut command).expect("we start it");
                let mut ours = String::new();
                child.stdout.take().expect("piped").read_to_string(&mut ours).expect("text");
                assert!(child.wait().expect("a status").success());
                assert_eq!(ours, stds, "{mechanism}: {count}");
            }
        }
    });
}
