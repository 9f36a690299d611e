//! A runtime directory that cannot be trusted, and files in it that onejob has not made.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use testkit::{Environment, Fixture, Owner, eventually, every_environment, scratch_dir};

use crate::requests::{jobs, refused};

const ID: &str = "0123456789abcdef-1";

/// Changes the owner of a file to the user of the environment.
fn give(path: &Path, environment: Environment) {
    if let Some(uid) = environment.uid() {
        rustix::fs::chownat(
            CWD,
            path,
            Some(rustix::process::Uid::from_raw(uid)),
            Some(rustix::process::Gid::from_raw(uid)),
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .expect("a file of this test");
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory that other users can access is refused, and is not changed.
#[test]
fn shared_directory_is_refused_and_unchanged() {
    every_environment(|environment| {
        let elsewhere = scratch_dir();
        let bait = elsewhere.join("bait");
        fs::write(&bait, "untouched").expect("writable");
        let open_to_all = |path: &Path| {
            fs::create_dir(path).expect("writable");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
                .expect("a file of this test");
            give(path, environment);
        };
        let foreign = |path: &Path| {
            fs::create_dir(path).expect("writable");
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
                .expect("a file of this test");
            chown(path, Some(12_345), Some(12_345)).expect("root");
        };
        let a_link = |path: &Path| symlink(&elsewhere, path).expect("writable");
        let a_file = |path: &Path| fs::write(path, "").expect("writable");
        type Plant<'a> = (&'a str, &'a dyn Fn(&Path), bool);
        let plants: [Plant<'_>; 4] = [
            ("open to other users", &open_to_all, true),
            ("another user", &foreign, is_root()),
            ("is not a directory", &a_link, true),
            ("is not a directory", &a_file, true),
        ];
        for (why, plant, _) in plants.iter().filter(|(.., possible)| *possible) {
            let mut fixture = Fixture::new(environment);
            plant(fixture.sandbox.runtime_dir());
            let mut process = fixture.process();
            for request in [&*fixture.new_job("dev"), "jobs", "open dev", &format!("open {ID}")] {
                let said = process.request(request).expect_err("a refusal");
                assert!(said.contains(why), "{environment}: {request}: {said}");
                assert!(
                    said.contains(fixture.sandbox.runtime_dir().to_str().expect("UTF-8")),
                    "{said}"
                );
            }
            // A job without a name does not need the directory.
            let listed = format!("new {} listed note=x", environment.mechanism());
            process.ok(&listed);
            assert_eq!(process.ok("id"), "-");
            process.ok(&fixture.spawn("sleep"));
            process.ok("drop");
            drop(process);
            fixture.sandbox.wait_until_empty(|_| false);
            fixture.assert_bystanders_alive();
            assert_eq!(fs::read_dir(&elsewhere).expect("readable").count(), 1);
            assert_eq!(fs::read_to_string(&bait).expect("there"), "untouched");
        }
    });
}

/// A directory that another user has locked delays no job.
#[test]
fn directory_locked_by_another_user_blocks_none() {
    if !is_root() {
        return eprintln!("SKIPPED: only root can start processes of two users");
    }
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        fs::create_dir(fixture.sandbox.runtime_dir()).expect("writable");
        chown(fixture.sandbox.runtime_dir(), Some(12_345), Some(12_345)).expect("root");
        let held = fs::File::open(fixture.sandbox.runtime_dir()).expect("readable");
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("free");
        let mut process = fixture.process();
        process.ok(&format!("new {} listed", environment.mechanism()));
        process.ok(&fixture.spawn("sleep"));
        process.ok("drop");
        process.end();
        eventually("the end of the guards", || {
            fixture.sandbox.named("onejob-guard").is_empty().then_some(())
        });
        drop(held);
    });
}

#[test]
fn a_path_that_is_relative_makes_no_directory() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let folder = scratch_dir();
        let mut process = Owner::start_with(&mut fixture.sandbox, environment, |command| {
            command.env("ONEJOB_RUNTIME_DIR", "runtime").current_dir(&folder);
        });
        for request in [&*fixture.new_job("dev"), "jobs", "open dev"] {
            let said = refused(&mut process, request, "unsupported");
            assert!(said.contains("absolute"), "{said}");
        }
        process.ok(&format!("new {} listed", environment.mechanism()));
        process.ok("drop");
        assert_eq!(fs::read_dir(&folder).expect("readable").count(), 0, "{environment}");
    });
}

