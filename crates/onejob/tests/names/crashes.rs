//! The owner is killed at each system call while it makes and drops a named job.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{ExitStatus, Stdio},
};

use testkit::{Bins, Environment, Fixture, eventually, skip, strace};

use crate::requests::jobs;

/// The name is free after the owner was killed at any of its system calls.
#[test]
fn owner_killed_at_each_syscall_frees_the_name() {
    let Some(strace) = strace::program() else { return skip("strace is not installed") };
    // One environment of each mechanism: the order of the calls does not depend on the user.
    let mut environments = Environment::here();
    environments.retain(|environment| {
        !matches!(environment, Environment::CgroupUser | Environment::SubreaperRoot)
    });
    for environment in environments {
        let mut fixture = Fixture::new(environment);
        // Makes a job of the same name after each death.
        let mut next = fixture.process();
        let calls = census(&mut fixture, &strace);
        let mut deaths = 0;
        for (name, calls) in calls {
            let mut number = calls.first;
            loop {
                let inject = format!("inject={name}:signal=KILL:when={number}");
                let trace = format!("trace={name}");
                let status = live(&mut fixture, &strace, &["-e", &inject, "-e", &trace]);
                let completed = status.success();
                assert!(completed || strace::is_killed(status), "{inject}: {status}");
                deaths += usize::from(!completed);
                assert_eq!(jobs(&mut next), [], "{environment}, {inject}");
                next.ok(&fixture.new_job("dev"));
                next.ok("drop");
                eventually("the guards to remove the records", || {
                    fixture.sandbox.runtime_files().is_empty().then_some(())
                });
                if completed && number >= calls.last {
                    break;
                }
                number += 1;
            }
        }
        eprintln!("{environment}: {deaths} deaths");
        assert!(deaths > 50, "{environment}: only {deaths} deaths");
        drop(next);
        fixture.assert_clean();
    }
}

/// The calls of each name, from the first request on.
fn census(fixture: &mut Fixture, strace: &Path) -> BTreeMap<String, strace::Calls> {
    let log = fixture.report.beside(".strace");
    let status = live(fixture, strace, &["-o", log.to_str().expect("UTF-8")]);
    assert!(status.success(), "{status}");
    strace::count_calls(&fs::read_to_string(log).expect("a log"), ".script")
}

/// Makes a named job, changes its note, freezes, thaws and drops it, under strace.
fn live(fixture: &mut Fixture, strace: &Path, words: &[&str]) -> ExitStatus {
    let script = fixture.report.beside(".script");
    let go = fixture.report.beside(".go");
    fs::write(&go, "").expect("a writable scratch directory");
    let life =
        format!("{} note=first\nset-note second\nfreeze\nthaw\ndrop\n", fixture.new_job("dev"));
    fs::write(&script, life).expect("a writable scratch directory");
    let mut child = fixture.sandbox.start(strace, |strace| {
        strace.arg("-qq").args(words).arg("--").arg(Bins::get().owner());
        strace.arg("-f").arg(&script).arg("--linger").arg(&go);
        strace.stdin(Stdio::null()).stdout(Stdio::null());
        if !words.contains(&"-o") {
            strace.stderr(Stdio::null());
        }
    });
    eventually("the end of strace", || child.try_wait().expect("a child of this process"))
}
