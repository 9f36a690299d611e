//! What restricts a process: the result of everything that a process can only give up.

use std::fs;

use crate::{arg, sys};

/// `restrictions REPORT FILE`: prints to standard output what this process may do, and whether it may
/// write to FILE, and exits.
pub(crate) fn restrictions() {
    const LINES: [&str; 13] = [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Speculation_Store_Bypass",
        "SpeculationIndirectBranch",
    ];
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    for line in status.lines().filter(|line| LINES.contains(&line.split(':').next().unwrap_or("")))
    {
        println!("{line}");
    }
    let mut namespaces: Vec<_> = fs::read_dir("/proc/self/ns")
        .expect("a list")
        .map(|entry| fs::read_link(entry.expect("an entry").path()).expect("a link"))
        .collect();
    namespaces.sort();
    println!("namespaces {namespaces:?}");
    for (what, option) in [("secure bits", libc::PR_GET_SECUREBITS), ("memory", PR_GET_MDWE)] {
        // SAFETY: both options take no argument, and zeroes where they take some.
        println!("{what} {}", unsafe { libc::prctl(option, 0_u64, 0_u64, 0_u64, 0_u64) });
    }
    let opened = fs::OpenOptions::new().append(true).open(arg(0));
    println!("writes {:?}", opened.map(drop).map_err(|error| error.raw_os_error()));
    sys::exit(0)
}

/// Whether memory may be written and executed (Linux 6.3).
const PR_GET_MDWE: i32 = 66;
