//! Plain processes, and processes that do something to others.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use crate::{arg, beside, say, scene, sys};

/// Just alive. Unlike a scenario's main process it does not end by `REPORT.go`.
pub(crate) fn sleep() {
    say("sleeper", sys::parent());
    sys::rest()
}

/// Eats a processor.
pub(crate) fn busy() {
    say("busy", sys::parent());
    loop {
        std::hint::spin_loop();
    }
}

/// `hog REPORT BYTES`: has touched that much memory when it announces itself, and keeps it.
pub(crate) fn hog() {
    let mut memory = vec![0_u8; arg(0).parse().expect("a number of bytes")];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
    say("hog", sys::parent());
    sys::rest()
}

/// `exit REPORT STATUS`, at once.
pub(crate) fn exit() {
    sys::exit(arg(0).parse().expect("a status"))
}

static COUNTS: [AtomicU32; 65] = [const { AtomicU32::new(0) }; 65];

extern "C" fn count(signal: i32) {
    COUNTS[signal as usize].fetch_add(1, Ordering::Relaxed);
}

/// Catches and counts every signal that can be caught, except those that stop from a terminal.
/// The counts (`NUMBER COUNT` lines) are always in the file `REPORT.counts`.
pub(crate) fn signal_counter() {
    let spared = [libc::SIGKILL, libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    for signal in (1..=64).filter(|signal| !spared.contains(signal) && ![32, 33].contains(signal)) {
        // SAFETY: the handler only touches an atomic.
        unsafe { libc::signal(signal, count as *const () as libc::sighandler_t) };
    }
    // The total is read before the counts are written: a signal in between is written once more,
    // never lost.
    let mut written = total();
    write_counts();
    say("counter", sys::parent());
    loop {
        thread::sleep(Duration::from_millis(5));
        let now = total();
        if now != written {
            write_counts();
            written = now;
        }
    }
}

fn total() -> u32 {
    COUNTS.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

/// By rename: a reader never sees half of it.
fn write_counts() {
    let counts = COUNTS.iter().map(|count| count.load(Ordering::Relaxed)).enumerate();
    let lines =
        counts.filter(|(_, count)| *count > 0).map(|(signal, count)| format!("{signal} {count}\n"));
    let part = beside(".counts.part");
    fs::write(&part, lines.collect::<String>()).expect("writable counts");
    fs::rename(part, beside(".counts")).expect("writable counts");
}

/// `trace REPORT PID`: holds PID in a ptrace stop and never waits for it again.
pub(crate) fn trace() {
    sys::trace(arg(0).parse().expect("a pid")).expect("a traceable process");
    say("tracer", sys::parent());
    sys::rest()
}

/// `no-clone3 REPORT ENOSYS|EPERM PROGRAM ARGS…`: executes PROGRAM under a seccomp filter that
/// fails clone3 as an old container runtime's would.
pub(crate) fn no_clone3() {
    let errno = match arg(0) {
        "ENOSYS" => libc::ENOSYS,
        "EPERM" => libc::EPERM,
        other => panic!("{other:?} is neither ENOSYS nor EPERM"),
    };
    refuse_clone3(errno as u32);
    let mut command = Command::new(arg(1));
    panic!("failed to exec {:?}: {}", arg(1), command.args(&scene().args[2..]).exec());
}

fn refuse_clone3(errno: u32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, equal, answer) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let mut filter = [
        // The number of the call is the first field of seccomp_data.
        step(load, 0, 0, 0),
        step(equal, 0, 1, libc::SYS_clone3 as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: program and filter live through the call, which copies them.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    assert!(set, "failed to install the filter: {}", std::io::Error::last_os_error());
}
