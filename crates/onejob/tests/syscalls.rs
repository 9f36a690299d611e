//! The price of each operation in system calls of the owner, which stays the same from run to run
//! whatever else the machine does. Whoever makes one dearer must say so here.
#![cfg(target_os = "linux")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use testkit::{Bins, Setting, scratch_dir, skip};

/// How many system calls the owner's thread makes for each request.
fn prices(mechanism: &str, requests: &[String]) -> Vec<usize> {
    let log = scratch_dir().join("strace");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o"]).arg(&log).arg(Bins::get().owner());
    let mut strace =
        strace.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("strace starts");
    let mut answers = BufReader::new(strace.stdout.take().expect("piped")).lines();
    let mut answer = || answers.next().expect("an answer").expect("text");
    assert!(answer().starts_with("ok"), "a greeting");
    let mut pipe = strace.stdin.take().expect("piped");
    writeln!(pipe, "new {mechanism}").expect("it listens");
    assert_eq!(answer(), "ok", "new");
    for request in requests {
        writeln!(pipe, "{request}").expect("it listens");
        let said = answer();
        assert!(said.starts_with("ok"), "{request}: {said}");
    }
    drop(pipe);
    strace.wait().expect("our child");
    // Between two answers lies one request: it is read, worked on, and answered.
    let log = fs::read_to_string(log).expect("a log");
    let mut counts = vec![0];
    for line in log.lines().filter(|line| !line.starts_with("---") && !line.contains("resumed>")) {
        *counts.last_mut().expect("one at least") += 1;
        if line.starts_with("write(1, \"ok") {
            counts.push(0);
        }
    }
    // The greeting, and `new`.
    counts.drain(..2);
    counts.truncate(requests.len());
    counts
}

#[test]
fn no_operation_costs_more_system_calls_than_it_did() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip("strace is not installed");
    }
    let actor = Bins::get().actor().display().to_string();
    let mut requests = vec![format!("spawn {actor} sleep /dev/null"); 101];
    requests.extend(["list".to_owned(), "kill".to_owned()]);
    let mechanisms = Setting::here()
        .into_iter()
        .filter(|setting| *setting == Setting::CgroupRoot || setting.mechanism() == "subreaper");
    let mut mechanisms: Vec<_> = mechanisms.map(Setting::mechanism).collect();
    mechanisms.dedup();
    for mechanism in mechanisms {
        let counts = prices(mechanism, &requests);
        // The usual one: now and then the heap grows.
        let mut spawns = counts[..101].to_vec();
        spawns.sort_unstable();
        let spawn = spawns[50];
        let (list, kill) = (counts[101], counts[102]);
        eprintln!("{mechanism}: spawn {spawn}, list of 101 {list}, kill of 101 {kill}");
        // A kill looks again until all are dead, which a busy machine makes longer.
        let most = if mechanism == "cgroup" { [16, 1_100, 1_000] } else { [320, 2_400, 12_000] };
        for (what, count, most) in
            [("spawn", spawn, most[0]), ("list", list, most[1]), ("kill", kill, most[2])]
        {
            assert!(count <= most, "{mechanism}: {what} costs {count} system calls, not {most}");
        }
    }
}
