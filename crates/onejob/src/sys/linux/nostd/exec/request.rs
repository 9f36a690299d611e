//! The flat request that the library builds for a child.

use core::sync::atomic::{AtomicI32, AtomicU32};

#[allow(unused_imports, reason = "for the documentation")]
use super::super::syscall::SchedAttr;
use super::attributes::Attribute;

/// The steps of a child. The last one that it reports is the one that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Stage {
    /// It runs. Not reported if the kernel killed it as it entered its cgroup.
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

/// A list in the request: its offset and how many entries it has.
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
    /// The mapping in a word of a request.
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

/// A step of the caller, which returns an error number or 0.
pub(crate) type Hook = unsafe extern "C" fn(*mut u8) -> i32;

/// The values of [`ExecRequest::dispositions`].
pub(crate) const KEEP: u32 = 0;
pub(crate) const SET: u32 = 1;
pub(super) const DEFAULTS: u32 = 2;

/// The head of the request. Without a value, offsets are 0 and numbers are -1.
#[repr(C)]
pub(crate) struct ExecRequest {
    /// Offsets of the arguments, then a 0.
    pub(crate) argv: u64,
    /// Offsets of the strings of the environment, then a 0.
    pub(crate) envp: u64,
    /// Offsets of the paths, which are tried in this order.
    pub(crate) paths: List,
    /// The directory to change to.
    pub(crate) cwd: u64,
    /// [`Mapping`]s.
    pub(crate) descriptors: List,
    /// [`Limit`]s.
    pub(crate) limits: List,
    /// `gid_t`s, if `set_groups`.
    pub(crate) groups: List,
    /// [`Attribute`]s that differ from those of the parent.
    pub(crate) attributes: List,
    /// The words of a set of CPUs, if it differs from that of the parent.
    pub(crate) cpus: List,
    /// The words of one [`SchedAttr`], if the scheduling differs from that of the parent.
    pub(crate) scheduling: List,
    /// The `pre_exec` steps and their data: only if the child shares or copies the memory of the owner.
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
    /// `cgroup.procs` of the cgroup to join, if the child was not created in it.
    pub(crate) join: i32,
    /// The descriptor for reports. The child also sets `stage` and `errno` below.
    pub(crate) report: AtomicI32,
    pub(crate) set_groups: u32,
    pub(crate) set_process_group: u32,
    /// Whether to lead a new session, instead of joining a group.
    pub(crate) new_session: u32,
    /// Whether to take the terminal on standard input, if that is one.
    pub(crate) take_terminal: u32,
    /// [`KEEP`]: reset only `SIGPIPE`. [`SET`]: ignore the signals of `ignored` and reset all others.
    /// [`DEFAULTS`]: the same, for a child whose parent has only default dispositions.
    pub(crate) dispositions: u32,
    /// Whether to report [`Stage::Born`], too.
    pub(crate) report_start: u32,
    pub(crate) pad: u32,
    /// The last report, for a parent that shares this memory.
    pub(crate) stage: AtomicU32,
    pub(crate) errno: AtomicU32,
}

impl ExecRequest {
    /// Turns the offsets of a request into addresses. To be called once.
    ///
    /// # Safety
    /// `record` must point to a whole request as the library builds it, aligned to 8 bytes. It must stay in
    /// place, and only the result may access it.
    pub(crate) unsafe fn relocate<'a>(record: *mut u8) -> &'a ExecRequest {
        let base = record as u64;
        // SAFETY: the caller guarantees that this is a request, which begins with its head.
        let head = unsafe { &mut *record.cast::<ExecRequest>() };
        for at in [&mut head.argv, &mut head.envp, &mut head.paths.at] {
            *at += base;
            let mut entry = *at as *mut u64;
            // SAFETY: the caller guarantees that these are three lists of offsets that end with a 0.
            unsafe {
                while *entry != 0 {
                    *entry += base;
                    entry = entry.add(1);
                }
            }
        }
        if head.cwd != 0 {
            head.cwd += base;
        }
        let ExecRequest { descriptors, limits, groups, attributes, cpus, scheduling, .. } = head;
        for list in [descriptors, limits, groups, attributes, cpus, scheduling] {
            list.at += base;
        }
        head
    }

    pub(crate) fn keeps_credentials(&self) -> bool {
        self.uid < 0 && self.gid < 0 && self.set_groups == 0
    }

    pub(super) fn attribute_list(&self) -> &[Attribute] {
        let List { at, len } = self.attributes;
        // SAFETY: a relocated request has `len` attributes at this address.
        unsafe { core::slice::from_raw_parts(at as *const Attribute, len as usize) }
    }

    /// Whether the child sets attributes of its memory, and so of every process that shares it.
    pub(crate) fn changes_memory(&self) -> bool {
        self.attribute_list().iter().any(Attribute::is_of_memory)
    }
}
