//! Where a memory file cannot be executed the guards are forked copies of the owner.

use testkit::{Bins, Environment, eventually, proc};

use crate::{
    driven::Driven,
    fixture::{Scene, kill},
};

/// Guards that cannot be executed from memory end the job all the same.
#[test]
fn guard_that_cannot_be_executed_is_forked() {
    for setting in [Environment::CgroupRoot, Environment::SubreaperRoot] {
        if !Environment::here().contains(&setting) {
            eprintln!("SKIPPED: {setting}: only root can set vm.memfd_noexec, in a PID namespace");
            continue;
        }
        if !std::path::Path::new("/proc/sys/vm/memfd_noexec").exists() {
            testkit::skip("this kernel has no vm.memfd_noexec (Linux 6.3)");
            continue;
        }
        refused(setting);
    }
}

/// In a PID namespace of its own, for the setting is one of the namespace's.
fn refused(setting: Environment) {
    let mut scene = Scene::new(setting);
    if scene.cell.cgroup().is_none() {
        eprintln!("SKIPPED: {setting}: who judges by a namespace does not see into another one");
        return;
    }
    let mut owner = Driven::start(&mut scene.cell, &Bins::get().cell_init(), |init| {
        let forbid = "echo 2 > /proc/sys/vm/memfd_noexec && exec \"$0\"";
        init.arg(Bins::get().actor()).args(["/bin/sh", "-c", forbid]).arg(Bins::get().owner());
    });
    let inner = owner.answer().expect("an owner in a namespace");
    scene.stand_by_apart();
    let beside = scene.cell.live_pids();
    owner.ok(&format!("new {}", setting.mechanism()));
    let guards = scene.guards();
    let pid = scene.only("owner");
    assert_eq!(proc::inner_pid(pid), inner.parse().ok());
    for guard in [guards.inner, guards.outer] {
        let program = proc::link(guard, "exe").expect("a living guard");
        assert_eq!(program, Bins::get().owner(), "not refused here");
    }
    owner.ok(&scene.spawn("daemon-grandchild"));
    scene.report.helpers(&scene.cell, "main", 1);
    kill(pid);
    // The namespace and its own bystander stay.
    eventually("nobody but who was there before", || {
        let mut left = scene.cell.live_pids();
        left.retain(|pid| !beside.contains(pid));
        (left.is_empty() && scene.cell.nested_cgroups().is_empty()).then_some(())
    });
}
