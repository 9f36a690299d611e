//! System calls of owners and guards that fail at random, as they do where a resource runs out.
//!
//! `inject CONTROL SEED TIMES BURST ERRORS PROGRAM ARGS…`: as long as the file CONTROL exists, one call
//! in TIMES that can fail with one of ERRORS (`EMFILE,ENOMEM`) does, and so do the next BURST calls of
//! that process. Only processes called `onejob`, `onejob-guard` and `owner` are meant, not the
//! programs that they start. What failed is written to `CONTROL.log`.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
};

use crate::{
    arg, beside, invocation,
    random::Random,
    supervisor::{equal, load, step, supervised},
    sys,
};

const FILES: &[i32] = &[libc::EMFILE, libc::ENFILE, libc::ENOMEM];
const NEW_FILES: &[i32] = &[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOSPC];
const PROCESSES: &[i32] = &[libc::EAGAIN, libc::ENOMEM];
const PROGRAMS: &[i32] = &[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN];
const MEMORY: &[i32] = &[libc::ENOMEM];
const SPACE: &[i32] = &[libc::ENOSPC, libc::ENOMEM];

/// Each call and what it fails with by its manual page.
const CALLS: &[(&str, libc::c_long, &[i32])] = &[
    ("openat", libc::SYS_openat, NEW_FILES),
    ("openat2", libc::SYS_openat2, NEW_FILES),
    ("pidfd_open", libc::SYS_pidfd_open, FILES),
    ("socket", libc::SYS_socket, FILES),
    ("socketpair", libc::SYS_socketpair, FILES),
    ("accept4", libc::SYS_accept4, FILES),
    ("connect", libc::SYS_connect, &[libc::EAGAIN]),
    ("bind", libc::SYS_bind, SPACE),
    ("sendmsg", libc::SYS_sendmsg, MEMORY),
    ("recvmsg", libc::SYS_recvmsg, MEMORY),
    ("sendto", libc::SYS_sendto, MEMORY),
    ("recvfrom", libc::SYS_recvfrom, MEMORY),
    ("mkdirat", libc::SYS_mkdirat, SPACE),
    ("unlinkat", libc::SYS_unlinkat, MEMORY),
    ("renameat2", libc::SYS_renameat2, SPACE),
    ("linkat", libc::SYS_linkat, SPACE),
    ("symlinkat", libc::SYS_symlinkat, SPACE),
    ("memfd_create", libc::SYS_memfd_create, FILES),
    ("dup", libc::SYS_dup, &[libc::EMFILE]),
    ("eventfd2", libc::SYS_eventfd2, FILES),
    ("epoll_create1", libc::SYS_epoll_create1, FILES),
    ("epoll_ctl", libc::SYS_epoll_ctl, SPACE),
    ("timerfd_create", libc::SYS_timerfd_create, FILES),
    ("signalfd4", libc::SYS_signalfd4, FILES),
    ("pipe2", libc::SYS_pipe2, FILES),
    ("ppoll", libc::SYS_ppoll, MEMORY),
    ("getdents64", libc::SYS_getdents64, MEMORY),
    ("read", libc::SYS_read, MEMORY),
    ("pread64", libc::SYS_pread64, MEMORY),
    ("write", libc::SYS_write, SPACE),
    ("execve", libc::SYS_execve, PROGRAMS),
    ("execveat", libc::SYS_execveat, PROGRAMS),
    ("clone", libc::SYS_clone, PROCESSES),
    ("clone3", libc::SYS_clone3, PROCESSES),
    ("fsetxattr", libc::SYS_fsetxattr, SPACE),
    ("setxattr", libc::SYS_setxattr, SPACE),
    ("fgetxattr", libc::SYS_fgetxattr, MEMORY),
    ("getxattr", libc::SYS_getxattr, MEMORY),
    ("newfstatat", libc::SYS_newfstatat, MEMORY),
    ("statx", libc::SYS_statx, MEMORY),
    ("fstat", libc::SYS_fstat, MEMORY),
    ("readlinkat", libc::SYS_readlinkat, MEMORY),
    ("faccessat2", libc::SYS_faccessat2, MEMORY),
    ("fchmod", libc::SYS_fchmod, SPACE),
    ("mmap", libc::SYS_mmap, MEMORY),
    #[cfg(target_arch = "x86_64")]
    ("open", libc::SYS_open, NEW_FILES),
    #[cfg(target_arch = "x86_64")]
    ("mkdir", libc::SYS_mkdir, SPACE),
    #[cfg(target_arch = "x86_64")]
    ("rmdir", libc::SYS_rmdir, MEMORY),
    #[cfg(target_arch = "x86_64")]
    ("unlink", libc::SYS_unlink, MEMORY),
    #[cfg(target_arch = "x86_64")]
    ("symlink", libc::SYS_symlink, SPACE),
    #[cfg(target_arch = "x86_64")]
    ("rename", libc::SYS_rename, SPACE),
    #[cfg(target_arch = "x86_64")]
    ("readlink", libc::SYS_readlink, MEMORY),
    #[cfg(target_arch = "x86_64")]
    ("poll", libc::SYS_poll, MEMORY),
    #[cfg(target_arch = "x86_64")]
    ("fork", libc::SYS_fork, PROCESSES),
    #[cfg(target_arch = "x86_64")]
    ("vfork", libc::SYS_vfork, PROCESSES),
];

