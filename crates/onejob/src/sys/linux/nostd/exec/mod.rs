//! What a child does between `clone` and `execve`, from one flat record.
//!
//! The record is built by the library. For a local spawn the child, sharing our memory, reads it in
//! place; for a remote one it travels to the guard in a memory file. So it is one block without
//! absolute addresses: every pointer is an offset from its start until [`Plan::relocate`].

pub(crate) mod attributes;
pub(crate) mod request;

use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use self::attributes::Attribute;
use super::{
    guard::rlimit,
    syscall::{
        self, Errno, Result, SIGPIPE, dup_above, dup_to,
        raw::{nr, syscall},
        set_cloexec, set_disposition, set_dispositions, set_mask,
    },
};

/// How far a child came. What is reported last is where it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Stage {
    /// It has run at all: not so if the kernel killed it at birth.
    Born = 1,
    Join = 2,
    Descriptors = 3,
    Limits = 4,
    Credentials = 5,
    Directory = 6,
    Group = 7,
    Hook = 8,
    Exec = 9,
    Attributes = 10,
}

/// A list in the record: where it starts and how many entries it has.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct List {
    pub(crate) at: u64,
    pub(crate) len: u64,
}

/// Descriptor `from` becomes number `to` in the program.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Mapping {
    pub(crate) from: i32,
    pub(crate) to: i32,
}

impl Mapping {
    /// The one in this word of a record.
    pub(crate) fn of(word: u64) -> Mapping {
        let [a, b, c, d, rest @ ..] = word.to_ne_bytes();
        Mapping { from: i32::from_ne_bytes([a, b, c, d]), to: i32::from_ne_bytes(rest) }
    }
}

/// A resource limit, as `prlimit64` takes it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Limit {
    pub(crate) resource: u64,
    pub(crate) values: [u64; 2],
}

/// `hook(data)` answers an error number, or 0.
pub(crate) type Hook = unsafe extern "C" fn(*mut u8) -> i32;

pub(crate) const KEEP: u32 = 0;
pub(crate) const SET: u32 = 1;
const DEFAULTS: u32 = 2;

/// The head of the record. "none" is 0 for offsets and -1 for numbers.
#[repr(C)]
pub(crate) struct ExecRequest {
    /// Offsets of the arguments, then a 0.
    pub(crate) argv: u64,
    /// Offsets of the environment's strings, then a 0.
    pub(crate) envp: u64,
    /// Offsets of the paths to try in turn.
    pub(crate) paths: List,
    /// The directory to change to.
    pub(crate) cwd: u64,
    /// [`Mapping`]s.
    pub(crate) descriptors: List,
    /// [`Limit`]s.
    pub(crate) limits: List,
    /// `gid_t`s, if `set_groups`.
    pub(crate) groups: List,
    /// [`Attribute`]s, …
    pub(crate) attributes: List,
    /// … the words of a set of CPUs to run on, …
    pub(crate) cpus: List,
    /// … and those of one `Scheduling`, or none: where they are not those of the starter.
    pub(crate) scheduling: List,
    /// What a `pre_exec` step needs; local only.
    pub(crate) hook: u64,
    pub(crate) hook_data: u64,
    pub(crate) blocked: u64,
    pub(crate) ignored: u64,
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    pub(crate) umask: i32,
    /// The process group to join (0: a new one), if `set_process_group`.
    pub(crate) process_group: i32,
    /// A directory to change to before `cwd`.
    pub(crate) cwd_fd: i32,
    /// `cgroup.procs` of the cgroup to join, where the child could not be born in it.
    pub(crate) join: i32,
    /// Where to report to; where there is none, only `stage` and `errno` below are set.
    pub(crate) report: AtomicI32,
    pub(crate) set_groups: u32,
    pub(crate) set_process_group: u32,
    /// Whether to lead a new session, instead of joining a group.
    pub(crate) new_session: u32,
    /// Whether to take the terminal on standard input, if one is there.
    pub(crate) take_terminal: u32,
    /// Whether only `SIGPIPE` is reset ([`KEEP`]), or `ignored` is the whole truth ([`SET`]), which a
    /// starter without dispositions of its own makes easy ([`DEFAULTS`]).
    pub(crate) dispositions: u32,
    /// Whether to report [`Stage::Born`], too.
    pub(crate) report_start: u32,
    pub(crate) pad: u32,
    /// The outcome, for a parent that shares this memory.
    pub(crate) stage: AtomicU32,
    pub(crate) errno: AtomicU32,
}

impl ExecRequest {
    /// Turns the offsets of a record into addresses, for its place in memory. Once only.
    ///
    /// # Safety
    /// `record` must be a whole record as the library builds it, aligned for it, and stay in place.
    pub(crate) unsafe fn relocate<'a>(record: *mut u8) -> &'a ExecRequest {
        let base = record as u64;
        // SAFETY: the caller's: a record starts with its head.
        let plan = unsafe { &mut *record.cast::<ExecRequest>() };
        for at in [&mut plan.argv, &mut plan.envp, &mut plan.paths.at] {
            *at += base;
            let mut entry = *at as *mut u64;
            // SAFETY: all three are lists of offsets that end with a 0.
            unsafe {
                while *entry != 0 {
                    *entry += base;
                    entry = entry.add(1);
                }
            }
        }
        if plan.cwd != 0 {
            plan.cwd += base;
        }
        let ExecRequest { descriptors, limits, groups, attributes, cpus, scheduling, .. } = plan;
        for list in [descriptors, limits, groups, attributes, cpus, scheduling] {
            list.at += base;
        }
        plan
    }

