//! A PID namespace in which numbers can be chosen.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use testkit::{Bins, Bystanders, DEADLINE, Environment, Sandbox, scratch_dir, skip};

const INSIDE: &str = "ONEJOB_TEST_INSIDE";

/// Runs the rest of a test in a PID namespace of its own: `true` in there, `false` in the test once
/// that process has passed.
#[track_caller]
pub(crate) fn inside(test: &str) -> bool {
    inside_without(test, None)
}

/// The same on a kernel that lacks something (the helper's `without`).
#[track_caller]
pub(crate) fn inside_without(test: &str, lacks: Option<&str>) -> bool {
    if env::var_os(INSIDE).is_some_and(|name| name == test) {
        return true;
    }
    let of_root = Environment::here().into_iter().find(|environment| !environment.is_ordinary());
    let Some(environment) = of_root else {
        eprintln!("SKIPPED: only root can choose the numbers of new processes");
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
            init.arg(bins.helper()).args(["without", "/dev/null", lacks]);
        }
        init.arg(env::current_exe().expect("a path to this test"));
        init.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, test);
        // What is alive out here is dead in there, so it must not tidy up our scratch directories;
        // and what we have built is new enough.
        init.env("TMPDIR", &dir).env_remove("CARGO");
        init.stdout(file.try_clone().expect("a descriptor")).stderr(file);
    });
    let mut bystanders = Bystanders::beside(&sandbox, run.id() as i32);
    // Longer than anything inside waits, so that it can say what it waited for.
    let start = Instant::now();
    let mut status = None;
    while status.is_none() && start.elapsed() < 3 * DEADLINE {
        std::thread::sleep(Duration::from_millis(5));
        status = run.try_wait().expect("our child");
    }
    let said = fs::read_to_string(output).expect("what it said");
    let Some(status) = status else {
        let _ = run.kill();
        let _ = run.wait();
        panic!("no end of the test inside:\n{said}");
    };
    assert!(status.success(), "inside: {status}\n{said}");
    bystanders.assert_alive();
    false
}
