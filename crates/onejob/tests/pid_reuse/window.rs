//! Calls that are delayed between the check of a pid and the action.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use testkit::{
    Bins, Environment, LineProcess, Owner, Reply, Report, Sandbox, eventually, proc, scratch_dir,
    skip,
};

use crate::{
    bystander::{Bystander, Parent, await_free, kill},
    space::inside,
};

/// The delay of each call.
const MICROSECONDS: u32 = 500_000;

/// A process under strace, which delays it at the entry of each call of one name.
pub(crate) struct Slow {
    strace: Child,
    log: PathBuf,
}

impl Slow {
    pub(crate) fn start(words: &[&str], call: &str) -> Slow {
        Slow::new(call, |strace| {
            strace.arg("--").args(words);
        })
    }

    #[track_caller]
    pub(crate) fn attach(pid: i32, call: &str) -> Slow {
        let slow = Slow::new(call, |strace| {
            strace.args(["-p", &pid.to_string()]);
        });
        eventually("strace to attach", || {
            (proc::status(pid, "TracerPid")? == slow.strace.id().to_string()).then_some(())
        });
        slow
    }

    fn new(call: &str, target: impl FnOnce(&mut Command)) -> Slow {
        let log = scratch_dir().join("strace");
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o"]).arg(&log);
        strace.args(["-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:delay_enter={MICROSECONDS}")]);
        target(&mut strace);
        let strace = strace.stdin(Stdio::null()).spawn().expect("strace starts");
        Slow { strace, log }
    }

    /// The lines that begin with `text`.
    fn lines(&self, text: &str) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Waits until it is at the entry of a call for the `nth` time.
    #[track_caller]
    pub(crate) fn awaits(&self, text: &str, nth: usize) {
        eventually(&format!("{text} for the {nth}. time"), || {
            (self.lines(text).len() >= nth).then_some(())
        });
    }

    /// Whether that call has returned.
    pub(crate) fn is_past(&self, text: &str, nth: usize) -> bool {
        self.lines(text).get(nth - 1).is_some_and(|line| line.contains(") = "))
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn ends(mut self) {
        eventually("the end of the slow process", || {
            self.strace.try_wait().expect("a child of this process")
        });
    }
}

/// A process that strace was attached to continues.
impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Repeats `attempt` until the bystander was started during the delay: on a stalled machine it can be too late.
#[track_caller]
pub(crate) fn in_time(attempt: impl Fn() -> bool) {
    const TRIES: usize = 10;
    assert!((0..TRIES).any(|_| attempt()), "the pid was never reused during the call");
}

/// Lets the owner make a job whose only member is a daemon, which a subreaper or PID 1 reaps.
#[track_caller]
pub(crate) fn daemon(
    ask: &mut dyn FnMut(&str) -> String,
    environment: Environment,
    sandbox: &Sandbox,
    report: &Report,
) -> i32 {
    report.go();
    ask(&format!("new {}", environment.mechanism()));
    ask(&format!("spawn {} daemon {}", Bins::get().helper().display(), report.arg()));
    ask("child-wait");
    let daemon = report.helper(sandbox, "escapee");
    eventually("an orphan", || (Some(daemon.stat().ppid) != daemon.starter).then_some(()));
    daemon.pid
}

