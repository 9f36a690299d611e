//! Death at random moments of building, spawning and stopping.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use testkit::{Bins, Environment, eventually};

use crate::fixture::{Random, Scene, Times, pause, settings};

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
fn script(scene: &Scene) -> Vec<String> {
    let mechanism = scene.setting.mechanism();
    let life = [
        format!("new {mechanism} listed"),
        scene.spawn("setsid"),
        scene.spawn("daemon-grandchild"),
        scene.spawn("stubborn"),
        "list".to_owned(),
        "stop 20".to_owned(),
        "drop".to_owned(),
    ];
    [life.clone(), life].concat()
}

fn library(mechanism: &str) {
    let settings = settings(mechanism);
    if settings.is_empty() {
        return;
    }
    let mut random = Random::new();
    let lengths: Vec<_> = settings.iter().map(|setting| lengths(*setting)).collect();
    let (mut times, mut with_members) = (Times::default(), 0);
    for death in 0..LIBRARY_DEATHS {
        let which = death % settings.len();
        let (took, members) = die(settings[which], &lengths[which], &mut random);
        times.push(took);
        with_members += usize::from(members);
    }
    times.assert_prompt(&format!("library, {mechanism}"));
    assert!(with_members * 4 > LIBRARY_DEATHS, "only {with_members} died with members");
}

/// How long each request takes.
fn lengths(setting: Environment) -> Vec<Duration> {
    let mut scene = Scene::new(setting);
    let mut owner = scene.owner();
    let lengths = script(&scene).into_iter().map(|request| {
        let start = Instant::now();
        owner.ok(&request);
        start.elapsed()
    });
    let lengths = lengths.collect();
    owner.end();
    scene.is_deserted();
    lengths
}

/// One death; how long it took until nothing was left, and whether there were members.
fn die(setting: Environment, lengths: &[Duration], random: &mut Random) -> (Duration, bool) {
    let mut scene = Scene::new(setting);
    let mut owner = scene.owner();
    let script = script(&scene);
    script.iter().for_each(|request| owner.send(request));
    // Any request is as likely to be met as any other, however long it takes.
    let done = random.below(script.len());
    for request in &script[..done] {
        owner.receive(request).unwrap_or_else(|error| panic!("{request}: {error}"));
    }
    pause(random.duration(lengths[done].mul_f32(1.3)));
    let living = scene.cell.live_pids().len();
    let guards = scene.all_guards().len();
    owner.kill();
    (scene.is_deserted(), living > guards + 1)
}

/// A tree that is still there when CMD has ended, one that is there while it runs.
fn start(scene: &mut Scene, cmd_ends: bool) -> Child {
    if cmd_ends {
        scene.report.go();
    }
    let mechanism = scene.setting.mechanism();
    let report = scene.report.arg().to_owned();
    let scenario = if cmd_ends { "stubborn" } else { "daemon-grandchild" };
    scene.cell.start(&Bins::get().onejob(), |run| {
        run.args(["run", "--mechanism", mechanism, "-k", "20ms", "--"]);
        run.arg(Bins::get().actor()).args([scenario, &report]);
        run.stdin(Stdio::null()).stdout(Stdio::null());
    })
}

fn command(mechanism: &str) {
    let settings = settings(mechanism);
    let mut random = Random::new();
    let (mut times, mut killed) = (Times::default(), 0);
    for death in 0..if settings.is_empty() { 0 } else { COMMAND_DEATHS } {
        let setting = settings[death % settings.len()];
        let (took, was_killed) = run_and_die(setting, &mut random);
        times.push(took);
        killed += usize::from(was_killed);
    }
    times.assert_prompt(&format!("onejob run, {mechanism}"));
    assert!(settings.is_empty() || killed * 2 > COMMAND_DEATHS, "only {killed} were killed");
}

fn run_and_die(setting: Environment, random: &mut Random) -> (Duration, bool) {
    let cmd_ends = random.below(2) == 0;
    let mut scene = Scene::new(setting);
    let mut run = Mortal(start(&mut scene, cmd_ends));
    // A whole life is some 30 ms, most of it the wait for who ignores the request to end.
    pause(random.duration(Duration::from_millis(if cmd_ends { 40 } else { 15 })));
    // It alone, and not whoever has its name: a guard goes by it, too, until it is another program.
    let status = eventually("the end of `onejob run`", || {
        scene.cell.program(&run.0).into_iter().for_each(crate::fixture::kill);
        run.0.try_wait().expect("our child")
    });
    let dead = Instant::now();
    scene.stand_by_apart();
    (scene.is_deserted_since(dead), status.signal() == Some(9) || status.code() == Some(128 + 9))
}

/// The outer guard is at no moment in the group of its owner.
#[test]
fn random_kills_of_the_group_at_start() {
    const GROUP_DEATHS: usize = 100;
    let settings = Environment::here();
    let mut random = Random::new();
    let mut begun = 0;
    for death in 0..if settings.is_empty() { 0 } else { GROUP_DEATHS } {
        let mut scene = Scene::new(settings[death % settings.len()]);
        let mut run = Mortal(start(&mut scene, false));
        // It leads its group from a moment after its start on.
        let leads = |pid: &i32| testkit::proc::group(*pid) == *pid;
        let group = eventually("`onejob run`", || scene.cell.program(&run.0).filter(leads));
        pause(random.duration(Duration::from_millis(8)));
        begun += usize::from(scene.cell.live_pids().len() > 1);
        let group = rustix::process::Pid::from_raw(group).expect("a pid");
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        eventually("the end of `onejob run`", || run.0.try_wait().expect("our child"));
        scene.stand_by_apart();
        scene.is_deserted();
    }
    eprintln!("{begun} of {GROUP_DEATHS} died with somebody beside");
}

/// Killed at the latest when dropped.
struct Mortal(Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Onejob run that is killed takes a daemon along.
#[test]
fn onejob_run_killed_with_a_daemon_inside() {
    crate::fixture::every_setting(|setting| {
        let mut scene = Scene::new(setting);
        let mut run = Mortal(start(&mut scene, false));
        scene.report.helper(&scene.cell, "escapee");
        scene.guards();
        let front = scene.cell.program(&run.0).expect("a living program");
        scene.stand_by_apart();
        crate::fixture::kill(front);
        scene.is_deserted();
        let _ = run.0.wait();
    });
}
