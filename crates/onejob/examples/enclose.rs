//! A program whose *libraries* start processes without returning their pids.
//!
//! The program encloses itself, calls a "library" that starts three children, prints every member,
//! waits for Enter, kills all members but itself, and lists the members again as a proof.
//!
//! ```sh
//! cargo run -p onejob --example enclose
//! cargo run -p onejob --example enclose -- subreaper
//! ```

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = onejob::Job::builder();
    #[cfg(windows)]
    some_library::is_one_of_its_children();
    if let Some(mechanism) = std::env::args().nth(1) {
        builder = builder.mechanism(mechanism.parse()?);
    }
    let job = builder.enclose()?;
    println!("enclosed. {}", job.guarantees());

    some_library::starts_three_children();
    println!("members, found without their pids:");
    print!("{}", job.tree()?);

    println!("press Enter to kill all but this process");
    std::io::stdin().read_line(&mut String::new())?;

    let report = job.kill()?;
    println!("killed in {:?}. members now:", report.took);
    for process in job.processes()? {
        println!("{process}");
        assert!(process.is_caller, "only this process is left");
    }
    assert!(job.is_empty()?);
    Ok(())
}

/// Code that this program does not control.
#[cfg(unix)]
mod some_library {
    use std::ffi::{c_char, c_int, c_uint};

    unsafe extern "C" {
        fn system(command: *const c_char) -> c_int;
        fn fork() -> c_int;
        fn setsid() -> c_int;
        fn wait(status: *mut c_int) -> c_int;
        fn sleep(seconds: c_uint) -> c_uint;
        fn _exit(status: c_int) -> !;
    }

    pub(crate) fn starts_three_children() {
        // SAFETY: a command line that ends with a NUL; this program has one thread.
        unsafe { system(c"sleep 600 &".as_ptr()) };
        start(|| {
            // SAFETY: only waits.
            unsafe { sleep(600) };
        });
        start(|| {
            // A daemon: it has its own session, and its parent ends and is reaped.
            start(|| {
                // SAFETY: changes the session of this process, then only waits.
                unsafe {
                    setsid();
                    sleep(600);
                }
            });
        });
        // SAFETY: waits for the first child that ends, which is the daemon's parent.
        unsafe { wait(std::ptr::null_mut()) };
    }

    /// Forks and does not return the pid, as a C library can.
    fn start(work: fn()) {
        // SAFETY: this program has one thread, so the child may call any function.
        unsafe {
            if fork() == 0 {
                work();
                _exit(0);
            }
        }
    }
}

/// Code that this program does not control, on Windows: a child that runs this program and starts
/// another child.
#[cfg(windows)]
mod some_library {
    use std::{env, process::Command, thread, time::Duration};

    const DEPTH: &str = "SOME_LIBRARY_DEPTH";

    pub(crate) fn starts_three_children() {
        let started = (0..3).all(|depth| start(depth).is_ok());
        assert!(started, "this program can be started again");
        // The last one starts two more below it.
        thread::sleep(Duration::from_millis(500));
    }

    fn start(depth: u32) -> std::io::Result<()> {
        let mut child = Command::new(env::current_exe()?);
        child.env(DEPTH, depth.to_string()).stdin(std::process::Stdio::null()).spawn().map(drop)
    }

    pub(crate) fn is_one_of_its_children() {
        let Some(depth) = env::var(DEPTH).ok().and_then(|depth| depth.parse::<u32>().ok()) else {
            return;
        };
        if depth > 0 {
            let _ = start(depth - 1);
        }
        thread::sleep(Duration::from_secs(600));
        std::process::exit(0)
    }
}
