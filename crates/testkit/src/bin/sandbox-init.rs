//! `sandbox-init HELPER PROGRAM ARGS…`: makes a user, PID and mount namespace, starts a bystander (HELPER)
//! and PROGRAM in it, and ends as PROGRAM ends. The namespace exists until its first process is killed,
//! so that a test can list its processes. `sandbox-init --enter PID PROGRAM ARGS…` starts another program
//! in the namespaces of PID. `sandbox-init --probe` tries to make a namespace and leaves nothing behind.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
    ptr,
};

use testkit::{SANDBOX_GO as GO, lifetime_limit};

fn main() {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if args == ["--probe"] {
        std::process::exit(i32::from(!probe()));
    }
    if let [enter, init, program, args @ ..] = &*args
        && enter == "--enter"
    {
        self::enter(init, Command::new(program).args(args));
    }
    let [helper, program, args @ ..] = &*args else {
        eprintln!("usage: sandbox-init HELPER PROGRAM ARGS…");
        std::process::exit(2);
    };
    if let Err(error) = unshare() {
        eprintln!("sandbox-init: failed to make a namespace: {error}");
        std::process::exit(125);
    }
    let (mut status, report) = io::pipe().expect("a pipe");
    // SAFETY: this process has one thread, so the copy may run any code.
    match unsafe { libc::fork() } {
        -1 => panic!("failed to fork: {}", io::Error::last_os_error()),
        0 => {
            drop(status);
            let mut program = Command::new(program);
            let error = init(Command::new(helper), program.args(args), report).unwrap_err();
            eprintln!("sandbox-init: {error}");
            std::process::exit(125);
        }
        _ => {}
    }
    drop(report);
    close_stdio();
    let mut raw = [0; 4];
    let ended = status.read_exact(&mut raw).map(|()| ExitStatus::from_raw(i32::from_ne_bytes(raw)));
    let code =
        ended.map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
    std::process::exit(code.unwrap_or(125));
}

/// Runs a program in the namespaces of the first process of another sandbox, and ends as it does.
fn enter(init: &OsStr, program: &mut Command) -> ! {
    // All opened first: inside, the pids differ.
    let files = ["user", "mnt", "pid"].map(|name| {
        let path = Path::new("/proc").join(init).join("ns").join(name);
        fs::File::open(path).expect("a namespace of the sandbox")
    });
    for file in files {
        // SAFETY: plain numbers; this process has one thread.
        let entered = unsafe { libc::setns(file.as_raw_fd(), 0) };
        assert!(entered == 0, "enter a namespace: {}", io::Error::last_os_error());
    }
    let mut child = program.process_group(0).spawn().expect("a program that starts");
    close_stdio();
    let status = child.wait().expect("a child of this process");
    std::process::exit(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

fn probe() -> bool {
    if let Err(error) = unshare() {
        eprintln!("sandbox-init: failed to make a namespace: {error}");
        return false;
    }
    // SAFETY: this process has one thread, so the copy may run any code; status is a local.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(i32::from(mount_proc().is_err())),
            child => {
                let mut status = -1;
                libc::waitpid(child, &mut status, 0) == child && status == 0
            }
        }
    }
}

/// Keeps the user and group ids inside.
fn unshare() -> io::Result<()> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // SAFETY: takes no pointer; this process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// The first process of the namespace: reaps orphans until it is killed.
fn init(mut helper: Command, program: &mut Command, mut report: io::PipeWriter) -> io::Result<()> {
    // The kernel does not deliver a timer's SIGKILL to the first process of a namespace, so it uses
    // another signal.
    // SAFETY: alarm takes no pointer; the handler only ends the process.
    unsafe {
        libc::signal(libc::SIGALRM, end as *const () as libc::sighandler_t);
        libc::alarm(2 * lifetime_limit::LIFETIME_SECONDS as u32);
    }
    mount_proc()?;
    let quiet = helper.arg("sleep").arg("/dev/null").stdin(Stdio::null()).stdout(Stdio::null());
    let _bystander = quiet.env_remove(GO).spawn()?;
    if let Some(go) = std::env::var_os(GO) {
        while !std::path::Path::new(&go).exists() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    let program = program.env_remove(GO).process_group(0).spawn()?.id() as i32;
    close_stdio();
    loop {
        let mut status = 0;
        // SAFETY: status is a local.
        let ended = unsafe { libc::waitpid(-1, &mut status, 0) };
        if ended < 0 {
            // No child is left, but orphans may still be re-parented to this process.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        if ended == program {
            report.write_all(&status.to_ne_bytes())?;
        }
    }
}

extern "C" fn end(_: i32) {
    // SAFETY: _exit may be called in a signal handler.
    unsafe { libc::_exit(124) };
}

/// Mounts a new `/proc`: the pids in the old one belong to another namespace.
fn mount_proc() -> io::Result<()> {
    let none = ptr::null();
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the paths are literals, the other pointers null, as the calls allow.
    let mounted = unsafe {
        libc::mount(none, c"/".as_ptr(), none, private, ptr::null()) == 0
            && libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, ptr::null())
                == 0
    };
    if mounted { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A reader of the program's output must see the end of the program, not that of this process.
fn close_stdio() {
    // SAFETY: this process does not use 0 and 1 from now on.
    unsafe {
        libc::close(0);
        libc::close(1);
    }
}
