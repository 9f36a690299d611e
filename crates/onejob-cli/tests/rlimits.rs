//! A caller with tiny resource limits: each subcommand works, or fails with an error that names the
//! limit, and leaves nothing behind. `env true` shows the needs of a program that does nothing.
#![cfg(target_os = "linux")]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use common::{ONEJOB, Scratch, eventually, is_root, mechanisms, outcome, text, with_signals};

/// An ordinary user without other processes.
const USER: u32 = 54_325;

struct Limit {
    name: &'static str,
    resource: libc::__rlimit_resource_t,
    values: &'static [u64],
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Each limit, tiny and small.
#[rustfmt::skip]
const LIMITS: [Limit; 16] = [
    Limit { name: "RLIMIT_AS", resource: libc::RLIMIT_AS, values: &[MIB, 64 * MIB] },
    Limit { name: "RLIMIT_CORE", resource: libc::RLIMIT_CORE, values: &[0, 1] },
    Limit { name: "RLIMIT_CPU", resource: libc::RLIMIT_CPU, values: &[1, 2] },
    Limit { name: "RLIMIT_DATA", resource: libc::RLIMIT_DATA, values: &[64 * KIB, MIB, 4 * MIB] },
    Limit { name: "RLIMIT_FSIZE", resource: libc::RLIMIT_FSIZE, values: &[0, 1, 32 * KIB] },
    Limit { name: "RLIMIT_LOCKS", resource: libc::RLIMIT_LOCKS, values: &[0, 1] },
    Limit { name: "RLIMIT_MEMLOCK", resource: libc::RLIMIT_MEMLOCK, values: &[0, 4 * KIB] },
    Limit { name: "RLIMIT_MSGQUEUE", resource: libc::RLIMIT_MSGQUEUE, values: &[0, 1] },
    Limit { name: "RLIMIT_NICE", resource: libc::RLIMIT_NICE, values: &[0, 1] },
    Limit { name: "RLIMIT_NOFILE", resource: libc::RLIMIT_NOFILE, values: &[3, 5, 8, 10, 12, 14, 20] },
    Limit { name: "RLIMIT_NPROC", resource: libc::RLIMIT_NPROC, values: &[0, 1, 2] },
    Limit { name: "RLIMIT_RSS", resource: libc::RLIMIT_RSS, values: &[0, 4 * KIB] },
    Limit { name: "RLIMIT_RTPRIO", resource: libc::RLIMIT_RTPRIO, values: &[0, 1] },
    Limit { name: "RLIMIT_RTTIME", resource: libc::RLIMIT_RTTIME, values: &[1, 1_000] },
    Limit { name: "RLIMIT_SIGPENDING", resource: libc::RLIMIT_SIGPENDING, values: &[0, 1] },
    Limit { name: "RLIMIT_STACK", resource: libc::RLIMIT_STACK, values: &[4 * KIB, 64 * KIB, 2 * MIB] },
];

/// The caller: its user, its programs and its records.
struct Caller<'a> {
    user: Option<u32>,
    scratch: &'a Scratch,
    program: PathBuf,
}

impl Caller<'_> {
    fn new(user: Option<u32>, scratch: &Scratch) -> Caller<'_> {
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(scratch.path(), open.clone()).unwrap();
        // In a directory in which that user may execute it.
        let program = scratch.file("onejob");
        if !program.exists() {
            fs::copy(ONEJOB, &program).unwrap();
            fs::set_permissions(&program, open).unwrap();
            std::os::unix::fs::symlink("onejob", scratch.file("timeout")).unwrap();
        }
        let caller = Caller { user, scratch, program };
        let runtime = caller.runtime();
        fs::create_dir(&runtime).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&runtime, user, user).unwrap();
        caller
    }

    fn runtime(&self) -> PathBuf {
        self.scratch.file(&format!("runtime-{}", self.user.unwrap_or(0)))
    }

    fn command(&self, program: &Path, args: &[&str], limit: Option<(&Limit, u64)>) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("ONEJOB_RUNTIME_DIR", self.runtime());
        command.env_remove("XDG_RUNTIME_DIR").env_remove("DBUS_SESSION_BUS_ADDRESS");
        if let Some(user) = self.user {
            command.uid(user).gid(user).current_dir("/");
        }
        with_signals(&mut command, &[], &[]);
        if let Some((limit, value)) = limit {
            let (resource, value) = (limit.resource, value);
            // SAFETY: close_range and setrlimit are async-signal-safe.
            unsafe {
                command.pre_exec(move || {
                    // Without the descriptors that this test has inherited.
                    libc::syscall(libc::SYS_close_range, 3, u32::MAX, 4);
                    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                    libc::getrlimit(resource, &mut limit);
                    // A limit cannot be raised above the hard limit.
                    let value = value.min(limit.rlim_max);
                    limit = libc::rlimit { rlim_cur: value, rlim_max: value };
                    match libc::setrlimit(resource, &limit) {
                        0 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    }
                })
            };
        }
        command
    }

    fn onejob(&self, args: &[&str]) -> Command {
        self.command(&self.program, args, None)
    }
}

