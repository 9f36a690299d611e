//! A kernel without certain features, for one process and all of its descendants.
//!
//! `seccomp REPORT LACKS PROGRAM ARGS…` executes PROGRAM below a seccomp filter. LACKS is a list of
//!
//! - `CALL=ERROR`: a system call, or one use of it (see [`USES`]), that fails like this;
//! - `file:NAME`: files of this name, which are not found;
//! - `pidfs`: the file system of pidfds, hence their inodes (before Linux 6.9).
//!
//! A filter cannot read strings, so files and pidfds are distinguished by a supervisor, a separate
//! process that ends with the last process below the filter.

use std::{
    fs::{self, File},
    os::unix::{fs::FileExt, process::CommandExt},
    process::Command,
};

use crate::{
    arg, invocation,
    supervisor::{self, install, supervised},
};

/// An argument of a call, a mask, and the value of the masked bits.
type Argument = (u32, u32, u32);

/// The calls that can fail: the name, the call, and the use of it unless all uses fail.
const USES: &[(&str, libc::c_long, Option<Argument>)] = &[
    ("clone3", libc::SYS_clone3, None),
    ("close_range", libc::SYS_close_range, None),
    ("execveat-memory", libc::SYS_execveat, Some((4, 0x1000, 0x1000))),
    ("faccessat2", libc::SYS_faccessat2, None),
    ("memfd_create", libc::SYS_memfd_create, None),
    ("memfd_create-exec", libc::SYS_memfd_create, Some((1, 0x10, 0x10))),
    ("openat2", libc::SYS_openat2, None),
    ("pidfd_open", libc::SYS_pidfd_open, None),
    ("pidfd-info", libc::SYS_ioctl, Some((1, 0xFFFF, 0xFF0B))),
    ("pidfd-group", libc::SYS_pidfd_send_signal, Some((3, 1 << 2, 1 << 2))),
    ("signalfd4", libc::SYS_signalfd4, None),
    ("waitid-pidfd", libc::SYS_waitid, Some((0, u32::MAX, 3))),
];

const ERRORS: &[(&str, i32)] = &[
    ("EACCES", libc::EACCES),
    ("EINVAL", libc::EINVAL),
    ("ENOSYS", libc::ENOSYS),
    ("ENOTTY", libc::ENOTTY),
    ("EPERM", libc::EPERM),
];

/// The calls that name a file, and which argument the name is.
const NAMING: &[(libc::c_long, usize)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_access, 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, 0),
    (libc::SYS_openat, 1),
    (libc::SYS_openat2, 1),
    (libc::SYS_faccessat, 1),
    (libc::SYS_faccessat2, 1),
    (libc::SYS_newfstatat, 1),
    (libc::SYS_statx, 1),
];

#[derive(Default)]
struct Removed {
    rules: Vec<(libc::c_long, Option<Argument>, u32)>,
    files: Vec<Vec<u8>>,
    pidfs: bool,
}

pub(crate) fn seccomp() {
    let lacking = Removed::parse(arg(0));
    if lacking.files.is_empty() && !lacking.pidfs {
        install(&lacking.filter(), 0);
    } else {
        supervised(&lacking.filter(), move |asked| lacking.error(asked));
    }
    let mut command = Command::new(arg(1));
    panic!("failed to exec {:?}: {}", arg(1), command.args(&invocation().args[2..]).exec());
}

impl Removed {
    fn parse(list: &str) -> Removed {
        let mut lacking = Removed::default();
        for word in list.split(',') {
            match (word.split_once('='), word.split_once(':')) {
                (Some((name, error)), _) => {
                    let of = |(known, ..): &&(&str, _, _)| *known == name;
                    let (_, call, used) =
                        USES.iter().find(of).unwrap_or_else(|| panic!("which call is {name:?}?"));
                    let of = |(known, _): &&(&str, _)| *known == error;
                    let (_, errno) = ERRORS
                        .iter()
                        .find(of)
                        .unwrap_or_else(|| panic!("which error is {error:?}?"));
                    let answer = libc::SECCOMP_RET_ERRNO | *errno as u32;
                    lacking.rules.push((*call, *used, answer));
                }
                (_, Some(("file", name))) => lacking.files.push(name.as_bytes().to_vec()),
                _ if word == "pidfs" => lacking.pidfs = true,
                _ => panic!("what is {word:?}?"),
            }
        }
        let ask = |call| (call, None, libc::SECCOMP_RET_USER_NOTIF);
        // Those that fail come first: a call that is not there finds no file either.
        if !lacking.files.is_empty() {
            lacking.rules.extend(NAMING.iter().map(|(call, _)| ask(*call)));
        }
        if lacking.pidfs {
            lacking.rules.push(ask(libc::SYS_fstatfs));
        }
        lacking
    }

    fn filter(&self) -> Vec<libc::sock_filter> {
        use supervisor::{equal, load, step};
        let mut filter = Vec::new();
        for (call, argument, answer) in &self.rules {
            // The number of the call is the first field of seccomp_data, the arguments begin at 16.
            filter.push(load(0));
            if let Some((index, bits, value)) = argument {
                filter.push(equal(*call as u32, 4));
                filter.push(load(16 + 8 * index));
                filter.push(step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, *bits));
                filter.push(equal(*value, 1));
            } else {
                filter.push(equal(*call as u32, 1));
            }
            filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, *answer));
        }
        filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
        filter
    }

    /// The error of a call of a process below the filter, if it fails.
    fn error(&self, asked: &libc::seccomp_notif) -> Option<i32> {
        let (call, pid) = (libc::c_long::from(asked.data.nr), asked.pid);
        if call == libc::SYS_fstatfs {
            let link = fs::read_link(format!("/proc/{pid}/fd/{}", asked.data.args[0]));
            let is_pidfd = link.is_ok_and(|link| link.to_string_lossy().contains("pidfd"));
            return is_pidfd.then_some(libc::ENOSYS);
        }
        let (_, index) = NAMING.iter().find(|(naming, _)| *naming == call)?;
        let path = text_at(pid, asked.data.args[*index])?;
        let name = path.rsplit(|byte| *byte == b'/').next()?;
        self.files.iter().any(|file| file == name).then_some(libc::ENOENT)
    }
}

/// A string in the memory of a process that waits for an answer; `None` if it cannot be read.
fn text_at(pid: u32, address: u64) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut text = vec![0; libc::PATH_MAX as usize];
    // Shorter at the end of a mapping.
    let len = memory.read_at(&mut text, address).ok()?;
    let end = text[..len].iter().position(|byte| *byte == 0)?;
    text.truncate(end);
    Some(text)
}
