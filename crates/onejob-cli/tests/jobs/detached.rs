//! `run -d` and `logs`.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Stdio};

use crate::{
    common::{eventually, is_error, lives, mechanisms, outcome, text, wait},
    place::Place,
};

/// Starts a detached job; the path of its log.
#[track_caller]
fn detach(place: &Place, mechanism: &str, args: &[&str]) -> (String, String) {
    let said = place.data(&[&["run", "-d", "--mechanism", mechanism][..], args].concat());
    let [name, log] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said:?}") };
    (name.to_owned(), log.to_owned())
}

#[test]
fn a_detached_job_says_where_it_is_and_its_log_is_the_users_alone() {
    for mechanism in mechanisms() {
        let place = Place::new();
        let (name, log) =
            detach(&place, &mechanism, &["-n", "dev", "sh", "-c", "echo one; echo two >&2"]);
        assert_eq!(name, "dev");
        assert!(log.starts_with(place.scratch.file("state").to_str().unwrap()), "{log}");
        place.is_deserted();
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(place.data(&["logs", "dev"]), "one\ntwo\n", "{mechanism}: after its end");
        // The next of that name keeps the log of the one before.
        detach(&place, &mechanism, &["-n", "dev", "echo", "three"]);
        place.is_deserted();
        assert_eq!(place.data(&["logs", "dev"]), "three\n");
        assert_eq!(fs::read_to_string(format!("{log}.1")).unwrap(), "one\ntwo\n");
        // Without a name it is found by its id.
        let (id, log) = detach(&place, &mechanism, &["sh", "-c", "echo x; exec sleep 1000"]);
        eventually("it has written", || fs::read_to_string(&log).unwrap() == "x\n");
        assert_eq!(place.data(&["logs", &id]), "x\n");
        place.ends(&["kill", &id[..12]], 0);
        assert_eq!(place.data(&["logs", &id]), "x\n");
        place.is_deserted();
    }
}

#[test]
fn a_detached_job_outlives_its_terminal_and_its_log_is_followed_to_its_end() {
    for mechanism in mechanisms() {
        let place = Place::new();
        let mut pty = place.terminal();
        let script =
            "echo $$ >pid; echo begun; while ! test -e go; do sleep 0.02; done; echo done; exit 9";
        pty.send(&format!(
            "\"$ONEJOB\" run -d -n dev --mechanism {mechanism} -- sh -c '{script}'\n"
        ));
        pty.expect("dev.log");
        pty.expect("READY> ");
        let pid: u32 = crate::common::line(&place.scratch.file("pid")).parse().unwrap();
        pty.close();
        wait(&mut pty.leader);
        assert!(lives(pid), "{mechanism}: it died with its terminal");
        let mut follower = place.onejob(&["logs", "-f", "dev"]);
        let follower = follower.stdout(Stdio::piped()).spawn().unwrap();
        let mut waiter = place.onejob(&["wait", "dev"]).spawn().unwrap();
        // Whoever has seen enough ends, although the job goes on.
        let mut head = std::process::Command::new("sh");
        head.args(["-c", "\"$0\" logs -f dev | head -n 1", crate::common::ONEJOB]);
        assert_eq!(text(&outcome(place.put(&mut head)).stdout), "begun\n");
        fs::write(place.scratch.file("go"), "").unwrap();
        let followed = follower.wait_with_output().unwrap();
        assert_eq!(text(&followed.stdout), "begun\ndone\n", "{mechanism}");
        assert!(followed.status.success());
        let status = wait(&mut waiter).code();
        assert!(status == Some(9) || status == Some(125), "{mechanism}: {status:?}");
        place.is_deserted();
    }
}

#[test]
fn what_cannot_be_started_is_said_in_front_and_leaves_no_job() {
    for mechanism in mechanisms() {
        let place = Place::new();
        fs::write(place.scratch.file("data"), "no program").unwrap();
        for (program, code) in [("./missing", 127), ("./data", 126)] {
            let words = ["run", "-d", "-n", "dev", "--mechanism", &mechanism, program];
            let (stdout, stderr) = place.ends(&words, code);
            assert_eq!(stdout, "");
            assert!(is_error(&stderr), "{stderr}");
            place.is_deserted();
        }
        // Nowhere to write: nothing runs unseen.
        let mut command =
            place.onejob(&["run", "-d", "--mechanism", &mechanism, "touch", "started"]);
        let output = outcome(command.env_remove("HOME").env_remove("XDG_STATE_HOME"));
        assert_eq!(output.status.code(), Some(125));
        assert!(text(&output.stderr).contains("HOME"), "{}", text(&output.stderr));
        place.is_deserted();
        assert!(!place.scratch.file("started").exists());
    }
}

#[test]
fn keep_wait_all_and_the_time_limit_hold_in_the_background() {
    for mechanism in mechanisms() {
        let place = Place::new();
        let tree = "setsid sh -c \"echo \\$\\$ >left; while ! test -e go; do sleep 0.02; done\" & \
                    while ! test -s left; do sleep 0.01; done";
        detach(&place, &mechanism, &["-n", "dev", "--wait-all", "sh", "-c", tree]);
        let left = || crate::common::line(&place.scratch.file("left")).parse::<u32>().unwrap();
        let waiting = left();
        let mut waiter = place.onejob(&["wait", "dev"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(lives(waiting) && waiter.try_wait().unwrap().is_none(), "{mechanism}: --wait-all");
        fs::write(place.scratch.file("go"), "").unwrap();
        assert_eq!(wait(&mut waiter).code(), Some(0), "{mechanism}");
        place.is_deserted();
        fs::remove_file(place.scratch.file("go")).unwrap();
        fs::remove_file(place.scratch.file("left")).unwrap();

        detach(&place, &mechanism, &["-n", "dev", "--keep", "sh", "-c", tree]);
        let kept = left();
        eventually("the job is over", || place.files().is_empty());
        assert!(lives(kept), "{mechanism}: --keep");
        place.ends(&["wait", "dev"], 125);
        fs::write(place.scratch.file("go"), "").unwrap();
        place.is_deserted();

        eventually("a waiter comes before a time limit", || {
            detach(&place, &mechanism, &["-n", "dev", "-t", "0.5", "sleep", "1000"]);
            let status = place.says(&["wait", "dev"]).status.code();
            place.is_deserted();
            // On a busy machine the job may have ended before.
            assert!(matches!(status, Some(124 | 125)), "{mechanism}: -t: {status:?}");
            status == Some(124)
        });
    }
}