/// The children of this process, zombies and adopted orphans included.
fn children() -> BTreeSet<u32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.map(|task| common::read(task.path().join("children")));
    lists
        .flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// A cgroup for all processes of this test, without other jobs.
struct Place {
    before: PathBuf,
    own: PathBuf,
}

impl Place {
    fn enter() -> Option<Place> {
        let before = testkit::cgroup::own().filter(|_| is_root())?;
        let own = before.join(format!("testkit-rlimits-{}", std::process::id()));
        fs::create_dir(&own).ok()?;
        fs::write(own.join("cgroup.procs"), "0").unwrap();
        Some(Place { before, own })
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.own).unwrap().flatten();
        entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|it| it.path()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::write(self.before.join("cgroup.procs"), "0");
        let _ = testkit::cgroup::remove(&self.own);
    }
}

/// One line of the table: what a caller does under a limit.
struct Case<'a> {
    verb: &'a str,
    mechanism: &'a str,
}

const VERBS: [&str; 15] = [
    "run",
    "run -n",
    "run BIG",
    "exec",
    "kill PID",
    "init",
    "timeout",
    "ls",
    "tree",
    "stats",
    "freeze",
    "thaw",
    "doctor",
    "--version",
    "help",
];

impl Case<'_> {
    /// Whether it does not depend on the mechanism.
    fn is_once(&self) -> bool {
        ["kill PID", "init", "timeout", "ls", "doctor", "--version", "help"].contains(&self.verb)
    }

    /// The outcome, and whether the operation has had its effect.
    fn attempt(&self, caller: &Caller<'_>, limit: (&Limit, u64)) -> (Output, bool) {
        let held = held_job(self.mechanism);
        let run = ["run", "--mechanism", self.mechanism];
        let with = |args: &[&str]| caller.command(&caller.program, args, Some(limit));
        let mut command = match self.verb {
            "run" | "run BIG" => with(&[&run[..], &["--", "true"]].concat()),
            "run -n" => with(&[&run[..], &["-n", "rlimits-other", "--", "true"]].concat()),
            "exec" => with(&["exec", &held, "--", "true"]),
            "init" => with(&["init", "--", "true"]),
            "timeout" => {
                caller.command(&caller.scratch.file("timeout"), &["100", "true"], Some(limit))
            }
            "tree" | "stats" => with(&[self.verb, &held]),
            "freeze" | "thaw" => {
                let without_limit = |verb| {
                    let done = outcome(&mut caller.onejob(&[verb, &held]));
                    assert!(done.status.success(), "{}", text(&done.stderr));
                };
                if self.verb == "thaw" {
                    without_limit("freeze");
                }
                let said = outcome(&mut with(&[self.verb, &held]));
                without_limit("thaw");
                let is_done = said.status.success();
                return (said, is_done);
            }
            "help" => with(&["--help"]),
            "kill PID" => {
                let mut target =
                    caller.command(Path::new("sleep"), &["1000"], None).spawn().unwrap();
                let said = outcome(&mut with(&["kill", &target.id().to_string()]));
                let is_done = target.try_wait().unwrap().is_some();
                let _ = target.kill();
                target.wait().unwrap();
                return (said, is_done);
            }
            verb => with(&[verb]),
        };
        if self.verb == "run BIG" {
            // Larger than one message to a guard.
            command.env("BIG", "x".repeat(100_000));
        }
        let said = outcome(&mut command);
        let is_done = said.status.success();
        (said, is_done)
    }
}

fn held_job(mechanism: &str) -> String {
    format!("rlimits-{mechanism}")
}