const ERRORS: &[(&str, i32)] = &[
    ("EMFILE", libc::EMFILE),
    ("ENFILE", libc::ENFILE),
    ("ENOMEM", libc::ENOMEM),
    ("ENOSPC", libc::ENOSPC),
    ("EAGAIN", libc::EAGAIN),
];

struct Injector {
    random: Random,
    times: u64,
    burst: u64,
    errors: Vec<i32>,
    control: PathBuf,
    log: File,
    /// The process whose calls fail now, the number of calls still to fail, and the error.
    failing: Option<(u32, u64, i32)>,
}

pub(crate) fn inject() {
    let number = |index| arg(index).parse().expect("a number");
    let errors = arg(3).split(',').map(|name| {
        let known = ERRORS.iter().find(|(known, _)| *known == name);
        known.unwrap_or_else(|| panic!("unknown error {name}")).1
    });
    let mut injector = Injector {
        random: Random::new(number(0)),
        times: number(1),
        burst: number(2),
        errors: errors.collect(),
        control: invocation().report.clone(),
        log: sys::open_to_append(&beside(".log")).expect("a log"),
        failing: None,
    };
    let mut filter = Vec::new();
    filter.push(load(0));
    for (_, call, errors) in CALLS {
        if errors.iter().any(|error| injector.errors.contains(error)) {
            filter.push(equal(*call as u32, 1));
            filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
        }
    }
    filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    supervised(&filter, move |asked| injector.error(asked));
    let mut command = Command::new(arg(4));
    panic!("failed to exec {:?}: {}", arg(4), command.args(&invocation().args[5..]).exec());
}

impl Injector {
    fn error(&mut self, asked: &libc::seccomp_notif) -> Option<i32> {
        let call = libc::c_long::from(asked.data.nr);
        let (name, _, possible) = CALLS.iter().find(|(_, known, _)| *known == call)?;
        let mut is_first = false;
        let error = match self.failing {
            Some((pid, left, error)) if pid == asked.pid && possible.contains(&error) => {
                self.failing = (left > 1).then_some((pid, left - 1, error));
                error
            }
            _ if self.random.one_in(self.times) => {
                let mut both = self.errors.clone();
                both.retain(|error| possible.contains(error));
                is_first = true;
                self.random.pick(&both)
            }
            _ => return None,
        };
        if !self.control.exists() {
            self.failing = None;
            return None;
        }
        let comm = fs::read_to_string(format!("/proc/{}/comm", asked.pid)).ok()?;
        let comm = comm.trim_end();
        // An owner without memory for loading its own program ends by itself, and its standard streams
        // belong to its client.
        let is_meant = match comm {
            "onejob-guard" => true,
            "onejob" | "owner" => {
                let of_a_stream = matches!(*name, "read" | "write") && asked.data.args[0] <= 2;
                // std's spawn waits for the end of its child after an error of this call.
                let of_std = call == libc::SYS_recvfrom;
                !of_a_stream && !of_std && call != libc::SYS_mmap
            }
            _ => false,
        };
        if !is_meant {
            return None;
        }
        if is_first && self.burst > 0 {
            self.failing = Some((asked.pid, self.burst, error));
        }
        let _ = writeln!(self.log, "{comm} {} {name} {error}", asked.pid);
        Some(error)
    }
}
