//! On a host that cannot execute memory files, the guards are forked copies of the owner.

use testkit::{Bins, Environment, Fixture, LineProcess, eventually, proc};

/// Guards that are forked copies of the owner end the job too.
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

/// In a PID namespace of its own: `vm.memfd_noexec` is a value of the namespace.
fn refused(environment: Environment) {
    let mut fixture = Fixture::new(environment);
    if fixture.sandbox.cgroup().is_none() {
        eprintln!("SKIPPED: {environment}: a namespace sandbox does not see another namespace");
        return;
    }
    let mut owner = LineProcess::start(&mut fixture.sandbox, &Bins::get().sandbox_init(), |init| {
        let forbid = "echo 2 > /proc/sys/vm/memfd_noexec && exec \"$0\"";
        init.arg(Bins::get().helper()).args(["/bin/sh", "-c", forbid]).arg(Bins::get().owner());
    });
    let inner = owner.receive("the start").expect("an owner in a namespace");
    fixture.start_bystanders_apart();
    let beside = fixture.sandbox.live_pids();
    owner.ok(&format!("new {}", environment.mechanism()));
    let guards = fixture.guards();
    let pid = fixture.sandbox.only_named("owner");
    assert_eq!(proc::inner_pid(pid), inner.parse().ok());
    for guard in [guards.inner, guards.outer] {
        let program = proc::link(guard, "exe").expect("a living guard");
        assert_eq!(program, Bins::get().owner(), "the guard program was executed");
    }
    owner.ok(&fixture.spawn("daemon-grandchild"));
    fixture.report.helpers(&fixture.sandbox, "main", 1);
    proc::kill(pid);
    // The first process of the namespace and its bystander stay.
    eventually("only the processes that were there before", || {
        let mut left = fixture.sandbox.live_pids();
        left.retain(|pid| !beside.contains(pid));
        (left.is_empty() && fixture.sandbox.nested_cgroups().is_empty()).then_some(())
    });
}
