//! Death at every system call of making a named job and of taking it back.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use testkit::{Bins, Environment, eventually, skip};

use crate::fixture::{Fixture, jobs};

/// At every system call a killed owner leaves a name that is free.
#[test]
fn owner_killed_at_each_syscall_frees_the_name() {
    let Some(strace) = find("strace") else { return skip("strace is not installed") };
    // One of each mechanism: who the user is makes no difference to the order of things.
    let mut environments = Environment::here();
    environments.retain(|environment| {
        !matches!(environment, Environment::CgroupUser | Environment::SubreaperRoot)
    });
    for environment in environments {
        let mut fixture = Fixture::new(environment);
        // Whoever comes after every death, and would stumble.
        let mut next = fixture.process();
        let calls = census(&mut fixture, &strace);
        let mut deaths = 0;
        for (name, (first, last)) in calls {
            let mut number = first;
            loop {
                let inject = format!("inject={name}:signal=KILL:when={number}");
                let status = live(&mut fixture, &strace, &["-e", &inject, "-e", &trace(&name)]);
                let completed = status.success();
                assert!(completed || is_killed(status), "{inject}: {status}");
                deaths += usize::from(!completed);
                assert_eq!(jobs(&mut next), [], "{environment}, {inject}");
                next.ok(&fixture.new_job("dev"));
                next.ok("drop");
                eventually("the guards take the rest", || fixture.files().is_empty().then_some(()));
                if completed && number >= last {
                    break;
                }
                number += 1;
            }
        }
        eprintln!("{environment}: {deaths} deaths");
        assert!(deaths > 50, "{environment}: only {deaths} deaths");
        drop(next);
        fixture.is_deserted();
    }
}

fn trace(name: &str) -> String {
    format!("trace={name}")
}

fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9) || status.code() == Some(128 + 9)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The calls of each name from the job's begin: the number of the first one, and of the last.
fn census(fixture: &mut Fixture, strace: &Path) -> BTreeMap<String, (usize, usize)> {
    let log = fixture.report.beside(".strace");
    let status = live(fixture, strace, &["-o", log.to_str().expect("UTF-8")]);
    assert!(status.success(), "{status}");
    let log = fs::read_to_string(log).expect("a log");
    let mut calls: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut begun = false;
    for line in log.lines() {
        let Some((name, _)) = line.split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        begun |= line.contains(".script");
        let (first, last) = calls.entry(name.to_owned()).or_default();
        *last += 1;
        if begun && *first == 0 {
            *first = *last;
        }
    }
    calls.retain(|_, (first, _)| *first > 0);
    calls
}

/// The life of a job with a name, a note and a second note, under strace.
fn live(fixture: &mut Fixture, strace: &Path, words: &[&str]) -> ExitStatus {
    let script = fixture.report.beside(".script");
    let go = fixture.report.beside(".go");
    fs::write(&go, "").expect("a writable scratch directory");
    let life =
        format!("{} note=first\nset-note second\nfreeze\nthaw\ndrop\n", fixture.new_job("dev"));
    fs::write(&script, life).expect("a writable scratch directory");
    let runtime = fixture.runtime.clone();
    let mut child = fixture.sandbox.start(strace, |strace| {
        strace.arg("-qq").args(words).arg("--").arg(Bins::get().owner());
        strace.arg("-f").arg(&script).arg("--linger").arg(&go);
        strace.env("ONEJOB_RUNTIME_DIR", runtime);
        strace.stdin(Stdio::null()).stdout(Stdio::null());
        if !words.contains(&"-o") {
            strace.stderr(Stdio::null());
        }
    });
    eventually("the end of strace", || child.try_wait().expect("our child"))
}
