//! The owner is killed at random moments while it makes jobs, spawns and stops.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use testkit::{
    Bins, Environment, Fixture, KillOnDrop, Random, eventually, every_environment, proc, strace,
};

use crate::times::{Times, pause};

const LIBRARY_DEATHS: usize = 100;
const COMMAND_DEATHS: usize = 50;

/// Nothing is left of a cgroup job if its owner is killed at one of a hundred random moments.
#[test]
fn random_kills_of_a_cgroup_owner() {
    library("cgroup");
}

/// Nothing is left of a subreaper job if its owner is killed at one of a hundred random moments.
#[test]
fn random_kills_of_a_subreaper_owner() {
    library("subreaper");
}

/// Nothing is left of `onejob run` with a cgroup that is killed at one of fifty random moments.
#[test]
fn random_kills_of_run_with_cgroup() {
    command("cgroup");
}

/// Nothing is left of `onejob run` with a subreaper that is killed at one of fifty random moments.
#[test]
fn random_kills_of_run_with_subreaper() {
    command("subreaper");
}

/// Makes, fills, stops and drops a job, twice.
fn script(fixture: &Fixture) -> Vec<String> {
    let mechanism = fixture.environment.mechanism();
    let life = [
        format!("new {mechanism} listed"),
        fixture.spawn("setsid"),
        fixture.spawn("daemon-grandchild"),
        fixture.spawn("stubborn"),
        "list".to_owned(),
        "stop 20".to_owned(),
        "drop".to_owned(),
    ];
    [life.clone(), life].concat()
}

fn library(mechanism: &str) {
    let environments = Environment::of(mechanism);
    if environments.is_empty() {
        return;
    }
    let mut random = Random::from_environment();
    let lengths: Vec<_> = environments.iter().map(|environment| lengths(*environment)).collect();
    let (mut times, mut with_members) = (Times::default(), 0);
    for death in 0..LIBRARY_DEATHS {
        let which = death % environments.len();
        let (took, members) = die(environments[which], &lengths[which], &mut random);
        times.push(took);
        with_members += usize::from(members);
    }
    times.assert_prompt(&format!("library, {mechanism}"));
    assert!(with_members * 4 > LIBRARY_DEATHS, "only {with_members} died with members");
}

/// How long each request of the script takes.
fn lengths(environment: Environment) -> Vec<Duration> {
    let mut fixture = Fixture::new(environment);
    let mut owner = fixture.process();
    let lengths = script(&fixture).into_iter().map(|request| {
        let start = Instant::now();
        owner.ok(&request);
        start.elapsed()
    });
    let lengths = lengths.collect();
    owner.end();
    fixture.assert_clean_since(Instant::now());
    lengths
}

/// Kills an owner at a random moment. Returns how long it took until nothing was left, and whether there
/// were members.
fn die(environment: Environment, lengths: &[Duration], random: &mut Random) -> (Duration, bool) {
    let mut fixture = Fixture::new(environment);
    let mut owner = fixture.process();
    let script = script(&fixture);
    script.iter().for_each(|request| owner.send(request));
    // Each request is chosen with the same probability, however long it takes.
    let done = random.index(script.len());
    for request in &script[..done] {
        owner.receive(request).unwrap_or_else(|error| panic!("{request}: {error}"));
    }
    pause(random.duration(lengths[done].mul_f32(1.3)));
    let living = fixture.sandbox.live_pids().len();
    let guards = fixture.all_guards().len();
    owner.kill();
    (fixture.assert_clean_since(Instant::now()), living > guards + 1)
}

/// Starts `onejob run` with members that outlive CMD, or with a daemon beside a CMD that runs.
fn start(fixture: &mut Fixture, cmd_ends: bool) -> Child {
    if cmd_ends {
        fixture.report.go();
    }
    let mechanism = fixture.environment.mechanism();
    let report = fixture.report.arg().to_owned();
    let scenario = if cmd_ends { "stubborn" } else { "daemon-grandchild" };
    fixture.sandbox.start(&Bins::get().onejob(), |run| {
        run.args(["run", "--mechanism", mechanism, "-k", "20ms", "--"]);
        run.arg(Bins::get().helper()).args([scenario, &report]);
        run.stdin(Stdio::null()).stdout(Stdio::null());
    })
}

fn command(mechanism: &str) {
    let environments = Environment::of(mechanism);
    let mut random = Random::from_environment();
    let (mut times, mut killed) = (Times::default(), 0);
    for death in 0..if environments.is_empty() { 0 } else { COMMAND_DEATHS } {
        let environment = environments[death % environments.len()];
        let (took, was_killed) = run_and_die(environment, &mut random);
        times.push(took);
        killed += usize::from(was_killed);
    }
    times.assert_prompt(&format!("onejob run, {mechanism}"));
    assert!(environments.is_empty() || killed * 2 > COMMAND_DEATHS, "only {killed} were killed");
}

fn run_and_die(environment: Environment, random: &mut Random) -> (Duration, bool) {
    let cmd_ends = random.below(2) == 0;
    let mut fixture = Fixture::new(environment);
    let mut run = KillOnDrop(start(&mut fixture, cmd_ends));
    // A run takes about 30 ms, most of it the grace period of members that ignore SIGTERM.
    pause(random.duration(Duration::from_millis(if cmd_ends { 40 } else { 15 })));
    // Found by its pid: a guard has the same name until it has executed the guard program.
    let status = eventually("the end of `onejob run`", || {
        fixture.sandbox.program(&run.0).into_iter().for_each(proc::kill);
        run.0.try_wait().expect("a child of this process")
    });
    let dead = Instant::now();
    fixture.start_bystanders_apart();
    (fixture.assert_clean_since(dead), strace::is_killed(status))
}

/// Nothing is left if the process group of `onejob run` is killed: the outer guard is never in that group.
#[test]
fn random_kills_of_the_group_at_start() {
    const GROUP_DEATHS: usize = 100;
    let environments = Environment::here();
    let mut random = Random::from_environment();
    let mut begun = 0;
    for death in 0..if environments.is_empty() { 0 } else { GROUP_DEATHS } {
        let mut fixture = Fixture::new(environments[death % environments.len()]);
        let mut run = KillOnDrop(start(&mut fixture, false));
        // A moment after its start it leads a process group.
        let leads = |pid: &i32| proc::group(*pid) == *pid;
        let group = eventually("`onejob run`", || fixture.sandbox.program(&run.0).filter(leads));
        pause(random.duration(Duration::from_millis(8)));
        begun += usize::from(fixture.sandbox.live_pids().len() > 1);
        let group = rustix::process::Pid::from_raw(group).expect("a pid");
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        eventually("the end of `onejob run`", || {
            run.0.try_wait().expect("a child of this process")
        });
        fixture.start_bystanders_apart();
        fixture.assert_clean_since(Instant::now());
    }
    eprintln!("{begun} of {GROUP_DEATHS} died with other processes beside them");
}

/// A daemon dies with a `onejob run` that is killed.
#[test]
fn onejob_run_killed_with_a_daemon_inside() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut run = KillOnDrop(start(&mut fixture, false));
        fixture.report.helper(&fixture.sandbox, "escapee");
        fixture.guards();
        let front = fixture.sandbox.program(&run.0).expect("a living program");
        fixture.start_bystanders_apart();
        proc::kill(front);
        fixture.assert_clean_since(Instant::now());
        let _ = run.0.wait();
    });
}
