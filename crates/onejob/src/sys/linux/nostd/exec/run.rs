//! The steps of a child from `clone` to `execve`.

use core::sync::atomic::Ordering;

use super::{
    super::syscall::{
        self, BorrowedFd, Errno, Result, SIGPIPE, SchedAttr, dup_above, dup_to,
        raw::{nr, syscall},
        set_cloexec, set_cpus, set_disposition, set_dispositions, set_mask, set_rlimit,
    },
    attributes::Attribute,
    request::{DEFAULTS, ExecRequest, Hook, Limit, List, Mapping, SET, Stage},
};

impl ExecRequest {
    /// Prepares the process and executes the program. If that fails, it reports the error and exits.
    ///
    /// # Safety
    /// To be called in a new child only, which has its own table of descriptors, on a relocated request whose
    /// descriptors are open in that table.
    pub(crate) unsafe fn run(&self) -> ! {
        if self.report_start != 0 {
            self.report_stage(Stage::Born, 0);
        }
        // SAFETY: the caller guarantees that this is a new child with a relocated request.
        let (stage, errno) = match unsafe { self.set_up() } {
            Err(failed) => failed,
            // SAFETY: the caller guarantees that the request is relocated.
            Ok(()) => (Stage::Exec, unsafe { self.execute() }),
        };
        self.report_stage(stage, errno.0);
        syscall::exit(127)
    }

    fn report_stage(&self, stage: Stage, errno: i32) {
        self.stage.store(stage as u32, Ordering::Relaxed);
        self.errno.store(errno as u32, Ordering::Release);
        let report = self.report.load(Ordering::Relaxed);
        if report >= 0 {
            let both = u64::from(stage as u32) << 32 | u64::from(errno as u32);
            // SAFETY: `run` requires that the descriptor is open in this child.
            let report = unsafe { BorrowedFd::borrow_raw(report) };
            let _ = syscall::write(report, &both.to_ne_bytes());
        }
    }

    /// In the order of std: descriptors, credentials, directory, group, signals, the steps of the caller.
    ///
    /// # Safety
    /// As for [`run`](ExecRequest::run).
    unsafe fn set_up(&self) -> core::result::Result<(), (Stage, Errno)> {
        let failed = |stage| move |errno| (stage, errno);
        if self.join >= 0 {
            // SAFETY: `run` requires that the descriptor is open in this child.
            let procs = unsafe { BorrowedFd::borrow_raw(self.join) };
            // "0" stands for the process that writes it.
            syscall::write(procs, b"0").map_err(failed(Stage::Join))?;
        }
        if self.cwd_fd >= 0 {
            // SAFETY: no pointer is passed.
            unsafe { syscall(nr::FCHDIR, [self.cwd_fd as usize, 0, 0, 0, 0, 0]) }
                .map_err(failed(Stage::Directory))?;
        }
        // SAFETY: the caller guarantees that this is a new child with a relocated request.
        unsafe {
            self.descriptors().map_err(failed(Stage::Descriptors))?;
            // A limit can forbid an attribute before it is set, or after. So both orders are tried.
            let attributes = self.attributes();
            self.limits().map_err(failed(Stage::Limits))?;
            attributes.or_else(|_| self.attributes()).map_err(failed(Stage::Attributes))?;
            self.credentials().map_err(failed(Stage::Credentials))?;
            self.directory().map_err(failed(Stage::Directory))?;
        }
        self.group().map_err(failed(Stage::Group))?;
        self.signals();
        if self.hook != 0 {
            // SAFETY: the library has stored a `Hook` and its data; `check` refuses both in a message.
            let errno = unsafe {
                let hook: Hook = core::mem::transmute(self.hook as usize);
                hook(self.hook_data as *mut u8)
            };
            if errno != 0 {
                return Err((Stage::Hook, Errno(errno)));
            }
        }
        Ok(())
    }

