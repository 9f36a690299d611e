//! A program whose `execve` hangs, like that of a program on a network file system without a server.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use crate::{Bins, eventually, scratch_dir};

/// A copy of the helper that cannot be executed while this value exists: `execve` waits for the lease
/// that this process holds on the file, for 45 seconds at most.
pub struct Hanging {
    program: PathBuf,
    _lease: File,
}

impl Hanging {
    /// # Panics
    /// If the file system has no leases.
    #[allow(clippy::new_without_default, reason = "makes a file")]
    pub fn new() -> Hanging {
        let program = scratch_dir().join("hanging");
        fs::copy(Bins::get().helper(), &program).expect("a copy");
        let lease = File::open(&program).expect("our file");
        const F_SETSIG: i32 = 10;
        eventually("a lease", || {
            // Refused while a child that another test has just forked has a copy of the descriptor.
            // SAFETY: the calls take numbers. The signal that reports a conflict is one that does
            // nothing.
            let leased = unsafe {
                libc::fcntl(lease.as_raw_fd(), F_SETSIG, libc::SIGURG) == 0
                    && libc::fcntl(lease.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) == 0
            };
            leased.then_some(())
        });
        Hanging { program, _lease: lease }
    }

    pub fn program(&self) -> &Path {
        &self.program
    }
}
