//! Many jobs, and many who want one name.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use onejob::{Job, Mechanism};

use crate::{
    common::{eventually, is_error, mechanisms, outcome, skip, text, wait},
    place::Place,
};

const HOLD: &str = "ONEJOB_TEST_HOLD";

/// Not a test by itself: holds as many jobs as the environment says, until its input ends.
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

fn hold(place: &Place, count: usize) -> Child {
    let mut holder = Command::new(std::env::current_exe().unwrap());
    holder.args(["crowds::holder", "--exact", "--nocapture"]).env(HOLD, count.to_string());
    place.put(&mut holder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = holder.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("held")));
    // Or its last words would end it.
    std::thread::spawn(move || lines.count());
    child
}

/// The system calls of an `onejob ls`, and how much it read of directories.
fn price(place: &Place) -> (usize, usize) {
    let log = place.scratch.file("strace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&log).arg(crate::common::ONEJOB).arg("ls");
    assert!(outcome(place.put(&mut strace)).status.success());
    let log = fs::read_to_string(log).unwrap();
    let bytes = |line: &str| line.rsplit_once("= ")?.1.parse::<usize>().ok();
    let listed = log.lines().filter(|line| line.contains("getdents64(")).filter_map(bytes);
    (log.lines().count(), listed.sum())
}

#[test]
fn five_hundred_jobs_are_listed_at_a_price_that_grows_with_them_and_with_nothing_else() {
    if !mechanisms().iter().any(|mechanism| mechanism == "cgroup") {
        skip!("the cgroup mechanism is not to be had here");
    }
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        skip!("strace is not installed");
    }
    let prices: Vec<_> = [100, 500]
        .map(|count| {
            let place = Place::new();
            let mut holder = hold(&place, count);
            let listed = place.json(&["ls", "--json"]);
            assert_eq!(listed["jobs"].as_array().unwrap().len(), count);
            let alone = price(&place);
            let mut others: Vec<_> =
                (0..200).map(|_| Command::new("sleep").arg("1000").spawn().unwrap()).collect();
            let beside = price(&place);
            others.iter_mut().for_each(|other| {
                other.kill().unwrap();
                other.wait().unwrap();
            });
            eprintln!("{count} jobs: {alone:?}, beside 200 others {beside:?}");
            assert!(beside.0 < alone.0 + alone.0 / 20, "{count}: {alone:?}, {beside:?}");
            assert!(beside.1 < alone.1 + alone.1 / 10, "{count}: {alone:?}, {beside:?}");
            drop(holder.stdin.take());
            wait(&mut holder);
            place.is_deserted();
            alone
        })
        .into();
    let [few, many] = prices[..] else { unreachable!("two counts") };
    assert!(many.0 < few.0 * 6, "{few:?}, {many:?}: system calls");
    assert!(many.1 < few.1 * 6, "{few:?}, {many:?}: bytes of directories");
    assert!(many.0 < 500 * 130, "{many:?}: system calls for one job");
}

#[test]
fn of_a_hundred_that_want_a_name_exactly_one_gets_it() {
    for mechanism in mechanisms() {
        let place = Place::new();
        let run = ["run", "-n", "same", "--mechanism", &mechanism, "--", "sh", "-c"];
        let words = [&run[..], &["echo x >>won; exec sleep 1000"]].concat();
        let start = || {
            let mut command = place.onejob(&words);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let mut all: Vec<_> = (0..100).map(|_| start()).collect();
        eventually("all but one have ended", || {
            let living = all.iter_mut().map(|one| one.try_wait().unwrap().is_none());
            living.filter(|lives| *lives).count() == 1
        });
        place.awaits("same");
        assert_eq!(fs::read_to_string(place.scratch.file("won")).unwrap(), "x\n", "{mechanism}");
        place.ends(&["kill", "same"], 0);
        let mut losers = 0;
        for one in all {
            let output = one.wait_with_output().unwrap();
            if output.status.code() == Some(125) {
                let said = text(&output.stderr);
                assert!(said.contains("same is running already"), "{said}");
                assert!(is_error(&said), "{said}");
                losers += 1;
            }
        }
        assert_eq!(losers, 99, "{mechanism}");
        place.is_deserted();
    }
}
