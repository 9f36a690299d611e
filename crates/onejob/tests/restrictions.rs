//! Privileges that a process has given up after it has made a job: later members do not have them.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    io::{Error, Read as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use common::{alone, for_each_mechanism, is_alone, job};
use onejob::{Command, Job, Mechanism, Stdio};
use testkit::{Bins, scratch_dir};

fn checked(answer: i64) -> Result<i64, Error> {
    if answer == -1 { Err(Error::last_os_error()) } else { Ok(answer) }
}

fn prctl(option: i32, value: u64) -> Result<(), Error> {
    // SAFETY: options that take a number.
    checked(unsafe { libc::prctl(option, value, 0_u64, 0_u64, 0_u64) }.into()).map(drop)
}

fn no_new_privileges() -> Result<(), Error> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// From here on the calling thread and its children cannot write to files.
fn landlock_domain() -> Result<(), Error> {
    match enter_landlock_domain() {
        // Without CAP_SYS_ADMIN.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            no_new_privileges().and_then(|()| enter_landlock_domain())
        }
        entered => entered,
    }
}

fn enter_landlock_domain() -> Result<(), Error> {
    let handled = 1_u64 << 1;
    let (attributes, size) = (&raw const handled, size_of_val(&handled));
    let (create, restrict) = (libc::SYS_landlock_create_ruleset, libc::SYS_landlock_restrict_self);
    // SAFETY: the kernel reads one number (the right to write to files); the descriptor is new.
    unsafe {
        let rules = checked(libc::syscall(create, attributes, size, 0_u32))?;
        let rules = OwnedFd::from_raw_fd(rules as i32);
        checked(libc::syscall(restrict, rules.as_raw_fd(), 0_u32)).map(drop)
    }
}

