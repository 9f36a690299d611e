//! An owner that orphans come back to, as a subreaper or as PID 1, is left no guard to wait for.

use testkit::Bins;

use crate::{
    driven::{Driven, odd_owner},
    fixture::{Fixture, every_environment},
};

const JOBS: usize = 20;

/// Its own dead child, which it has not waited for, stays for it.
#[test]
fn a_subreaper_has_no_children_but_its_own() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner = Driven::start(&mut fixture.sandbox, &odd_owner(), |owner| {
            owner.args(["reaper", environment.mechanism(), &JOBS.to_string()]);
            owner.arg(Bins::get().helper());
        });
        fixture.stand_by_apart();
        assert_eq!(owner.answer().as_deref(), Ok("1"), "{environment}: children besides its own");
        owner.end();
        fixture.is_deserted();
    });
}

#[test]
fn the_first_process_of_a_namespace_has_none() {
    if !rustix::process::geteuid().is_root() {
        return testkit::skip("only root can make a PID namespace with a /proc of its own");
    }
    for environment in crate::fixture::environments("subreaper") {
        if environment.uid().is_some() {
            continue;
        }
        let mut fixture = Fixture::new(environment);
        let unshare = std::path::Path::new("/usr/bin/unshare");
        let mut owner = Driven::start(&mut fixture.sandbox, unshare, |owner| {
            owner.args(["--pid", "--fork", "--mount-proc"]).arg(odd_owner());
            owner.args(["reaper", "subreaper", &JOBS.to_string()]).arg(Bins::get().helper());
        });
        fixture.stand_by_apart();
        assert_eq!(owner.answer().as_deref(), Ok("1"), "{environment}: children besides its own");
        owner.end();
        fixture.is_deserted();
    }
}
