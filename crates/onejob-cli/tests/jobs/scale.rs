//! Many jobs, and many runs with one name.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use onejob::{Job, Mechanism};

use crate::{
    common::{eventually, is_error, mechanisms, outcome, skip, text, wait},
    fixture::Fixture,
};

const HOLD: &str = "ONEJOB_TEST_HOLD";

/// Not a test by itself: holds the number of jobs in its environment until the end of its input.
#[test]
fn holder() {
    let Some(count) = std::env::var(HOLD).ok().and_then(|count| count.parse::<usize>().ok()) else {
        return;
    };
    let job = |number| Job::builder().mechanism(Mechanism::Cgroup).name(format!("many-{number}"));
    let _jobs: Vec<_> = (0..count).map(|number| job(number).build().unwrap()).collect();
    println!("held");
    let _ = std::io::stdin().lines().count();
}

fn hold(fixture: &Fixture, count: usize) -> Child {
    let mut holder = Command::new(std::env::current_exe().unwrap());
    holder.args(["scale::holder", "--exact", "--nocapture"]).env(HOLD, count.to_string());
    fixture.apply_to(&mut holder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = holder.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("held")));
    // Keeps the pipe open: the helper would fail when it prints its last line.
    std::thread::spawn(move || lines.count());
    child
}

/// The number of system calls of `onejob ls`, and the bytes it read from directories.
fn cost(fixture: &Fixture) -> (usize, usize) {
    let log = fixture.scratch.file("strace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&log).arg(crate::common::ONEJOB).arg("ls");
    assert!(outcome(fixture.apply_to(&mut strace)).status.success());
    let log = fs::read_to_string(log).unwrap();
    let bytes = |line: &str| line.rsplit_once("= ")?.1.parse::<usize>().ok();
    let listed = log.lines().filter(|line| line.contains("getdents64(")).filter_map(bytes);
    (log.lines().count(), listed.sum())
}

/// The cost of `ls` grows with the number of jobs, and not with unrelated processes.
#[test]
fn ls_of_five_hundred_jobs() {
    if !mechanisms().iter().any(|mechanism| mechanism == "cgroup") {
        skip!("the mechanism cgroup is not available here");
    }
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        skip!("strace is not installed");
    }
    let costs: Vec<_> = [100, 500]
        .map(|count| {
            let fixture = Fixture::new();
            let mut holder = hold(&fixture, count);
            let listed = fixture.json(&["ls", "--json"]);
            assert_eq!(listed["jobs"].as_array().unwrap().len(), count);
            let alone = cost(&fixture);
            let mut others: Vec<_> =
                (0..200).map(|_| Command::new("sleep").arg("1000").spawn().unwrap()).collect();
            let beside = cost(&fixture);
            others.iter_mut().for_each(|other| {
                other.kill().unwrap();
                other.wait().unwrap();
            });
            eprintln!("{count} jobs: {alone:?}, beside 200 others {beside:?}");
            assert!(beside.0 < alone.0 + alone.0 / 20, "{count}: {alone:?}, {beside:?}");
            assert!(beside.1 < alone.1 + alone.1 / 10, "{count}: {alone:?}, {beside:?}");
            drop(holder.stdin.take());
            wait(&mut holder);
            fixture.assert_empty();
            alone
        })
        .into();
    let [few, many] = costs[..] else { unreachable!("two counts") };
    assert!(many.0 < few.0 * 6, "{few:?}, {many:?}: system calls");
    assert!(many.1 < few.1 * 6, "{few:?}, {many:?}: bytes of directories");
    assert!(many.0 < 500 * 130, "{many:?}: system calls for one job");
}

/// Of 100 runs with the same name exactly one starts; the others fail with one error.
#[test]
fn hundred_runs_with_one_name() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let run = ["run", "-n", "same", "--mechanism", &mechanism, "--", "sh", "-c"];
        let words = [&run[..], &["echo x >>won; exec sleep 1000"]].concat();
        let start = || {
            let mut command = fixture.onejob(&words);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let mut all: Vec<_> = (0..100).map(|_| start()).collect();
        eventually("all but one have ended", || {
            let living = all.iter_mut().map(|one| one.try_wait().unwrap().is_none());
            living.filter(|lives| *lives).count() == 1
        });
        fixture.wait_for_job("same");
        assert_eq!(fs::read_to_string(fixture.scratch.file("won")).unwrap(), "x\n", "{mechanism}");
        fixture.expect_status(&["kill", "same"], 0);
        let mut refused = 0;
        for one in all {
            let output = one.wait_with_output().unwrap();
            if output.status.code() == Some(125) {
                let said = text(&output.stderr);
                assert!(said.contains("a live job has the name same"), "{said}");
                assert!(is_error(&said), "{said}");
                refused += 1;
            }
        }
        assert_eq!(refused, 99, "{mechanism}");
        fixture.assert_empty();
    }
}
