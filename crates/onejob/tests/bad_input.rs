//! Invalid requests and missing resources: each is a clear error, and nothing is left.
#![cfg(target_os = "linux")]

mod common;

use std::{
    fs, io,
    os::fd::AsRawFd as _,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use common::{alone, for_each_mechanism, guards, is_alone, job};
use onejob::{
    Command, Containment, Job, Kill, Mechanism, OwnerDeath, ProcessId, Signal, stop_tree,
};
use testkit::eventually;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The mount point of cgroup v2.
fn hierarchy() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup v2");
    line.split(' ').nth(4).expect("a mount point").into()
}

/// The cgroup this process is in.
fn own_cgroup() -> PathBuf {
    let cgroups = fs::read_to_string("/proc/self/cgroup").expect("cgroups");
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::")).expect("cgroup v2");
    hierarchy().join(own.trim_start_matches('/'))
}

/// The number of processes of a user.
fn processes_of(user: u32) -> usize {
    use std::os::unix::fs::MetadataExt;
    let all = fs::read_dir("/proc").expect("processes").flatten();
    let numbered = all
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()));
    numbered.filter(|entry| entry.metadata().is_ok_and(|data| data.uid() == user)).count()
}

/// Cgroups of jobs below a cgroup.
fn jobs_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_a_job = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("onejob-"))
    };
    entries.filter(is_a_job).collect()
}

/// A cgroup for one test, which is removed with its processes when this is dropped.
struct TestCgroup(PathBuf);

impl TestCgroup {
    fn new(name: &str) -> TestCgroup {
        let dir = own_cgroup().join(format!("testkit-{name}-{}", process::id()));
        fs::create_dir(&dir).expect("a cgroup");
        TestCgroup(dir)
    }

