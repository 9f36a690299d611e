//! A PID namespace in which the pids of new processes can be chosen.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use testkit::{Bins, Bystanders, DEADLINE, Environment, Sandbox, scratch_dir, skip};

const INSIDE: &str = "ONEJOB_TEST_INSIDE";

/// Runs the test again in a new PID namespace. Returns true in that process, and false in the caller once that
/// process has passed.
#[track_caller]
pub(crate) fn inside(test: &str) -> bool {
    inside_without(test, None)
}

/// As [`inside`], below the seccomp filter `lacks` (see the scenario `seccomp` of the helper).
#[track_caller]
pub(crate) fn inside_without(test: &str, lacks: Option<&str>) -> bool {
    if env::var_os(INSIDE).is_some_and(|name| name == test) {
        return true;
    }
    let of_root = Environment::here().into_iter().find(|environment| !environment.is_ordinary());
    let Some(environment) = of_root else {
        eprintln!("SKIPPED: only root can choose the pids of new processes");
        return false;
    };
    if !std::path::Path::new("/proc/sys/kernel/ns_last_pid").exists() {
        skip("this kernel has no ns_last_pid (CONFIG_CHECKPOINT_RESTORE)");
        return false;
    }
    let mut sandbox = Sandbox::new(environment);
    let bins = Bins::get();
    let dir = scratch_dir();
    let output = dir.join("output");
    let file = fs::File::create(&output).expect("a writable scratch directory");
    let mut run = sandbox.start(&bins.sandbox_init(), |init| {
        init.arg(bins.helper());
        if let Some(lacks) = lacks {
            init.arg(bins.helper()).args(["seccomp", "/dev/null", lacks]);
        }
        init.arg(env::current_exe().expect("a path to this test"));
        init.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, test);
        // It has its own scratch directory: it would remove that of this process, whose pid does not exist
        // inside. It does not build the programs again.
        init.env("TMPDIR", &dir).env_remove("CARGO");
        init.stdout(file.try_clone().expect("a descriptor")).stderr(file);
    });
    let mut bystanders = Bystanders::beside(&sandbox, run.id() as i32);
    // Longer than the deadlines inside, so that the test inside can report what it waited for.
    let start = Instant::now();
    let mut status = None;
    while status.is_none() && start.elapsed() < 3 * DEADLINE {
        std::thread::sleep(Duration::from_millis(5));
        status = run.try_wait().expect("a child of this process");
    }
    let said = fs::read_to_string(output).expect("its output");
    let Some(status) = status else {
        let _ = run.kill();
        let _ = run.wait();
        panic!("no end of the test inside:\n{said}");
    };
    assert!(status.success(), "inside: {status}\n{said}");
    assert!(said.contains("1 passed"), "no test has the path {test:?}:\n{said}");
    bystanders.assert_alive();
    false
}
