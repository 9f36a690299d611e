//! `onejob doctor` and `onejob run` agree about the mechanisms of a host, whatever the host lacks.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use testkit::{Bins, Environment, cgroup, eventually, scratch_dir};

/// Runs `onejob ARGS` after a script has changed the mounts and limits, in a mount namespace of its own.
fn on_a_host(script: &str, args: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    command.arg(format!("{script}\nexec \"$@\"")).arg("sh").arg(Bins::get().onejob()).args(args);
    command.env("ONEJOB_RUNTIME_DIR", scratch_dir().join("runtime")).stdin(Stdio::null());
    command.output().expect("unshare starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A cgroup of this test, which is removed when the guards in it have ended.
struct TestCgroup(PathBuf);

impl TestCgroup {
    fn new() -> TestCgroup {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = cgroup::own().expect("cgroup v2");
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = own.join(format!("testkit-host-{}-{count}", std::process::id()));
        fs::create_dir(&dir).expect("a new cgroup");
        TestCgroup(dir)
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        eventually("the end of the guards in the cgroup", || cgroup::remove(&self.0).ok());
    }
}

fn can_change_hosts() -> bool {
    let can = Environment::here().contains(&Environment::CgroupRoot);
    if !can {
        eprintln!("SKIPPED: only root can change mounts and cgroups");
    }
    can
}

/// `onejob doctor` prints the mechanism that `onejob run` uses, or that there is none. Each mechanism that it
/// prints as available works with `--mechanism`.
#[test]
fn run_uses_the_mechanism_that_doctor_prints() {
    if !can_change_hosts() {
        return;
    }
    let cgroup = TestCgroup::new();
    let dir = cgroup.0.display();
    let enter = format!("echo 0 >{dir}/cgroup.procs");
    let mount = cgroup.0.ancestors().filter(|dir| dir.join("cgroup.procs").exists()).last();
    let mount = mount.map(Path::display).expect("mounted");
    let hosts = [
        (String::new(), "cgroup"),
        ("mount -t tmpfs none /sys".to_owned(), "subreaper"),
        (format!("mount -t tmpfs none {mount}"), "subreaper"),
        (format!("mount --bind {mount} {mount}; mount -o remount,bind,ro {mount}"), "subreaper"),
        (format!("{enter}; echo 0 >{dir}/cgroup.max.depth"), "subreaper"),
        (
            format!(
                "{enter}; echo max >{dir}/cgroup.max.depth; echo 0 >{dir}/cgroup.max.descendants"
            ),
            "subreaper",
        ),
        ("umount -l /proc".to_owned(), "nothing"),
        ("ulimit -n 5".to_owned(), "nothing"),
    ];
    for (script, expected) in hosts {
        let doctor = on_a_host(&script, &["doctor"]);
        let said = text(&doctor.stdout);
        let uses = match expected {
            "nothing" => "onejob cannot make a job on this host".to_owned(),
            mechanism => format!("onejob works on this host, with {mechanism}:"),
        };
        assert!(said.contains(&uses), "{script}: {said}{}", text(&doctor.stderr));
        let forced = ["cgroup", "subreaper"].map(|name| {
            let is_available = said.contains(&format!("{name}: available"));
            (vec!["run", "--mechanism", name, "--", "true"], is_available)
        });
        let plain = (vec!["run", "--", "true"], expected != "nothing");
        for (args, works) in forced.into_iter().chain([plain]) {
            let run = on_a_host(&script, &args);
            let status = if works { 0 } else { 125 };
            let errors = text(&run.stderr);
            assert_eq!(run.status.code(), Some(status), "{script}: {args:?}: {errors}\n{said}");
        }
    }
}

/// The members of an owner in a threaded cgroup, which cannot have a job below it, stay in that cgroup and so
/// below its limits.
#[test]
fn members_of_an_owner_in_a_threaded_cgroup() {
    if !can_change_hosts() {
        return;
    }
    let cgroup = TestCgroup::new();
    let threaded = cgroup.0.join("threaded");
    fs::create_dir(&threaded).expect("a cgroup");
    fs::write(threaded.join("cgroup.type"), "threaded").expect("a threaded cgroup");
    // The shell first moves to the domain cgroup above it.
    let (domain, below) = (cgroup.0.display(), threaded.display());
    let enter = format!("echo 0 >{domain}/cgroup.procs; echo 0 >{below}/cgroup.threads");
    let run = on_a_host(&enter, &["run", "--", "cat", "/proc/self/cgroup"]);
    let said = text(&run.stdout);
    let its = said.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    assert!(its.ends_with("/threaded"), "{its}: {}", text(&run.stderr));
}
