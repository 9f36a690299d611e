//! Names that are none, names in use, and folders that are not to be trusted.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::{
    common::{is_error, mechanisms, wait},
    place::Place,
};

#[track_caller]
fn is_one_line(said: &str) {
    // An error with the reasons of several mechanisms has each remedy in parentheses.
    let has_remedy = said.contains("\nhint: ") || said.contains('(');
    assert!(is_error(said) && has_remedy, "{said}");
}

#[test]
fn what_is_no_name_is_refused_in_one_line_and_nothing_is_started_or_made() {
    let place = Place::new();
    let long = "x".repeat(65);
    let bad = ["../x", "/etc", "", &long, "a\nb", "-x", ".x", "a b", "a/b", "ä", "=x", "x\x1b[2J"];
    for name in bad {
        let option = format!("--name={name}");
        for verb in [&["run", &*option][..], &["run", "-d", &*option]] {
            let words = [verb, &["--", "touch", "started"]].concat();
            let (stdout, stderr) = place.ends(&words, 125);
            assert_eq!(stdout, "");
            is_one_line(&stderr);
            assert!(!stderr.contains('\x1b'), "{stderr:?}");
        }
        for verb in ["wait", "stats", "freeze", "thaw", "logs"] {
            let (stdout, stderr) = place.ends(&[verb, "--", name], 125);
            assert_eq!(stdout, "");
            is_one_line(&stderr);
        }
    }
    let made: Vec<_> = fs::read_dir(place.scratch.path()).unwrap().flatten().collect();
    assert!(made.is_empty(), "{made:?}");
}

#[test]
fn a_name_in_use_is_refused_and_free_again_when_its_job_has_ended() {
    for mechanism in mechanisms() {
        let place = Place::new();
        let mut owner = place.running(&mechanism, "dev", &["sleep", "1000"]);
        for detached in [&["run"][..], &["run", "-d"]] {
            let words = [detached, &["-n", "dev", "--", "touch", "started"]].concat();
            let (stdout, stderr) = place.ends(&words, 125);
            assert_eq!(stdout, "");
            is_one_line(&stderr);
            assert!(stderr.contains("dev is running already"), "{stderr}");
        }
        assert!(!place.scratch.file("started").exists());
        place.ends(&["kill", "dev"], 0);
        wait(&mut owner);
        place.ends(&["run", "-n", "dev", "--mechanism", &mechanism, "true"], 0);
        let (stdout, stderr) = place.ends(&["stats", "dev"], 125);
        assert_eq!(stdout, "");
        is_one_line(&stderr);
        place.is_deserted();
    }
}

#[test]
fn without_a_runtime_directory_that_can_be_trusted_only_a_name_is_refused() {
    for mechanism in mechanisms() {
        let place = Place::new();
        fs::create_dir(place.runtime()).unwrap();
        fs::set_permissions(place.runtime(), fs::Permissions::from_mode(0o755)).unwrap();
        let run = ["run", "--mechanism", &mechanism];
        place.data(&[&run[..], &["true"]].concat());
        for args in [&["run", "-n", "dev", "touch", "started"][..], &["ls"], &["wait", "dev"]] {
            let (_, stderr) = place.ends(args, 125);
            is_one_line(&stderr);
            assert!(stderr.contains("ONEJOB_RUNTIME_DIR"), "{stderr}");
        }
        // Nobody could find it again.
        let (_, stderr) = place.ends(&["run", "-d", "touch", "started"], 125);
        assert!(is_error(&stderr), "{stderr}");
        assert!(!place.scratch.file("started").exists());
        assert!(place.files().is_empty());
    }
}