    /// Copies every descriptor to its number. First it moves sources whose number is the target of another one.
    ///
    /// # Safety
    /// As for [`run`](ExecRequest::run).
    unsafe fn descriptors(&self) -> Result<()> {
        let List { at, len } = self.descriptors;
        // SAFETY: a relocated request has `len` mappings at this address, and only this child accesses them.
        let mappings = unsafe { core::slice::from_raw_parts_mut(at as *mut Mapping, len as usize) };
        let report = self.report.load(Ordering::Relaxed);
        if mappings.iter().any(|mapping| mapping.to == report) {
            // SAFETY: `run` requires that the descriptor is open in this child.
            self.report.store(unsafe { clear_of(mappings, report) }?, Ordering::Relaxed);
        }
        for index in 0..mappings.len() {
            let Some(&Mapping { from, to }) = mappings.get(index) else { break };
            if from != to && mappings.iter().any(|mapping| mapping.to == from) {
                // SAFETY: `run` requires that the descriptor is open in this child.
                let moved = unsafe { clear_of(mappings, from) }?;
                if let Some(mapping) = mappings.get_mut(index) {
                    mapping.from = moved;
                }
            }
        }
        for mapping in &*mappings {
            // SAFETY: `run` requires that the descriptor is open in this child.
            let from = unsafe { BorrowedFd::borrow_raw(mapping.from) };
            if mapping.from == mapping.to {
                set_cloexec(from, false)?;
            } else {
                // SAFETY: only this function uses descriptors of this child. The report and the sources that
                // are left do not have the number of a target: they were moved.
                unsafe { dup_to(from, mapping.to) }?;
            }
        }
        Ok(())
    }

    /// # Safety
    /// On a relocated request.
    unsafe fn attributes(&self) -> Result<()> {
        if self.cpus.len > 0 {
            let List { at, len } = self.cpus;
            // SAFETY: a relocated request has `len` words at this address.
            set_cpus(unsafe { core::slice::from_raw_parts(at as *const u64, len as usize) })?;
        }
        if self.scheduling.len > 0 {
            // SAFETY: a relocated request has one `SchedAttr` at this address, aligned to 8 bytes.
            unsafe { &*(self.scheduling.at as *const SchedAttr) }.set()?;
        }
        self.attribute_list().iter().try_for_each(Attribute::set)
    }

    /// # Safety
    /// On a relocated request.
    unsafe fn limits(&self) -> Result<()> {
        let List { at, len } = self.limits;
        // SAFETY: a relocated request has `len` limits at this address.
        let limits = unsafe { core::slice::from_raw_parts(at as *const Limit, len as usize) };
        for limit in limits {
            set_rlimit(limit.resource, limit.values)?;
        }
        if self.umask >= 0 {
            // SAFETY: no pointer is passed.
            unsafe { syscall(nr::UMASK, [self.umask as usize, 0, 0, 0, 0, 0]) }?;
        }
        Ok(())
    }

    /// By system calls: the functions of a C library would change all threads of a parent that shares the
    /// memory.
    ///
    /// # Safety
    /// On a relocated request.
    unsafe fn credentials(&self) -> Result<()> {
        // SAFETY: the only pointer is that of `len` group ids, which a relocated request has there.
        unsafe {
            let groups = self.groups;
            if self.set_groups != 0 {
                let (len, at) = (groups.len as usize, groups.at as usize);
                syscall(nr::SETGROUPS, [len, at, 0, 0, 0, 0])?;
            }
            if self.gid >= 0 {
                syscall(nr::SETGID, [self.gid as usize, 0, 0, 0, 0, 0])?;
            }
            if self.uid >= 0 {
                let is_root = syscall(nr::GETUID, [0; 6])? == 0;
                if is_root && self.set_groups == 0 {
                    syscall(nr::SETGROUPS, [0; 6])?;
                }
                syscall(nr::SETUID, [self.uid as usize, 0, 0, 0, 0, 0])?;
            }
        }
        Ok(())
    }