#[test]
fn planted_names_lead_nowhere_and_touch_nothing() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        owner.ok(&fixture.new_job("dev"));
        let bait = fixture.report.beside(".bait");
        fs::write(&bait, "untouched").expect("writable");
        let runtime = fixture.sandbox.runtime_dir().to_owned();
        let planted = |name: &str| runtime.join(format!("={name}"));
        let link = |name: &str, target: &Path| {
            symlink(target, planted(name)).expect("writable");
            give(&planted(name), environment);
        };
        link("passwd", Path::new("/etc/passwd"));
        link("bait", &bait);
        link("up", Path::new("../../x"));
        link("self", Path::new("=self"));
        fs::write(planted("file"), "x").expect("writable");
        fs::create_dir(planted("folder")).expect("writable");
        for name in ["file", "folder"] {
            give(&planted(name), environment);
        }
        // A link to a record that does not exist is a name that is free.
        link("dead", Path::new(ID));
        let mut view = fixture.process();
        for name in ["passwd", "bait", "up", "self", "file", "folder"] {
            for request in [format!("open {name}"), fixture.new_job(name)] {
                let said = refused(&mut view, &request, "unsupported");
                assert!(said.contains("not made by onejob"), "{environment}: {request}: {said}");
            }
        }
        refused(&mut view, "open dead", "not-found");
        view.ok(&fixture.new_job("dead"));
        assert_eq!(jobs(&mut owner).len(), 2, "{environment}");
        view.ok("drop");
        owner.ok("drop");
        assert_eq!(fs::read_to_string(&bait).expect("there"), "untouched");
        let mut left = fixture.sandbox.runtime_files();
        left.sort_unstable();
        assert_eq!(left, ["=bait", "=file", "=folder", "=passwd", "=self", "=up"], "{environment}");
    });
}

/// Planted records are ignored and hide no job.
#[test]
fn planted_records_are_ignored() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = fixture.process();
        owner.ok(&fixture.new_job("dev"));
        let real = owner.ok("id");
        let bait = fixture.report.beside(".bait");
        fs::write(&bait, "untouched").expect("writable");
        let id = |number: u32| format!("{number:016x}-1");
        let runtime = fixture.sandbox.runtime_dir().to_owned();
        let path = |number: u32| runtime.join(id(number));
        symlink(&bait, path(1)).expect("writable");
        mknodat(CWD, path(2), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("writable");
        fs::write(path(3), "garbage\n\0\u{7f}").expect("writable");
        fs::write(path(4), "").expect("writable");
        fs::create_dir(path(5)).expect("writable");
        fs::write(path(6), vec![b'x'; 3 << 20]).expect("writable");
        (1..=6).for_each(|number| give(&path(number), environment));
        let mut last = 6;
        if is_root() {
            last = 7;
            fs::copy(fixture.sandbox.runtime_dir().join(&real), path(7)).expect("readable");
            fs::set_permissions(path(7), fs::Permissions::from_mode(0o644))
                .expect("a file of this test");
            chown(path(7), Some(12_345), Some(12_345)).expect("root");
        }
        let mut view = fixture.process();
        assert_eq!(jobs(&mut view).len(), 1, "{environment}");
        for number in 1..=last {
            let said = refused(&mut view, &format!("open {}", id(number)), "unsupported");
            assert!(said.contains("not made by onejob"), "{environment}: {number}: {said}");
        }
        view.ok(&format!("open {real}"));
        view.ok("open dev");
        // A record of a dead owner that names a directory outside of the cgroup file system.
        let text = fs::read_to_string(fixture.sandbox.runtime_dir().join(&real)).expect("readable");
        let folder = scratch_dir();
        let cgroup = folder.join(format!("onejob-{}", id(8)));
        fs::create_dir(&cgroup).expect("writable");
        let kept: Vec<_> = text.lines().filter(|line| !line.starts_with("below ")).collect();
        let lie = format!("{}\nbelow {}\n", kept.join("\n"), folder.display());
        fs::write(path(8), lie).expect("writable");
        give(&path(8), environment);
        assert_eq!(jobs(&mut view).len(), 1, "{environment}");
        assert!(
            cgroup.exists(),
            "{environment}: a directory outside of the cgroup file system was removed"
        );
        owner.ok("drop");
        assert_eq!(fs::read_to_string(&bait).expect("there"), "untouched");
        drop((owner, view));
        fixture.sandbox.wait_until_empty(|_| false);
        fixture.assert_bystanders_alive();
    });
}

/// Another user can neither list nor open a job.
#[test]
fn another_user_reaches_no_job() {
    if !is_root() {
        return eprintln!("SKIPPED: only root can start processes of two users");
    }
    let mut fixture = Fixture::new(Environment::SubreaperUser);
    let mut owner = fixture.process();
    owner.ok(&fixture.new_job("dev"));
    owner.ok(&fixture.spawn("sleep"));
    let sleeper = fixture.report.helper(&fixture.sandbox, "sleeper");
    let id = owner.ok("id");
    let socket = fixture.sandbox.runtime_dir().join(format!("{id}.socket"));
    assert!(socket.exists());
    let runtime = fixture.sandbox.runtime_dir().to_owned();
    // Root is another user here: the directory does not belong to root.
    let mut second = Fixture::new(Environment::SubreaperRoot);
    let mut root = Owner::start_with(&mut second.sandbox, second.environment, |command| {
        command.env("ONEJOB_RUNTIME_DIR", &runtime);
    });
    for request in ["jobs".to_owned(), "open dev".to_owned(), format!("open {id}")] {
        let said = root.request(&request).expect_err("a refusal");
        assert!(said.contains("another user"), "{request}: {said}");
    }
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!((mode(&runtime), mode(&runtime.join(&id))), (0o700, 0o600));
    assert!(fixture.sandbox.live_pids().contains(&sleeper.pid));
    owner.ok("drop");
    drop((owner, root));
    fixture.assert_clean();
}
