//! Invalid names, names in use, and untrusted runtime directories.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::{
    common::{is_error, mechanisms, wait},
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
            assert!(stderr.contains("dev is running already"), "{stderr}");
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
