//! Death at random moments of building, spawning and stopping.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use testkit::{Bins, Environment, eventually};

use crate::fixture::{Fixture, Random, Times, environments, pause};

const LIBRARY_DEATHS: usize = 100;
const COMMAND_DEATHS: usize = 50;

/// At a hundred random moments a killed owner of a cgroup job leaves nothing.
#[test]
fn random_kills_of_a_cgroup_owner() {
    library("cgroup");
}

/// At a hundred random moments a killed owner of a subreaper job leaves nothing.
#[test]
fn random_kills_of_a_subreaper_owner() {
    library("subreaper");
}

/// At fifty random moments a killed onejob run with a cgroup leaves nothing.
#[test]
fn random_kills_of_run_with_cgroup() {
    command("cgroup");
}

/// At fifty random moments a killed onejob run with a subreaper leaves nothing.
#[test]
fn random_kills_of_run_with_subreaper() {
    command("subreaper");
}

/// Twice the whole life of a job.
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
    let environments = environments(mechanism);
    if environments.is_empty() {
        return;
    }
    let mut random = Random::new();
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

/// How long each request takes.
fn lengths(environment: Environment) -> Vec<Duration> {
    let mut fixture = Fixture::new(environment);
    let mut owner = fixture.owner();
    let lengths = script(&fixture).into_iter().map(|request| {
        let start = Instant::now();
        owner.ok(&request);
        start.elapsed()
    });
    let lengths = lengths.collect();
    owner.end();
    fixture.is_deserted();
    lengths
}

/// One death; how long it took until nothing was left, and whether there were members.
fn die(environment: Environment, lengths: &[Duration], random: &mut Random) -> (Duration, bool) {
    let mut fixture = Fixture::new(environment);
    let mut owner = fixture.owner();
    let script = script(&fixture);
    script.iter().for_each(|request| owner.send(request));
    // Any request is as likely to be met as any other, however long it takes.
    let done = random.below(script.len());
    for request in &script[..done] {
        owner.receive(request).unwrap_or_else(|error| panic!("{request}: {error}"));
    }
    pause(random.duration(lengths[done].mul_f32(1.3)));
    let living = fixture.sandbox.live_pids().len();
    let guards = fixture.all_guards().len();
    owner.kill();
    (fixture.is_deserted(), living > guards + 1)
}

/// A tree that is still there when CMD has ended, one that is there while it runs.
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
    let environments = environments(mechanism);
    let mut random = Random::new();
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
    // A whole life is some 30 ms, most of it the wait for who ignores the request to end.
    pause(random.duration(Duration::from_millis(if cmd_ends { 40 } else { 15 })));
    // It alone, and not whoever has its name: a guard goes by it, too, until it is another program.
    let status = eventually("the end of `onejob run`", || {
        fixture.sandbox.program(&run.0).into_iter().for_each(crate::fixture::kill);
        run.0.try_wait().expect("our child")
    });
    let dead = Instant::now();
    fixture.stand_by_apart();
    (fixture.is_deserted_since(dead), status.signal() == Some(9) || status.code() == Some(128 + 9))
}

/// The outer guard is at no moment in the group of its owner.
#[test]
fn random_kills_of_the_group_at_start() {
    const GROUP_DEATHS: usize = 100;
    let environments = Environment::here();
    let mut random = Random::new();
    let mut begun = 0;
    for death in 0..if environments.is_empty() { 0 } else { GROUP_DEATHS } {
        let mut fixture = Fixture::new(environments[death % environments.len()]);
        let mut run = KillOnDrop(start(&mut fixture, false));
        // It leads its group from a moment after its start on.
        let leads = |pid: &i32| testkit::proc::group(*pid) == *pid;
        let group = eventually("`onejob run`", || fixture.sandbox.program(&run.0).filter(leads));
        pause(random.duration(Duration::from_millis(8)));
        begun += usize::from(fixture.sandbox.live_pids().len() > 1);
        let group = rustix::process::Pid::from_raw(group).expect("a pid");
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        eventually("the end of `onejob run`", || run.0.try_wait().expect("our child"));
        fixture.stand_by_apart();
        fixture.is_deserted();
    }
    eprintln!("{begun} of {GROUP_DEATHS} died with somebody beside");
}

/// Killed at the latest when dropped.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Onejob run that is killed takes a daemon along.
#[test]
fn onejob_run_killed_with_a_daemon_inside() {
    crate::fixture::every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut run = KillOnDrop(start(&mut fixture, false));
        fixture.report.helper(&fixture.sandbox, "escapee");
        fixture.guards();
        let front = fixture.sandbox.program(&run.0).expect("a living program");
        fixture.stand_by_apart();
        crate::fixture::kill(front);
        fixture.is_deserted();
        let _ = run.0.wait();
    });
}
