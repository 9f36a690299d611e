//! Invalid names, names in use, and untrusted runtime directories.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use crate::{
    common::{
        eventually, is_error, kill, lives, mechanisms,
        recorder::{Recorders, recorder},
        text, wait,
    },
    fixture::Fixture,
};

#[track_caller]
fn is_one_line(said: &str) {
    // An error with the reasons of several mechanisms has each remedy in parentheses.
    let has_remedy = said.contains("\nhint: ") || said.contains('(');
    assert!(is_error(said) && has_remedy, "{said}");
}

/// An invalid name gives one error; nothing is started and no file is created.
#[test]
fn invalid_names() {
    let fixture = Fixture::new();
    let long = "x".repeat(65);
    let bad = ["../x", "/etc", "", &long, "a\nb", "-x", ".x", "a b", "a/b", "ä", "=x", "x\x1b[2J"];
    for name in bad {
        let option = format!("--name={name}");
        for verb in [&["run", &*option][..], &["run", "-d", &*option]] {
            let words = [verb, &["--", "touch", "started"]].concat();
            let (stdout, stderr) = fixture.expect_status(&words, 125);
            assert_eq!(stdout, "");
            is_one_line(&stderr);
            assert!(!stderr.contains('\x1b'), "{stderr:?}");
        }
        for verb in ["wait", "stats", "freeze", "thaw", "logs"] {
            let (stdout, stderr) = fixture.expect_status(&[verb, "--", name], 125);
            assert_eq!(stdout, "");
            is_one_line(&stderr);
        }
    }
    let made: Vec<_> = fs::read_dir(fixture.scratch.path()).unwrap().flatten().collect();
    assert!(made.is_empty(), "{made:?}");
}

/// A name in use is refused, and free again when its job has ended.
#[test]
fn name_in_use() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let mut owner = fixture.start(&mechanism, "dev", &["sleep", "1000"]);
        for detached in [&["run"][..], &["run", "-d"]] {
            let words = [detached, &["-n", "dev", "--", "touch", "started"]].concat();
            let (stdout, stderr) = fixture.expect_status(&words, 125);
            assert_eq!(stdout, "");
            is_one_line(&stderr);
            assert!(stderr.contains("a live job has the name dev"), "{stderr}");
        }
        assert!(!fixture.scratch.file("started").exists());
        fixture.expect_status(&["kill", "dev"], 0);
        wait(&mut owner);
        fixture.expect_status(&["run", "-n", "dev", "--mechanism", &mechanism, "true"], 0);
        let (stdout, stderr) = fixture.expect_status(&["stats", "dev"], 125);
        assert_eq!(stdout, "");
        is_one_line(&stderr);
        fixture.assert_empty();
    }
}

/// Without a private runtime directory `run` works, and a name is refused.
#[test]
fn untrusted_runtime_directory() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.runtime()).unwrap();
        fs::set_permissions(fixture.runtime(), fs::Permissions::from_mode(0o755)).unwrap();
        let run = ["run", "--mechanism", &mechanism];
        fixture.stdout_of(&[&run[..], &["true"]].concat());
        for args in [&["run", "-n", "dev", "touch", "started"][..], &["ls"], &["wait", "dev"]] {
            let (_, stderr) = fixture.expect_status(args, 125);
            is_one_line(&stderr);
            assert!(stderr.contains("ONEJOB_RUNTIME_DIR"), "{stderr}");
        }
        // No process could find it again.
        let (_, stderr) = fixture.expect_status(&["run", "-d", "touch", "started"], 125);
        assert!(is_error(&stderr), "{stderr}");
        assert!(!fixture.scratch.file("started").exists());
        assert!(fixture.files().is_empty());
    }
}

/// A name of digits is refused with the reason, and nothing is started.
#[test]
fn names_of_digits() {
    let fixture = Fixture::new();
    for verb in
        [&["run", "-n", "1234"][..], &["run", "-d", "--name=1234"], &["run", "-n1234", "--keep"]]
    {
        let (stdout, stderr) =
            fixture.expect_status(&[verb, &["--", "touch", "started"]].concat(), 125);
        let wanted = "onejob: invalid value '1234' for --name: other subcommands would read a number as a pid\n\
                      hint: put a letter in front: job-1234\n";
        assert_eq!((stdout.as_str(), stderr.as_str()), ("", wanted), "{verb:?}");
    }
    assert!(!fixture.scratch.file("started").exists());
}

