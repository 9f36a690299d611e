//! Plain processes, and processes that act on others.

use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use crate::{arg, beside, report, sys};

/// Sleeps. Unlike the main process of a scenario it does not end with `REPORT.go`.
pub(crate) fn sleep() {
    report("sleeper", sys::parent());
    sys::rest()
}

/// Uses a whole CPU.
pub(crate) fn busy() {
    report("busy", sys::parent());
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
    report("hog", sys::parent());
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
    report("counter", sys::parent());
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

/// Writes by rename: a reader never sees a partial file.
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
    report("tracer", sys::parent());
    sys::rest()
}
