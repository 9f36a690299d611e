//! An owner that orphans come back to, as a subreaper or as PID 1, is left no guard to wait for.

use testkit::Bins;

use crate::{
    driven::{Driven, odd_owner},
    fixture::{Scene, every_setting},
};

const JOBS: usize = 20;

/// Its own dead child, which it has not waited for, stays for it.
#[test]
fn a_subreaper_has_no_children_but_its_own() {
    every_setting(|setting| {
        let mut scene = Scene::new(setting);
        let mut owner = Driven::start(&mut scene.cell, &odd_owner(), |owner| {
            owner.args(["reaper", setting.mechanism(), &JOBS.to_string()]);
            owner.arg(Bins::get().actor());
        });
        scene.stand_by_apart();
        assert_eq!(owner.answer().as_deref(), Ok("1"), "{setting}: children besides its own");
        owner.end();
        scene.is_deserted();
    });
}

#[test]
fn the_first_process_of_a_namespace_has_none() {
    if !rustix::process::geteuid().is_root() {
        return testkit::skip("only root can make a PID namespace with a /proc of its own");
    }
    for setting in crate::fixture::settings("subreaper") {
        if setting.uid().is_some() {
            continue;
        }
        let mut scene = Scene::new(setting);
        let unshare = std::path::Path::new("/usr/bin/unshare");
        let mut owner = Driven::start(&mut scene.cell, unshare, |owner| {
            owner.args(["--pid", "--fork", "--mount-proc"]).arg(odd_owner());
            owner.args(["reaper", "subreaper", &JOBS.to_string()]).arg(Bins::get().actor());
        });
        scene.stand_by_apart();
        assert_eq!(owner.answer().as_deref(), Ok("1"), "{setting}: children besides its own");
        owner.end();
        scene.is_deserted();
    }
}