    /// # Safety
    /// On a relocated request.
    unsafe fn directory(&self) -> Result<()> {
        if self.cwd == 0 {
            return Ok(());
        }
        // SAFETY: a relocated request has a path that ends with NUL at this address.
        unsafe { syscall(nr::CHDIR, [self.cwd as usize, 0, 0, 0, 0, 0]) }.map(drop)
    }

    fn group(&self) -> Result<()> {
        let group = self.process_group as usize;
        // SAFETY: no pointer is passed.
        unsafe {
            if self.new_session != 0 {
                syscall(nr::SETSID, [0; 6])?;
            } else if self.set_process_group != 0 {
                syscall(nr::SETPGID, [0, group, 0, 0, 0, 0])?;
            }
        }
        if self.take_terminal != 0 {
            self.take_terminal();
        }
        Ok(())
    }

    /// Makes the terminal on standard input the controlling terminal of a new session, or the group of this
    /// process its foreground group. Without effect if it is not a terminal of this session. All signals are
    /// blocked, so the kernel does not stop this process for it.
    fn take_terminal(&self) {
        const TIOCSCTTY: usize = 0x540e;
        const TIOCSPGRP: usize = 0x5410;
        let (request, group) = match self.new_session {
            0 => (TIOCSPGRP, syscall::own_group()),
            _ => (TIOCSCTTY, 0),
        };
        let argument = if self.new_session == 0 { &raw const group as usize } else { 0 };
        // SAFETY: the one request reads `group`, which is alive; the other takes 0.
        let _ = unsafe { syscall(nr::IOCTL, [0, request, argument, 0, 0, 0]) };
    }

    fn signals(&self) {
        match self.dispositions {
            SET => set_dispositions(self.ignored),
            DEFAULTS => {
                let ignored = (1..=64).filter(|signal| self.ignored & (1 << (signal - 1)) != 0);
                ignored.for_each(|signal| set_disposition(signal, true));
            }
            _ => set_disposition(SIGPIPE, false),
        }
        set_mask(self.blocked);
    }

    /// `execvp(3)` with paths that were resolved before. Returns why it failed.
    ///
    /// # Safety
    /// On a relocated request.
    unsafe fn execute(&self) -> Errno {
        let List { at, len } = self.paths;
        // SAFETY: a relocated request has `len` addresses of paths that end with NUL at this address.
        let paths = unsafe { core::slice::from_raw_parts(at as *const *const u8, len as usize) };
        let mut last = Errno::NOENT;
        let mut forbidden = false;
        for path in paths {
            let args = [*path as usize, self.argv as usize, self.envp as usize, 0, 0, 0];
            // SAFETY: a relocated request has two lists of addresses that end with 0, of strings that end with
            // NUL.
            match unsafe { syscall(nr::EXECVE, args) } {
                Err(Errno::ACCES) => forbidden = true,
                Err(
                    error @ (Errno::NOENT
                    | Errno::NOTDIR
                    | Errno::STALE
                    | Errno::NODEV
                    | Errno::TIMEDOUT),
                ) => last = error,
                Err(error) => return error,
                Ok(_) => {}
            }
        }
        if forbidden { Errno::ACCES } else { last }
    }
}

/// The entry of a child that shares the memory of its parent.
///
/// # Safety
/// As for [`ExecRequest::run`], on the request at `record`.
pub(crate) unsafe extern "C" fn start(record: *mut u8) -> ! {
    // SAFETY: the caller guarantees that this is a new child and `record` points to a relocated request.
    unsafe { (*record.cast::<ExecRequest>()).run() }
}

/// Copies a descriptor to the lowest number that is not the target of a mapping.
///
/// # Safety
/// `from` must be an open descriptor.
unsafe fn clear_of(mappings: &[Mapping], from: i32) -> Result<i32> {
    // SAFETY: the caller guarantees that the descriptor is open.
    let from = unsafe { BorrowedFd::borrow_raw(from) };
    let mut least = 3;
    loop {
        let copy = dup_above(from, least)?;
        if !mappings.iter().any(|mapping| mapping.to == copy.raw()) {
            return Ok(copy.into_raw());
        }
        least = copy.raw() + 1;
    }
}