/// Starts a process whose child is reaped by the kernel. Returns the process and the pid of the child.
pub(crate) fn auto_reaping_parent() -> (Child, i32) {
    let mut parent = Command::new(Bins::get().odd_owner());
    parent.arg("auto-reap").arg(Bins::get().helper()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut parent = parent.spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(parent.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let child = line.trim().strip_prefix("ok ").and_then(|pid| pid.parse().ok());
    (parent, child.expect("a pid"))
}

/// The daemon dies while the owner, in `request`, is about to open a pidfd of it.
fn delayed_at_open(environment: Environment, request: &str, check: impl Fn(i32, Reply)) {
    delayed(environment, request, "pidfd_open", |number| format!("({number},"), check);
}

/// The daemon dies while the owner, in `request`, is about to send `signal` to it.
fn delayed_at_signal(
    environment: Environment,
    request: &str,
    signal: &str,
    check: impl Fn(i32, Reply),
) {
    delayed(environment, request, "pidfd_send_signal", |_| format!(", {signal},"), check);
}

/// The daemon dies while the owner, in `request`, is at the entry of `call`.
fn delayed(
    environment: Environment,
    request: &str,
    call: &str,
    words: impl Fn(i32) -> String,
    check: impl Fn(i32, Reply),
) {
    in_time(|| {
        let (mut sandbox, report) = (Sandbox::new(environment), Report::new());
        let mut owner = Owner::start(&mut sandbox, environment);
        let number = daemon(&mut |request| owner.ok(request), environment, &sandbox, &report);
        let slow = Slow::attach(owner.pid, call);
        let words = words(number);
        owner.send(request);
        slow.awaits(&words, 1);
        kill(number);
        let mut bystander = Bystander::with_number(number);
        let in_time = !slow.is_past(&words, 1);
        let answer = owner.receive(request);
        drop(slow);
        check(number, answer);
        owner.end();
        bystander.is_untouched();
        bystander.dies_by_its_number();
        in_time
    });
}

/// A signal does not reach a bystander that gets the pid of a member during the call.
#[test]
fn signal_with_a_pid_reused_inside_the_call() {
    let name = "signal_with_a_pid_reused_inside_the_call";
    every_environment(name, |environment| {
        let none = |_, answer| assert_eq!(answer, Ok("0".into()));
        delayed_at_open(environment, "signal TERM", none);
        delayed_at_signal(environment, "signal TERM", "SIGTERM", none);
    });
}

/// A stop does not end a bystander that gets the pid of a member during the call.
#[test]
fn stop_with_a_pid_reused_inside_the_call() {
    let name = "stop_with_a_pid_reused_inside_the_call";
    every_environment(name, |environment| {
        let empty = |_, answer: Reply| drop(answer.expect("an empty job"));
        delayed_at_open(environment, "stop 1000", empty);
        delayed_at_signal(environment, "stop 1000", "SIGTERM", empty);
    });
}

/// A kill does not end a bystander that gets the pid of a member during the call.
#[test]
fn kill_with_a_pid_reused_inside_the_call() {
    let name = "kill_with_a_pid_reused_inside_the_call";
    // A kill of a cgroup uses no pids.
    let uses_pids = |environment: &Environment| environment.mechanism() == "subreaper";
    every_environment(name, |environment| {
        if uses_pids(&environment) {
            let empty = |_, answer: Reply| drop(answer.expect("an empty job"));
            delayed_at_open(environment, "kill", empty);
            delayed_at_signal(environment, "kill", "SIGKILL", empty);
        }
    });
}

/// A kill does not end the child of a bystander that has got the pid of a member: a process that is found as
/// a child of a pid may be the child of another process with this pid.
#[test]
fn child_of_a_process_with_a_reused_pid() {
    let name = "child_of_a_process_with_a_reused_pid";
    if !is_ready(name) {
        return;
    }
    for request in ["kill", "signal TERM"] {
        in_time(|| {
            let environment = Environment::SubreaperRoot;
            let mut sandbox = Sandbox::new(environment);
            let mut owner = Owner::start(&mut sandbox, environment);
            owner.new_job();
            let member = Bins::get().helper().display().to_string();
            owner.ok(&format!("spawn {} auto-reap {member}", Bins::get().odd_owner().display()));
            let parent = owner.list()[0];
            let number =
                eventually("a child of the member", || proc::children(parent).first().copied());
            // The owner has a pidfd of the member by then, and is about to read its children.
            let slow = Slow::attach(owner.pid, "statx");
            let look = format!("\"{number}/task\"");
            owner.send(request);
            slow.awaits(&look, 1);
            kill(number);
            let mut bystander = Parent::with_number(number);
            let in_time = !slow.is_past(&look, 1);
            owner.receive(request).expect("a job");
            drop(slow);
            owner.ok("kill");
            owner.end();
            bystander.lives_with_its_child();
            in_time
        });
    }
}

/// A list does not contain a bystander that gets the pid of a member during the call.
#[test]
fn list_with_a_pid_reused_inside_the_call() {
    let name = "list_with_a_pid_reused_inside_the_call";
    every_environment(name, |environment| {
        delayed_at_open(environment, "list", |number, answer| {
            let members = testkit::numbers(&answer.expect("a list"));
            assert!(!members.contains(&number), "the bystander is listed as a member");
        });
    });
}

fn every_environment(name: &str, test: impl Fn(Environment)) {
    if is_ready(name) {
        [Environment::CgroupRoot, Environment::SubreaperRoot].into_iter().for_each(test);
    }
}

/// Whether this is the process inside the namespace, with strace.
fn is_ready(test: &str) -> bool {
    let module = module_path!().split_once("::").expect("below the root").1;
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        skip("strace is not installed");
        return false;
    }
    inside(&format!("{module}::{test}"))
}

/// Adopt moves a bystander back that gets the pid during the call.
#[test]
fn adopt_with_a_pid_reused_inside_the_call() {
    if !is_ready("adopt_with_a_pid_reused_inside_the_call") {
        return;
    }
    // Before its pidfd is open, and after that, when its pid is written to `cgroup.procs`.
    for (call, nth) in [("pidfd_open", 2), ("write", 1)] {
        in_time(|| {
            let environment = Environment::CgroupRoot;
            let mut sandbox = Sandbox::new(environment);
            let mut owner = Owner::start(&mut sandbox, environment);
            owner.new_job();
            let mut adopted = Command::new(Bins::get().helper());
            let adopted = adopted.args(["sleep", "/dev/null"]).stdin(Stdio::null());
            let mut adopted = adopted.spawn().expect("the helper starts");
            let number = adopted.id() as i32;
            let slow = Slow::attach(owner.pid, call);
            let look =
                if call == "write" { format!("\"{number}\"") } else { format!("({number},") };
            owner.send(&format!("adopt {number}"));
            slow.awaits(&look, nth);
            kill(number);
            adopted.wait().expect("a child of this process");
            let mut bystander = Bystander::with_number(number);
            let in_time = !slow.is_past(&look, nth);
            let error = owner.receive("adopt").expect_err("the process is gone");
            drop(slow);
            assert!(error.starts_with("stale"), "{error}");
            let home = fs::read_to_string("/proc/self/cgroup").expect("readable");
            let its = fs::read_to_string(format!("/proc/{number}/cgroup")).expect("alive");
            assert_eq!(its, home, "the bystander is in its first cgroup");
            owner.ok("kill");
            owner.end();
            bystander.is_untouched();
            bystander.dies_by_its_number();
            in_time
        });
    }
}

/// `stop_tree` does not end a bystander that gets the pid of a descendant during the call.
#[test]
fn stop_tree_with_a_descendant_pid_reused() {
    if !is_ready("stop_tree_with_a_descendant_pid_reused") {
        return;
    }
    in_time(|| {
        let mut sandbox = Sandbox::new(Environment::CgroupRoot);
        let (mut root, child) = auto_reaping_parent();
        let mut stopper = LineProcess::start(&mut sandbox, &Bins::get().odd_owner(), |stopper| {
            stopper.args(["stop-tree", &root.id().to_string()]);
        });
        stopper.receive("the start").expect("it starts");
        let slow = Slow::attach(stopper.pid(), "pidfd_open");
        let look = format!("pidfd_open({child},");
        stopper.send("go");
        slow.awaits(&look, 1);
        kill(child);
        let mut bystander = Bystander::with_number(child);
        let in_time = !slow.is_past(&look, 1);
        stopper.receive("go").expect("the tree is ended");
        drop(slow);
        root.wait().expect("a child of this process");
        bystander.is_untouched();
        bystander.dies_by_its_number();
        in_time
    });
}

/// `stop_tree` does not end a bystander that gets the pid of the root during the call.
#[test]
fn stop_tree_with_the_root_pid_reused() {
    if !is_ready("stop_tree_with_the_root_pid_reused") {
        return;
    }
    in_time(|| {
        let mut sandbox = Sandbox::new(Environment::CgroupRoot);
        let (mut root, child) = auto_reaping_parent();
        let number = root.id() as i32;
        let mut stopper = LineProcess::start(&mut sandbox, &Bins::get().odd_owner(), |stopper| {
            stopper.args(["stop-tree", &number.to_string()]);
        });
        stopper.receive("the start").expect("it starts");
        let slow = Slow::attach(stopper.pid(), "pidfd_open");
        let look = format!("pidfd_open({number},");
        stopper.send("go");
        slow.awaits(&look, 2);
        kill(number);
        root.wait().expect("a child of this process");
        let mut bystander = Bystander::with_number(number);
        let in_time = !slow.is_past(&look, 2);
        stopper.receive("go").expect_err("the root is gone");
        drop(slow);
        // The child had lost its parent before `stop_tree` read the children.
        kill(child);
        await_free(child);
        bystander.is_untouched();
        bystander.dies_by_its_number();
        in_time
    });
}

/// A guard does not kill a bystander that gets the pid of a member while the guard ends the job.
#[test]
fn guard_ending_a_job_with_a_pid_reused() {
    if !is_ready("guard_ending_a_job_with_a_pid_reused") {
        return;
    }
    in_time(|| {
        let environment = Environment::SubreaperRoot;
        let mut sandbox = Sandbox::new(environment);
        let mut owner = Owner::start(&mut sandbox, environment);
        owner.new_job();
        let guards = crate::guards(&sandbox);
        let parent = |pid: &i32| proc::stat(pid).map_or(0, |stat| stat.ppid);
        let inner = *guards.iter().find(|pid| guards.contains(&parent(pid))).expect("two guards");
        // The outer guard would kill the member at the same time.
        kill(parent(&inner));
        await_free(*guards.iter().find(|pid| **pid != inner).expect("two guards"));
        owner.ok(&format!(
            "spawn {} auto-reap {}",
            Bins::get().odd_owner().display(),
            Bins::get().helper().display()
        ));
        let member = owner.list()[0];
        let child = eventually("a child of the member", || proc::children(member).first().copied());
        let slow = Slow::attach(inner, "pidfd_open");
        let look = format!("pidfd_open({child},");
        owner.kill();
        slow.awaits(&look, 1);
        kill(child);
        let mut bystander = Bystander::with_number(child);
        let in_time = !slow.is_past(&look, 1);
        sandbox.wait_until_empty(|_| false);
        drop(slow);
        bystander.is_untouched();
        bystander.dies_by_its_number();
        in_time
    });
}