/// Is killed at the end of the test.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a job with this mechanism that other commands use.
fn hold(caller: &Caller<'_>, mechanism: &str) -> Held {
    let job = held_job(mechanism);
    let run = ["run", "--mechanism", mechanism, "-n", &job, "--", "sleep", "1000"];
    let mut command = caller.onejob(&run);
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    };
    let held = Held(command.stdin(Stdio::null()).spawn().unwrap());
    eventually("the held job to be listed", || {
        outcome(&mut caller.onejob(&["exec", &job, "--", "true"])).status.success()
    });
    held
}

/// The files of jobs in the runtime directory.
fn records(caller: &Caller<'_>) -> BTreeSet<String> {
    let entries = fs::read_dir(caller.runtime()).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn try_all(caller: &Caller<'_>, place: Option<&Place>) {
    let mechanisms: Vec<String> = match caller.user {
        None => mechanisms(),
        // Other mechanisms may not be available to this user.
        Some(_) => vec!["subreaper".to_owned()],
    };
    let mut held: Vec<Held> = mechanisms.iter().map(|one| hold(caller, one)).collect();
    let (others, files) = (children(), records(caller));
    let cgroups = place.map(Place::cgroups);
    let (mut worked, mut refused) = (0, 0);
    for limit in &LIMITS {
        for value in limit.values {
            let env = caller.command(Path::new("env"), &["true"], Some((limit, *value)));
            let env_works = outcome(&mut { env }).status.success();
            for (number, mechanism) in mechanisms.iter().enumerate() {
                let cases = VERBS.iter().map(|verb| Case { verb, mechanism });
                for case in cases.filter(|case| number == 0 || !case.is_once()) {
                    if case.verb == "run BIG" && limit.name == "RLIMIT_STACK" {
                        // No program can be started with such a large environment.
                        continue;
                    }
                    let (said, is_done) = case.attempt(caller, (limit, *value));
                    let all = text(&said.stdout) + &text(&said.stderr);
                    let what = format!(
                        "uid {:?}, {} {value}, {}, {mechanism}: {}: {all}",
                        caller.user, limit.name, case.verb, said.status
                    );
                    if said.status.success() {
                        assert!(is_done, "status 0, but without effect: {what}");
                        worked += 1;
                    } else if env_works {
                        assert!(said.status.code().is_some(), "ended by a signal: {what}");
                        // onejob called timeout or tini prints no hints.
                        let name = if case.verb == "timeout" { "(os error " } else { limit.name };
                        let is_named = all.contains(name) || all.contains(limit.name);
                        assert!(is_named, "the limit is not named: {what}");
                        refused += 1;
                    }
                    let mut left = BTreeSet::new();
                    eventually(&format!("the end of {what}"), || {
                        reap(&held);
                        left = children().difference(&others).copied().collect();
                        left.is_empty()
                            && records(caller) == files
                            && place.map(Place::cgroups) == cgroups
                    });
                }
            }
        }
    }
    eprintln!("uid {:?}: {worked} worked, {refused} were refused", caller.user);
    assert!(worked > 300 && refused > 10, "{worked} worked, {refused} were refused");
    for (job, mechanism) in held.iter_mut().zip(&mechanisms) {
        assert!(job.0.try_wait().unwrap().is_none(), "{mechanism}: the held job is untouched");
        let killed = outcome(&mut caller.onejob(&["kill", &held_job(mechanism)]));
        assert!(killed.status.success(), "{}", text(&killed.stderr));
        job.0.wait().unwrap();
    }
}

/// Reaps the orphans that this process has adopted, but not its own children.
fn reap(held: &[Held]) {
    for pid in children() {
        if held.iter().all(|child| child.0.id() != pid) {
            // SAFETY: a plain system call on a child of this process.
            unsafe { libc::waitpid(pid.cast_signed(), std::ptr::null_mut(), libc::WNOHANG) };
        }
    }
}

/// Runs each subcommand with tiny and small values of each limit, as root and as a user. A command that works
/// under `env` works with onejob, or an error names the limit; no process, record or cgroup is left.
#[test]
fn tiny_limits_of_the_caller() {
    // Orphans become children of this process, so that the test finds them.
    // SAFETY: changes an attribute of this process, which runs only this test.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let scratch = Scratch::new();
    let place = Place::enter();
    try_all(&Caller::new(None, &scratch), place.as_ref());
    if is_root() {
        try_all(&Caller::new(Some(USER), &scratch), place.as_ref());
    }
}