/// A filter that allows all calls.
fn seccomp_filter() -> Result<(), Error> {
    no_new_privileges()?;
    let code = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut allow = libc::sock_filter { code, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    let program = libc::sock_fprog { len: 1, filter: &raw mut allow };
    let call = libc::SYS_seccomp;
    // SAFETY: the program lives through the call, which copies it.
    unsafe { checked(libc::syscall(call, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)) }
        .map(drop)
}

/// `CAP_SYS_CHROOT`.
const CAPABILITY: u64 = 18;

fn without_effective_capability() -> Result<(), Error> {
    const VERSION: u32 = 0x2008_0522;
    let head = [VERSION, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: a header of two words, and two times three words for the sets.
    unsafe {
        checked(libc::syscall(libc::SYS_capget, head.as_ptr(), sets.as_mut_ptr()))?;
        if sets[0] & 1 << CAPABILITY == 0 {
            return Err(Error::from_raw_os_error(libc::EPERM));
        }
        sets[0] &= !(1 << CAPABILITY);
        checked(libc::syscall(libc::SYS_capset, head.as_ptr(), sets.as_ptr())).map(drop)
    }
}

fn other_groups() -> Result<(), Error> {
    let groups = [54_322_u32];
    // SAFETY: the system call changes only the calling thread; a list of one.
    checked(unsafe { libc::syscall(libc::SYS_setgroups, 1, groups.as_ptr()) }).map(drop)
}

fn other_namespace(flag: i32) -> Result<(), Error> {
    // SAFETY: takes flags.
    checked(unsafe { libc::unshare(flag) }.into()).map(drop)
}

fn no_speculation() -> Result<(), Error> {
    const PR_SET_SPECULATION_CTRL: i32 = 53;
    const STORE_BYPASS: u64 = 0;
    const DISABLE: u64 = 1 << 2;
    // SAFETY: takes numbers.
    let set = unsafe { libc::prctl(PR_SET_SPECULATION_CTRL, STORE_BYPASS, DISABLE, 0_u64, 0_u64) };
    checked(set.into()).map(drop)
}

/// A restriction that a thread can apply to itself.
type Restriction = (&'static str, fn() -> Result<(), Error>);

const NO_ROOT: u64 = 1;
const PR_SET_MDWE: i32 = 65;

const RESTRICTIONS: &[Restriction] = &[
    ("nothing", || Ok(())),
    ("no new privileges", no_new_privileges),
    ("a Landlock domain", landlock_domain),
    ("a seccomp filter", seccomp_filter),
    ("the bounding set", || prctl(libc::PR_CAPBSET_DROP, CAPABILITY)),
    ("an effective capability", without_effective_capability),
    ("secure bits", || prctl(libc::PR_SET_SECUREBITS, NO_ROOT)),
    ("speculation", no_speculation),
    ("groups", other_groups),
    ("a mount namespace", || other_namespace(libc::CLONE_NEWNS)),
    ("a network namespace", || other_namespace(libc::CLONE_NEWNET)),
    ("a cgroup namespace", || other_namespace(libc::CLONE_NEWCGROUP)),
    ("a time namespace", || other_namespace(0x80)),
    ("either written or executed memory", || prctl(PR_SET_MDWE, 1)),
];

/// The number of restrictions that every user can apply on every kernel.
const UNPRIVILEGED: usize = 3;

/// Makes the file, and the programs that tests start, before any restriction is applied.
fn file_to_write() -> PathBuf {
    Bins::get();
    let file = scratch_dir().join("file");
    fs::write(&file, "").expect("a file");
    file
}

fn restrictions_with_std(file: &Path) -> String {
    let mut command = std::process::Command::new(Bins::get().helper());
    let output = command.args(["restrictions", "-"]).arg(file).output().expect("std starts it");
    String::from_utf8(output.stdout).expect("text")
}

fn restrictions(job: &Job, file: &Path) -> onejob::Result<String> {
    let mut command = Command::new(Bins::get().helper());
    command.args(["restrictions", "-"]).arg(file).stdout(Stdio::piped());
    let mut child = job.spawn(&mut command)?;
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    child.wait().expect("a status");
    Ok(text)
}

/// Checks that a member is as restricted as a child of std, or that the spawn is an error with a hint that works.
fn check_restriction(job: &Job, mechanism: Mechanism, what: &str, file: &Path) {
    let stds = restrictions_with_std(file);
    assert!(stds.lines().count() >= 10, "{what}: too few lines: {stds}");
    match restrictions(job, file) {
        Ok(ours) => assert_eq!(ours, stds, "{mechanism}: {what}"),
        Err(error) => {
            eprintln!("{mechanism}: {what}: {error}");
            assert_eq!(mechanism, Mechanism::Subreaper, "{what}: {error}");
            assert!(error.is_unsupported() && !error.is_exec(), "{what}: {error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("new job")), "{what}: {error}");
            let renewed = common::job(mechanism);
            assert_eq!(
                restrictions(&renewed, file).expect("started"),
                stds,
                "{mechanism}: {what}: anew"
            );
        }
    }
}

/// A member has no privilege that the thread that starts it has given up since the job was made.
#[test]
fn restricted_after_the_job_was_made() {
    const NAME: &str = "restricted_after_the_job_was_made";
    const MECHANISM: &str = "ONEJOB_TEST_MECHANISM";
    if !is_alone(NAME) {
        // In a new process: some restrictions affect the whole process.
        return for_each_mechanism(|mechanism| {
            assert!(!alone(NAME, |test| _ = test.env(MECHANISM, mechanism.to_string())));
        });
    }
    let mechanism = std::env::var(MECHANISM).expect("a mechanism").parse().expect("its name");
    let file = file_to_write();
    let job = job(mechanism);
    let mut made = 0;
    for (what, restrict) in RESTRICTIONS {
        // In a new thread: most restrictions affect only the thread.
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| match restrict() {
                Err(error) => eprintln!("{mechanism}: not allowed here: {what}: {error}"),
                Ok(()) => {
                    made += 1;
                    check_restriction(&job, mechanism, what, &file);
                }
            });
            thread.join().expect("the thread has passed");
        });
    }
    assert!(made >= UNPRIVILEGED, "{mechanism}: only {made} restrictions were allowed");
}

/// A domain inside of a domain is detected like the first one.
#[test]
fn a_second_landlock_domain() {
    if !alone("a_second_landlock_domain", |_| {}) {
        return;
    }
    let file = file_to_write();
    if let Err(error) = landlock_domain() {
        return testkit::skip(&format!("no Landlock: {error}"));
    }
    let job = job(Mechanism::Subreaper);
    assert_eq!(
        restrictions(&job, &file).expect("the guards are in the same domain"),
        restrictions_with_std(&file)
    );
    landlock_domain().expect("a second domain");
    let error = restrictions(&job, &file).expect_err("the guards are not in the second domain");
    assert!(error.is_unsupported() && error.to_string().contains("Landlock"), "{error}");
}

/// Another process or another thread that is more restricted than the guards is detected too.
#[test]
fn a_view_from_a_landlock_domain() {
    const NAME: &str = "onejob-test-restricted";
    if !alone("a_view_from_a_landlock_domain", |test| {
        test.env("ONEJOB_RUNTIME_DIR", scratch_dir().join("runtime"));
    }) {
        return;
    }
    let file = file_to_write();
    let job = Job::builder().mechanism(Mechanism::Subreaper).name(NAME).build().expect("a job");
    restrictions(&job, &file).expect("started");
    std::thread::scope(|scope| {
        let view = || {
            if let Err(error) = landlock_domain() {
                return testkit::skip(&format!("no Landlock: {error}"));
            }
            let view = Job::open(NAME).expect("a view");
            let error = restrictions(&view, &file).expect_err("the guards are not in this domain");
            assert!(error.is_unsupported() && error.to_string().contains("Landlock"), "{error}");
        };
        scope.spawn(view).join().expect("passed");
    });
    let view = Job::open(NAME).expect("a view");
    let seen = restrictions(&view, &file).expect("this thread is in no domain");
    assert!(seen.contains("writes Ok"), "{seen}");
}

/// Owners that cannot read their guards' `/proc` files for other reasons can start members.
#[test]
fn an_owner_that_may_not_examine_its_guards() {
    if !alone("an_owner_that_may_not_examine_its_guards", |_| {}) {
        return;
    }
    let file = file_to_write();
    prctl(libc::PR_SET_DUMPABLE, 0).expect("always allowed");
    let job = job(Mechanism::Subreaper);
    assert_eq!(restrictions(&job, &file).expect("not dumpable"), restrictions_with_std(&file));
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can have two user ids like a set-user-ID program");
    }
    std::thread::scope(|scope| {
        let set_user_id = || {
            let (real, effective) = (54_321_i64, 54_322_i64);
            // SAFETY: the system call changes only the calling thread.
            let set = unsafe { libc::syscall(libc::SYS_setresuid, real, effective, effective) };
            checked(set).expect("root");
            let job = common::job(Mechanism::Subreaper);
            let mut child = job.spawn(&mut Command::new("true")).expect("not refused");
            assert!(child.wait().expect("a status").success());
        };
        scope.spawn(set_user_id).join().expect("passed");
    });
}
