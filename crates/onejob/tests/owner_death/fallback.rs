//! Where a memory file cannot be executed the guards are forked copies of the owner.

use testkit::{Bins, Environment, eventually, proc};

use crate::{
    driven::Driven,
    fixture::{Fixture, kill},
};

/// Guards that cannot be executed from memory end the job all the same.
#[test]
fn guard_that_cannot_be_executed_is_forked() {
    for environment in [Environment::CgroupRoot, Environment::SubreaperRoot] {
        if !Environment::here().contains(&environment) {
            eprintln!(
                "SKIPPED: {environment}: only root can set vm.memfd_noexec, in a PID namespace"
            );
            continue;
        }
        if !std::path::Path::new("/proc/sys/vm/memfd_noexec").exists() {
            testkit::skip("this kernel has no vm.memfd_noexec (Linux 6.3)");
            continue;
        }
        refused(environment);
    }
}

/// In a PID namespace of its own, for the environment is one of the namespace's.
fn refused(environment: Environment) {
    let mut fixture = Fixture::new(environment);
    if fixture.sandbox.cgroup().is_none() {
        eprintln!(
            "SKIPPED: {environment}: who judges by a namespace does not see into another one"
        );
        return;
    }
    let mut owner = Driven::start(&mut fixture.sandbox, &Bins::get().sandbox_init(), |init| {
        let forbid = "echo 2 > /proc/sys/vm/memfd_noexec && exec \"$0\"";
        init.arg(Bins::get().helper()).args(["/bin/sh", "-c", forbid]).arg(Bins::get().owner());
    });
    let inner = owner.answer().expect("an owner in a namespace");
    fixture.stand_by_apart();
    let beside = fixture.sandbox.live_pids();
    owner.ok(&format!("new {}", environment.mechanism()));
    let guards = fixture.guards();
    let pid = fixture.only("owner");
    assert_eq!(proc::inner_pid(pid), inner.parse().ok());
    for guard in [guards.inner, guards.outer] {
        let program = proc::link(guard, "exe").expect("a living guard");
        assert_eq!(program, Bins::get().owner(), "not refused here");
    }
    owner.ok(&fixture.spawn("daemon-grandchild"));
    fixture.report.helpers(&fixture.sandbox, "main", 1);
    kill(pid);
    // The namespace and its own bystander stay.
    eventually("nobody but who was there before", || {
        let mut left = fixture.sandbox.live_pids();
        left.retain(|pid| !beside.contains(pid));
        (left.is_empty() && fixture.sandbox.nested_cgroups().is_empty()).then_some(())
    });
}
