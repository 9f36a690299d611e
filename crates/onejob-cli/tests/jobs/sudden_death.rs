//! After a SIGKILL of any process at any moment, no member, name or waiter is left.

use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    common::{eventually, kill, mechanisms, pids, read, wait},
    fixture::Fixture,
};

const ROUNDS: u64 = 200;

/// The guards of an owner, found by their pidfds of it.
fn guards(owner: u32) -> Vec<u32> {
    let watched = format!("Pid:\t{owner}");
    let watches = |pid: &u32| {
        let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        infos.map(|info| read(info.path())).any(|text| text.lines().any(|line| line == watched))
    };
    let named = |pid: &u32| read(format!("/proc/{pid}/comm")) == "onejob-guard\n";
    pids().into_iter().filter(named).filter(watches).collect()
}

/// Whichever process is killed at a random moment, no member, record or waiter is left.
#[test]
fn two_hundred_random_kills() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let mechanisms = mechanisms();
    const SIDE_BY_SIDE: u64 = 4;
    thread::scope(|scope| {
        for number in 0..SIDE_BY_SIDE {
            let mechanisms = &mechanisms;
            scope.spawn(move || {
                let fixture = Fixture::new();
                let mut random = (seed + number) | 1;
                for round in 0..ROUNDS / SIDE_BY_SIDE {
                    let mechanism = &mechanisms[(round % mechanisms.len() as u64) as usize];
                    // xorshift64
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    kill_one(&fixture, mechanism, random >> 16);
                }
            });
        }
    });
}

/// Makes a job with a waiter and a process started by `exec`, and kills one of the processes.
fn kill_one(fixture: &Fixture, mechanism: &str, random: u64) {
    let (target, moment) = (random % 5, Duration::from_micros(random / 5 % 40_000));
    let began = Instant::now();
    let mut owner =
        fixture.run(mechanism, "dev", &["sh", "-c", "setsid sleep 1000 & sleep 1000; :"]);
    // An early kill hits the owner before it has created the job.
    if target != 0 || (random / 7).is_multiple_of(2) {
        eventually("the job", || {
            owner.try_wait().unwrap().is_some() || fixture.files().contains(&"=dev".to_owned())
        });
    }
    let start = |args: &[&str]| {
        let mut command = fixture.onejob(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut waiter = start(&["wait", "dev"]);
    let mut joined = start(&["exec", "dev", "--", "sh", "-c", "setsid sleep 1000 & sleep 1000; :"]);
    let guards = if matches!(target, 1 | 2) { guards(owner.id()) } else { Vec::new() };
    thread::sleep(moment);
    let pid = match target {
        0 => Some(owner.id()),
        1 => guards.first().copied(),
        2 => guards.last().copied(),
        3 => Some(waiter.id()),
        _ => Some(joined.id()),
    };
    pid.inspect(|pid| kill(*pid, libc::SIGKILL));
    if target == 0 {
        wait(&mut owner);
    } else {
        // The job may have ended with its guard.
        let code = fixture.output_of(&["kill", "--now", "dev"]).status.code();
        assert!(matches!(code, Some(0 | 125)), "{mechanism} {target}: {code:?}");
    }
    let all: [(&str, &mut Child); 3] =
        [("owner", &mut owner), ("waiter", &mut waiter), ("joined", &mut joined)];
    for (who, child) in all {
        let what = format!("{mechanism}, target {target} after {moment:?}: the end of the {who}");
        eventually(&what, || child.try_wait().unwrap().is_some());
    }
    fixture.assert_empty();
    if began.elapsed() > Duration::from_secs(20) {
        eprintln!("{mechanism}, target {target} after {moment:?} took {:?}", began.elapsed());
    }
}