/// `pid:N` means a process, `=NAME` a job, in each subcommand that takes one.
#[test]
fn explicit_pids_and_names() {
    for mechanism in mechanisms() {
        let fixture = Fixture::new();
        let mut owner = fixture.start(&mechanism, "dev", &["sleep", "1000"]);
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = format!("pid:{}", other.id());
        let tree = fixture.json(&["tree", "--json", &pid]);
        assert_eq!(tree["trees"][0]["pid"], other.id());
        assert_eq!(fixture.json(&["tree", "--json", "=dev"])["trees"][0]["name"], "dev");
        for verb in
            [&["stats", "=dev"][..], &["freeze", "=dev"], &["thaw", "=dev"], &["limit", "=dev"]]
        {
            let output = fixture.output_of(verb);
            assert!(output.status.success(), "{verb:?}: {}", text(&output.stderr));
        }
        let (stdout, _) = fixture.expect_status(&["exec", "=dev", "echo", "inside"], 0);
        assert_eq!(stdout, "inside\n");
        for missing in ["=de", "=", "=no"] {
            for verb in ["kill", "wait", "stats", "freeze", "tree"] {
                let (_, stderr) = fixture.expect_status(&[verb, missing], 125);
                is_one_line(&stderr);
            }
        }
        fixture.expect_status(&["kill", "-k", "0", &pid], 0);
        assert!(!wait(&mut other).success());
        fixture.expect_status(&["kill", "=dev"], 0);
        wait(&mut owner);
        fixture.assert_empty();
    }
}

/// A number that is a pid and the name of a job is an error, and neither is signalled.
#[test]
fn number_that_is_a_pid_and_a_name() {
    let fixture = Fixture::new();
    let recorders = Recorders::new(&fixture.scratch);
    let mut other = recorders.below(&mut Command::new(recorder())).spawn().unwrap();
    let pid = other.id().to_string();
    let mut owner = Command::new(recorder());
    // A program with the library chooses any name.
    owner.env("ONEJOB_ACTS", format!("own {pid}"));
    let mut owner = recorders.below(fixture.apply_to(&mut owner)).spawn().unwrap();
    let pids = recorders.ready(3);
    for verb in [&["kill", "--now"][..], &["kill"], &["tree"]] {
        let (stdout, stderr) = fixture.expect_status(&[verb, &[&pid]].concat(), 125);
        let wanted = format!(
            "onejob: {pid} is a pid and the name of a job\n\
             hint: write pid:{pid} for the process, ={pid} for the job\n"
        );
        assert_eq!((stdout.as_str(), stderr), ("", wanted));
    }
    for pid in &pids {
        assert_eq!(recorders.got(*pid), [] as [i32; 0]);
        assert!(lives(*pid));
    }
    // Where only a job can be meant, the number is its name.
    assert_eq!(fixture.json(&["stats", "--json", &pid])["name"], pid.as_str());
    fixture.expect_status(&["kill", "--now", &format!("={pid}")], 0);
    assert!(lives(other.id()));
    recorders.end();
    wait(&mut owner);
    wait(&mut other);
    fixture.assert_empty();
}

/// A word is never a short beginning of an id by chance, and a name that begins the id of another job is an
/// error.
#[test]
fn beginnings_of_ids() {
    let fixture = Fixture::new();
    let mut first = fixture.start(&mechanisms()[0], "first", &["sleep", "1000"]);
    let id = fixture.json(&["ls", "--json"])["jobs"][0]["id"].as_str().unwrap().to_owned();
    let beginning = &id[..=16];
    for short in [&id[..1], &id[..5]].iter().filter(|word| word.parse::<u64>().is_err()) {
        let (_, stderr) = fixture.expect_status(&["kill", "--now", short], 125);
        assert!(stderr.starts_with(&format!("onejob: there is no job {short}\n")), "{stderr}");
    }
    for word in [beginning, &id] {
        assert_eq!(fixture.json(&["stats", "--json", word])["name"], "first");
    }
    let mut second = fixture.start(&mechanisms()[0], beginning, &["sleep", "1000"]);
    let (_, stderr) = fixture.expect_status(&["kill", "--now", beginning], 125);
    let wanted = format!(
        "onejob: {beginning} is the name of a job and the beginning of another job's id\n\
         hint: write ={beginning} for the name, {id} for the other job\n"
    );
    assert_eq!(stderr, wanted);
    assert!(lives(first.id()) && lives(second.id()));
    fixture.expect_status(&["kill", "--now", &format!("={beginning}")], 0);
    wait(&mut second);
    assert!(lives(first.id()));
    kill(first.id(), libc::SIGTERM);
    wait(&mut first);
    eventually("both are gone", || fixture.files().is_empty());
    fixture.assert_empty();
}
