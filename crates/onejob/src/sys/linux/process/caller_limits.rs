//! What the resource limits of this process stand in the way of.

use std::fmt::Write as _;

use crate::sys::linux::nostd::syscall::{
    Errno, RLIMIT_AS, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_STACK,
    UNLIMITED, get_rlimit,
};

/// The remedy where a call failed because of a limit of this process; `None` if no limit can be why.
pub(crate) fn limit_hint(errno: i32) -> Option<String> {
    match Errno(errno) {
        Errno::MFILE => raise("of open files", RLIMIT_NOFILE, "-n"),
        Errno::FBIG => raise("of the size of files", RLIMIT_FSIZE, "-f"),
        Errno::AGAIN => raise("of this user's processes", RLIMIT_NPROC, "-u"),
        Errno::NOMEM => {
            [("of data", RLIMIT_DATA, "-d"), ("of address space", RLIMIT_AS, "-v"), STACK_LIMIT]
                .into_iter()
                .filter_map(|(what, resource, option)| raise(what, resource, option))
                .reduce(|mut all, one| {
                    let _ = write!(all, ", {one}");
                    all
                })
        }
        // Arguments and environment may take a quarter of the stack.
        Errno::TOOBIG => raise(STACK_LIMIT.0, STACK_LIMIT.1, STACK_LIMIT.2),
        _ => None,
    }
}

const STACK_LIMIT: (&str, u64, &str) = ("of the stack", RLIMIT_STACK, "-s");

fn raise(what: &str, resource: u64, option: &str) -> Option<String> {
    let soft = soft(resource);
    let name = match resource {
        RLIMIT_NOFILE => "RLIMIT_NOFILE",
        RLIMIT_FSIZE => "RLIMIT_FSIZE",
        RLIMIT_NPROC => "RLIMIT_NPROC",
        RLIMIT_DATA => "RLIMIT_DATA",
        RLIMIT_AS => "RLIMIT_AS",
        _ => "RLIMIT_STACK",
    };
    (soft != UNLIMITED)
        .then(|| format!("raise the limit {what}, which is {soft} here ({name}, ulimit {option})"))
}

fn soft(resource: u64) -> u64 {
    get_rlimit(0, resource).map_or(UNLIMITED, |[soft, _]| soft)
}

/// Whether a file of this size can be written. Beyond the limit the kernel would not only refuse the
/// write but send `SIGXFSZ`, which ends a program that knows nothing of it.
pub(crate) fn check_file_size(size: u64) -> std::result::Result<(), rustix::io::Errno> {
    if size > soft(RLIMIT_FSIZE) { Err(rustix::io::Errno::FBIG) } else { Ok(()) }
}

/// Whether a descriptor of this number can be made in a child of a guard, which may have no more
/// than our hard limit.
pub(crate) fn allows_descriptor(number: i32) -> bool {
    let most = get_rlimit(0, RLIMIT_NOFILE).map_or(UNLIMITED, |[_, hard]| hard);
    (number as u64) < most
}
