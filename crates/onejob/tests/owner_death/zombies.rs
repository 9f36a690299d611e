//! An owner that inherits orphans, as a subreaper or as PID 1, gets no zombies of guards.

use testkit::{Bins, Environment, Fixture, LineProcess, every_environment};

const JOBS: usize = 20;

/// Its own dead child, for which it has not waited yet, stays a zombie.
#[test]
fn a_subreaper_has_no_children_but_its_own() {
    every_environment(|environment| {
        let mut fixture = Fixture::new(environment);
        let mut owner =
            LineProcess::start(&mut fixture.sandbox, &Bins::get().odd_owner(), |owner| {
                owner.args(["reaper", environment.mechanism(), &JOBS.to_string()]);
                owner.arg(Bins::get().helper());
            });
        fixture.start_bystanders_apart();
        assert_eq!(
            owner.receive("the start").as_deref(),
            Ok("1"),
            "{environment}: children besides its own"
        );
        owner.end();
        fixture.assert_clean();
    });
}

#[test]
fn the_first_process_of_a_namespace_has_none() {
    if !rustix::process::geteuid().is_root() {
        return testkit::skip("only root can make a PID namespace with a /proc of its own");
    }
    for environment in Environment::of("subreaper") {
        if environment.uid().is_some() {
            continue;
        }
        let mut fixture = Fixture::new(environment);
        let unshare = std::path::Path::new("/usr/bin/unshare");
        let mut owner = LineProcess::start(&mut fixture.sandbox, unshare, |owner| {
            owner.args(["--pid", "--fork", "--mount-proc"]).arg(Bins::get().odd_owner());
            owner.args(["reaper", "subreaper", &JOBS.to_string()]).arg(Bins::get().helper());
        });
        fixture.start_bystanders_apart();
        assert_eq!(
            owner.receive("the start").as_deref(),
            Ok("1"),
            "{environment}: children besides its own"
        );
        owner.end();
        fixture.assert_clean();
    }
}