    /// [`relocate`](Plan::relocate) for a record that came by message, if it is a whole one. Its
    /// descriptors count from the first of `own`, those that came with it. The guard catches and ignores
    /// no signal.
    pub(crate) fn relocate_received<'a>(
        record: &'a mut [u64],
        report: i32,
        own: &[i32],
    ) -> Result<&'a ExecRequest> {
        request::check(record, own.len())?;
        let record = record.as_mut_ptr().cast::<u8>();
        // SAFETY: it was checked as a whole just now, and nothing else refers to it: nobody changes it in
        // between. The list of mappings is one of its own.
        let (plan, mappings) = unsafe {
            ExecRequest::relocate(record);
            let plan = &mut *record.cast::<ExecRequest>();
            let List { at, len } = plan.descriptors;
            (plan, core::slice::from_raw_parts_mut(at as *mut Mapping, len as usize))
        };
        let translate = |index: i32| own.get(index as usize).copied().unwrap_or(-1);
        plan.report.store(report, Ordering::Relaxed);
        plan.dispositions = if plan.dispositions == SET { DEFAULTS } else { KEEP };
        plan.cwd_fd = translate(plan.cwd_fd);
        plan.join = translate(plan.join);
        mappings.iter_mut().for_each(|mapping| mapping.from = translate(mapping.from));
        Ok(plan)
    }

    pub(crate) fn keeps_credentials(&self) -> bool {
        self.uid < 0 && self.gid < 0 && self.set_groups == 0
    }

    /// Sets everything up and executes the program; returns only to report why it could not.
    ///
    /// # Safety
    /// To be called in a fresh child only, on a relocated record.
    pub(crate) unsafe fn run(&self) -> ! {
        if self.report_start != 0 {
            self.report_stage(Stage::Born, 0);
        }
        // SAFETY: the caller's.
        let (stage, errno) = match unsafe { self.set_up() } {
            Err(failed) => failed,
            // SAFETY: as above.
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
            let _ = syscall::write(report, &both.to_ne_bytes());
        }
    }

    /// In std's order: descriptors, identity, directory, group, signals, the caller's own steps.
    unsafe fn set_up(&self) -> core::result::Result<(), (Stage, Errno)> {
        let failed = |stage| move |errno| (stage, errno);
        // "0" is whoever writes it.
        if self.join >= 0 {
            syscall::write(self.join, b"0").map_err(failed(Stage::Join))?;
        }
        if self.cwd_fd >= 0 {
            // SAFETY: changes the directory of this process.
            unsafe { syscall(nr::FCHDIR, [self.cwd_fd as usize, 0, 0, 0, 0, 0]) }
                .map_err(failed(Stage::Directory))?;
        }
        // SAFETY: the lists of a relocated record.
        unsafe {
            self.descriptors().map_err(failed(Stage::Descriptors))?;
            // What a limit forbids may be allowed before it is set, or after.
            let attributes = self.attributes();
            self.limits().map_err(failed(Stage::Limits))?;
            attributes.or_else(|_| self.attributes()).map_err(failed(Stage::Attributes))?;
            self.credentials().map_err(failed(Stage::Credentials))?;
            self.directory().map_err(failed(Stage::Directory))?;
        }
        self.group().map_err(failed(Stage::Group))?;
        self.signals();
        if self.hook != 0 {
            // SAFETY: the library put a `Hook` and its data here.
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

    /// Puts every descriptor at its number. Sources that stand where another one must go are moved
    /// out of the way first.
    ///
    /// # Safety
    /// On a relocated record.
    unsafe fn descriptors(&self) -> Result<()> {
        let List { at, len } = self.descriptors;
        // SAFETY: the record is ours alone, and holds `len` mappings there.
        let mappings = unsafe { core::slice::from_raw_parts_mut(at as *mut Mapping, len as usize) };
        let report = self.report.load(Ordering::Relaxed);
        if mappings.iter().any(|mapping| mapping.to == report) {
            self.report.store(clear_of(mappings, report)?, Ordering::Relaxed);
        }
        for index in 0..mappings.len() {
            let Some(&Mapping { from, to }) = mappings.get(index) else { break };
            if from != to && mappings.iter().any(|mapping| mapping.to == from) {
                let moved = clear_of(mappings, from)?;
                if let Some(mapping) = mappings.get_mut(index) {
                    mapping.from = moved;
                }
            }
        }
        for mapping in &*mappings {
            if mapping.from == mapping.to {
                set_cloexec(mapping.to, false)?;
            } else {
                dup_to(mapping.from, mapping.to, 0)?;
            }
        }
        Ok(())
    }

    fn attribute_list(&self) -> &[Attribute] {
        let List { at, len } = self.attributes;
        // SAFETY: the record holds `len` attributes there.
        unsafe { core::slice::from_raw_parts(at as *const Attribute, len as usize) }
    }

    /// Whether it sets something for all who share the memory of the child.
    pub(crate) fn changes_memory(&self) -> bool {
        self.attribute_list().iter().any(Attribute::is_of_memory)
    }

    /// # Safety
    /// On a relocated record.
    unsafe fn attributes(&self) -> Result<()> {
        let (cpus, scheduling) = (self.cpus, self.scheduling);
        // SAFETY: the kernel reads the lists, which the record holds.
        unsafe {
            if cpus.len > 0 {
                let bytes = 8 * cpus.len as usize;
                syscall(nr::SCHED_SETAFFINITY, [0, bytes, cpus.at as usize, 0, 0, 0])?;
            }
            if scheduling.len > 0 {
                syscall(nr::SCHED_SETATTR, [0, scheduling.at as usize, 0, 0, 0, 0])?;
            }
        }
        self.attribute_list().iter().try_for_each(Attribute::set)
    }

    /// # Safety
    /// On a relocated record.
    unsafe fn limits(&self) -> Result<()> {
        let List { at, len } = self.limits;
        // SAFETY: the record holds `len` limits there.
        let limits = unsafe { core::slice::from_raw_parts(at as *const Limit, len as usize) };
        for limit in limits {
            rlimit::set(limit.resource, limit.values)?;
        }
        if self.umask >= 0 {
            // SAFETY: sets a number of this process.
            unsafe { syscall(nr::UMASK, [self.umask as usize, 0, 0, 0, 0, 0]) }?;
        }
        Ok(())
    }

    /// The bare system calls: a C library's would change the threads of a parent whose memory we
    /// share.
    ///
    /// # Safety
    /// On a relocated record.
    unsafe fn credentials(&self) -> Result<()> {
        // SAFETY: the calls take numbers, and a list of `len` group ids that the record holds.
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
    /// On a relocated record.
    unsafe fn directory(&self) -> Result<()> {
        if self.cwd == 0 {
            return Ok(());
        }
        // SAFETY: the record holds a NUL-terminated path there.
        unsafe { syscall(nr::CHDIR, [self.cwd as usize, 0, 0, 0, 0, 0]) }.map(drop)
    }

    fn group(&self) -> Result<()> {
        let group = self.process_group as usize;
        // SAFETY: both change the place of this process alone.
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

    /// As the session's controlling terminal, or for the foreground. What is no terminal of ours
    /// stays as it is. All signals are blocked, so nobody is stopped for asking.
    fn take_terminal(&self) {
        const TIOCSCTTY: usize = 0x540e;
        const TIOCSPGRP: usize = 0x5410;
        let (request, group) = match self.new_session {
            0 => (TIOCSPGRP, syscall::own_group()),
            _ => (TIOCSCTTY, 0),
        };
        let argument = if self.new_session == 0 { &raw const group as usize } else { 0 };
        // SAFETY: the one request reads a live number, the other takes a plain 0.
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

    /// `execvp(3)` with the search path resolved beforehand; answers why nothing was executed.
    ///
    /// # Safety
    /// On a relocated record.
    unsafe fn execute(&self) -> Errno {
        let List { at, len } = self.paths;
        // SAFETY: the record holds `len` addresses of NUL-terminated paths there.
        let paths = unsafe { core::slice::from_raw_parts(at as *const *const u8, len as usize) };
        let mut why = Errno::NOENT;
        let mut forbidden = false;
        for path in paths {
            let args = [*path as usize, self.argv as usize, self.envp as usize, 0, 0, 0];
            // SAFETY: lists of addresses that end with a null, of strings that end with a NUL.
            match unsafe { syscall(nr::EXECVE, args) } {
                Err(Errno::ACCES) => forbidden = true,
                Err(
                    error @ (Errno::NOENT
                    | Errno::NOTDIR
                    | Errno::STALE
                    | Errno::NODEV
                    | Errno::TIMEDOUT),
                ) => why = error,
                Err(error) => return error,
                Ok(_) => {}
            }
        }
        if forbidden { Errno::ACCES } else { why }
    }
}

/// Where a child that shares its parent's memory begins.
///
/// # Safety
/// As [`Plan::run`], of which `record` is the head.
pub(crate) unsafe extern "C" fn start(record: *mut u8) -> ! {
    // SAFETY: the caller's.
    unsafe { (*record.cast::<ExecRequest>()).run() }
}

/// A copy of a descriptor at a number, as low as can be, that is nobody's target.
fn clear_of(mappings: &[Mapping], from: i32) -> Result<i32> {
    let mut least = 3;
    loop {
        let copy = dup_above(from, least)?;
        if !mappings.iter().any(|mapping| mapping.to == copy) {
            return Ok(copy);
        }
        syscall::close(copy);
        least = copy + 1;
    }
}