    /// Lets the child of `command` join the cgroup.
    fn put(&self, command: &mut process::Command) {
        let procs = fs::File::options().write(true).open(self.0.join("cgroup.procs"));
        let procs = procs.expect("cgroup.procs");
        // SAFETY: one write of a descriptor that lives in the closure.
        unsafe { command.pre_exec(move || io::Write::write_all(&mut &procs, b"0")) };
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..1000 {
            jobs_below(&self.0).iter().for_each(|job| drop(fs::remove_dir(job)));
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Gives the child of `command` its own mounts and changes them. Must be called once per command.
fn with_mounts(command: &mut process::Command, change: fn() -> io::Result<()>) {
    // SAFETY: the closure and `change` make system calls only.
    unsafe {
        command.pre_exec(move || {
            let check = |answer| if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
            check(libc::unshare(libc::CLONE_NEWNS))?;
            let (none, root) = (std::ptr::null(), c"/".as_ptr());
            check(libc::mount(none, root, none, libc::MS_REC | libc::MS_PRIVATE, none.cast()))?;
            change()
        })
    };
}

fn mount(kind: &std::ffi::CStr, at: &std::ffi::CStr, options: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: strings that end with a NUL.
    let answer = unsafe {
        libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast())
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// With any number of free descriptors a job works or is a clear error, and nothing is left.
#[test]
fn any_number_of_free_descriptors() {
    const NAME: &str = "any_number_of_free_descriptors";
    if !is_alone(NAME) && is_root() {
        // In a cgroup of its own, so that the test sees the cgroups that are left.
        let cgroup = TestCgroup::new("descriptors");
        alone(NAME, |command| cgroup.put(command));
        eventually("the removal of all cgroups", || jobs_below(&cgroup.0).is_empty().then_some(()));
        return;
    }
    if !alone(NAME, |_| {}) {
        return;
    }
    for_each_mechanism(|mechanism| {
        let set = |limit: u64| {
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: 4096 };
            // SAFETY: sets a limit of this process.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        };
        let (mut failed, mut worked) = (0, 0);
        for limit in 3..40 {
            set(limit);
            let outcome = Job::builder().mechanism(mechanism).build().and_then(|job| {
                let started = job.spawn(Command::new("sleep").arg("300")).map(drop);
                let listed = job.processes().map(drop);
                started.and(listed).and(job.kill().map(drop))
            });
            set(1024);
            match outcome {
                Ok(()) => worked += 1,
                Err(error) => {
                    failed += 1;
                    assert!(error.to_string().contains("failed to"), "{limit}: {error}");
                }
            }
        }
        assert!(failed > 0 && worked > 0, "{failed} failed, {worked} worked");
        if mechanism == Mechanism::Cgroup {
            assert_eq!(jobs_below(&own_cgroup()), [] as [PathBuf; 0]);
        }
        // The guards of cgroup jobs live as long as their owner; those of a subreaper job end with it.
        eventually("at most two guards", || (guards().len() <= 2).then_some(()));
        eventually("no child", || {
            let text = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
            text.trim().is_empty().then_some(())
        });
    });
}

/// A descriptor that was opened before the hard limit was lowered is passed on, or the error names it and
/// the limit.
#[test]
fn a_descriptor_above_the_hard_limit() {
    const NAME: &str = "a_descriptor_above_the_hard_limit";
    if !alone(NAME, |_| {}) {
        return;
    }
    let null = fs::File::open("/dev/null").expect("a file");
    let limit = libc::rlimit { rlim_cur: 400, rlim_max: 400 };
    // One for each mechanism: with the limit no further one can be made.
    let next = std::cell::Cell::new(500);
    // SAFETY: makes descriptors that nothing else uses, and sets a limit of this process.
    unsafe {
        assert_eq!(libc::dup2(null.as_raw_fd(), 500), 500);
        assert_eq!(libc::dup2(null.as_raw_fd(), 501), 501);
        libc::fcntl(501, libc::F_SETFD, libc::FD_CLOEXEC);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    for_each_mechanism(|mechanism| {
        let number = next.replace(next.get() + 1);
        // SAFETY: changes a flag of a descriptor of this test.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
        let job = Job::builder().mechanism(mechanism).build().expect("a job");
        let check =
            || job.spawn(Command::new("test").args(["-e", &format!("/proc/self/fd/{number}")]));
        match check() {
            Ok(mut child) => {
                assert!(child.wait().expect("a child of this process").success(), "{mechanism}")
            }
            Err(error) => {
                assert_eq!(mechanism, Mechanism::Subreaper, "{error}");
                let text = error.to_string();
                assert!(
                    text.contains(&format!(" {number} ")) && text.contains("RLIMIT_NOFILE"),
                    "{text}"
                );
            }
        }
        // SAFETY: closes a descriptor that nothing else uses.
        unsafe { libc::close(number) };
        let mut child = check().expect("started");
        assert!(
            !child.wait().expect("a child of this process").success(),
            "{mechanism}: it is closed"
        );
    });
}

/// At the process limit of the user a job works or is a clear error, and nothing is left.
#[test]
fn process_limit_reached() {
    const NAME: &str = "process_limit_reached";
    const USER: u32 = 54_323;
    if !is_root() && !is_alone(NAME) {
        return testkit::skip("only root can become a user without processes");
    }
    if !alone(NAME, |_| {}) {
        return;
    }
    // SAFETY: takes numbers. This process runs only this test.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(USER, USER, USER), 0);
        assert_eq!(libc::setresuid(USER, USER, USER), 0);
    }
    let mut refused = 0;
    // The threads of the test program count too.
    for limit in [1, 2, 3, 4, 5, 6, 7, 8, 20] {
        let set = |limit: u64| {
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: 4096 };
            // SAFETY: sets a limit of this process.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) }, 0);
        };
        set(limit);
        let outcome = Job::builder().mechanism(Mechanism::Subreaper).build().and_then(|job| {
            job.spawn(Command::new("true")).and_then(|mut child| child.wait()).map(drop)
        });
        set(4096);
        if let Err(error) = outcome {
            refused += 1;
            assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{limit}: {error}");
        }
        // Zombies count too until init reaps them.
        eventually("the end of all other processes", || (processes_of(USER) == 1).then_some(()));
    }
    assert!(refused >= 2, "too few errors: {refused}");
    assert!(refused < 9, "an error with every limit");
}

#[test]
fn a_full_cgroup_is_a_clear_error() {
    const NAME: &str = "a_full_cgroup_is_a_clear_error";
    if !is_root() && !is_alone(NAME) {
        return testkit::skip("only root can make the cgroup for this test");
    }
    if !is_alone(NAME) {
        let cgroup = TestCgroup::new("full");
        fs::write(cgroup.0.join("cgroup.max.descendants"), "0").expect("a limit");
        alone(NAME, |command| cgroup.put(command));
        assert_eq!(jobs_below(&cgroup.0), [] as [PathBuf; 0]);
        return;
    }
    let error = Job::builder().mechanism(Mechanism::Cgroup).build().expect_err("full");
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
    assert!(error.hint().expect("a hint").contains("cgroup.max"), "{error}");
    // Without requirements the next mechanism is used.
    let job = Job::new().expect("the next mechanism");
    assert_eq!(job.guarantees().mechanism, Mechanism::Subreaper);
}

/// With a read-only cgroup file system the next mechanism is used.
#[test]
fn read_only_cgroupfs_falls_back() {
    const NAME: &str = "read_only_cgroupfs_falls_back";
    if !is_root() && !is_alone(NAME) {
        return testkit::skip("only root can mount");
    }
    fn read_only() -> io::Result<()> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let points = mounts.lines().filter(|line| line.contains(" - cgroup2 "));
        for point in points.filter_map(|line| line.split(' ').nth(4)) {
            let point = std::ffi::CString::new(point)?;
            let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
            let none = std::ptr::null();
            // SAFETY: strings that end with a NUL.
            if unsafe { libc::mount(none, point.as_ptr(), none, flags, none.cast()) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
    if !alone(NAME, |command| with_mounts(command, read_only)) {
        return;
    }
    let error = Job::builder().mechanism(Mechanism::Cgroup).build().expect_err("read-only");
    assert!(error.is_unsupported() && error.to_string().contains("read-only"), "{error}");
    let job = Job::new().expect("the next mechanism");
    assert_eq!(job.guarantees().mechanism, Mechanism::Subreaper);
    let unmet = Job::builder().require(Kill::Atomic).build().expect_err("no atomic kill");
    assert!(unmet.is_unmet_requirement() && unmet.to_string().contains("read-only"), "{unmet}");
}

#[test]
fn without_proc_it_fails_clearly() {
    const NAME: &str = "without_proc_it_fails_clearly";
    if !is_root() && !is_alone(NAME) {
        return testkit::skip("only root can mount");
    }
    if !alone(NAME, |command| with_mounts(command, || mount(c"tmpfs", c"/proc", c""))) {
        return;
    }
    for build in [
        Job::builder().mechanism(Mechanism::Cgroup).build(),
        Job::builder().mechanism(Mechanism::Subreaper).build(),
        Job::new(),
    ] {
        let error = build.expect_err("no /proc");
        assert!(error.is_unsupported() && error.to_string().contains("/proc"), "{error}");
    }
    // A job that encloses the caller needs no guard, and so no /proc.
    let job = Job::builder().mechanism(Mechanism::Subreaper).enclose().expect("an enclosing job");
    let child = job.spawn(onejob::Command::new("sleep").arg("300")).expect("a member");
    assert!(job.pids().expect("a list").contains(&child.pid()));
    job.kill().expect("killed");
    assert!(job.is_empty().expect("known"));
}

#[test]
fn proc_of_another_namespace_is_detected() {
    const NAME: &str = "proc_of_another_namespace_is_detected";
    if !is_root() && !is_alone(NAME) {
        return testkit::skip("only root can make a PID namespace without a user namespace");
    }
    let own_namespace = |command: &mut process::Command| {
        // SAFETY: system calls only. The test is the first process of the namespace, and its children are in
        // the namespace too.
        unsafe {
            command.pre_exec(|| match libc::unshare(libc::CLONE_NEWPID) {
                0 => match libc::fork() {
                    0 => Ok(()),
                    child => {
                        let mut status = 0;
                        libc::waitpid(child, &raw mut status, 0);
                        libc::_exit(libc::WEXITSTATUS(status) | libc::WTERMSIG(status));
                    }
                },
                _ => Err(io::Error::last_os_error()),
            })
        };
    };
    if !alone(NAME, own_namespace) {
        return;
    }
    let error = Job::builder().mechanism(Mechanism::Subreaper).build().expect_err("refused");
    assert!(error.to_string().contains("PID namespace that this process is not in"), "{error}");
    // `cgroup.procs` has the pids of the reader's namespace.
    let job = Job::builder().mechanism(Mechanism::Cgroup).build().expect("a job");
    let child = job.spawn(Command::new("sleep").arg("300")).expect("started");
    let members = job.processes().expect("a list");
    assert_eq!(members.iter().map(onejob::Process::pid).collect::<Vec<_>>(), [child.pid()]);
    job.kill().expect("killed");
}

#[test]
fn a_proc_that_hides_others_hides_no_member() {
    const NAME: &str = "a_proc_that_hides_others_hides_no_member";
    const USER: u32 = 54_324;
    if !is_root() && !is_alone(NAME) {
        return testkit::skip("only root can mount");
    }
    let hidden = |command: &mut process::Command| {
        with_mounts(command, || {
            mount(c"proc", c"/proc", c"hidepid=2")?;
            // SAFETY: takes numbers. This process runs only this test.
            unsafe {
                libc::setgroups(0, std::ptr::null());
                libc::setresgid(USER, USER, USER);
                libc::setresuid(USER, USER, USER);
            }
            Ok(())
        });
    };
    if !alone(NAME, hidden) {
        return;
    }
    assert!(!Path::new("/proc/1/stat").exists(), "processes of other users are visible");
    let job = job(Mechanism::Subreaper);
    job.spawn(Command::new("sh").args(["-c", "setsid sleep 300 & exec sleep 300"]))
        .expect("started");
    eventually("two listed members", || {
        (job.processes().expect("a list").len() == 2).then_some(())
    });
    job.kill().expect("killed");
    assert!(job.is_empty().expect("observable"));
}

/// The error for a requirement that cannot be met names the missing guarantee and has a hint.
#[test]
fn unmet_requirement_error_has_reason_and_hint() {
    let error =
        Job::builder().require(Containment::Sealed).build().expect_err("no mechanism seals");
    assert!(error.is_unmet_requirement(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("containment=sealed") && text.contains("probe_mechanisms"), "{text}");
    for_each_mechanism(|mechanism| {
        let builder = || Job::builder().mechanism(mechanism);
        let strong = builder().require(Kill::Atomic).build();
        assert_eq!(strong.is_ok(), mechanism == Mechanism::Cgroup);
        builder().require(Kill::Converging).require(OwnerDeath::Guard).build().expect("met");
        assert!(builder().require(OwnerDeath::Kernel).build().is_err());
    });
}

#[test]
fn adopting_what_cannot_be_adopted_is_refused() {
    assert!(ProcessId::of(0).unwrap_err().is_invalid_input());
    assert!(ProcessId::of(u32::MAX).unwrap_err().is_invalid_input());
    assert!(ProcessId::of(4_194_304).unwrap_err().is_not_found());
    for_each_mechanism(|mechanism| {
        let job = job(mechanism);
        let me = ProcessId::of(process::id()).expect("this process");
        assert!(job.adopt(&me).unwrap_err().is_invalid_input());
        let mut outsider = process::Command::new("sleep").arg("300").spawn().expect("started");
        let id = ProcessId::of(outsider.id()).expect("identified");
        let adopted = job.adopt(&id);
        if mechanism == Mechanism::Cgroup {
            adopted.expect("adopted");
            assert_eq!(job.processes().expect("a list")[0].id, id);
            assert!(job.adopt(&ProcessId::of(1).expect("init")).unwrap_err().is_invalid_input());
            job.kill().expect("killed");
        } else {
            assert!(adopted.unwrap_err().is_unsupported());
            outsider.kill().expect("killed");
        }
        outsider.wait().expect("a status");
        assert!(job.adopt(&id).is_err_and(|e| e.is_stale() || e.is_unsupported()));
    });
}

#[test]
fn stop_tree_refuses_init_and_the_caller() {
    let refused = |pid: u32| {
        let id = ProcessId::of(pid).expect("identified");
        stop_tree(&id, Signal::TERM, Duration::ZERO).expect_err("refused")
    };
    assert!(refused(1).is_invalid_input());
    assert!(refused(process::id()).is_invalid_input());
    let mut gone = process::Command::new("sleep").arg("300").spawn().expect("started");
    let id = ProcessId::of(gone.id()).expect("identified");
    gone.kill().expect("killed");
    gone.wait().expect("reaped");
    assert!(stop_tree(&id, Signal::TERM, Duration::ZERO).unwrap_err().is_stale());
}
