//! Attributes that a child inherits, besides credentials and limits. The child of a guard would inherit those of
//! the guard, so the request has those of the caller that differ.

use super::super::{
    procfs::CStrBuf,
    syscall::{
        self, CStr, CWD, Errno, O_WRONLY, Result,
        raw::{nr, syscall},
    },
};

/// `ioprio_set(2)`.
pub(crate) const IO_PRIORITY: u64 = 1;
/// `personality(2)`.
pub(crate) const PERSONALITY: u64 = 2;
/// Nanoseconds (`PR_SET_TIMERSLACK(2const)`).
pub(crate) const TIMER_SLACK: u64 = 3;
/// The argument and the flags of `PR_SET_THP_DISABLE(2const)`, which have no bit in common. This and the
/// following kinds are attributes of a memory, and so of every process that shares it.
pub(crate) const THP_DISABLE: u64 = 4;
/// `proc_pid_oom_score_adj(5)`.
pub(crate) const OOM_SCORE_ADJ: u64 = 5;
/// `core(5)`.
pub(crate) const COREDUMP_FILTER: u64 = 6;

/// Whether memory can be either written or executed (`PR_SET_MDWE(2const)`).
pub(crate) const WRITE_XOR_EXECUTE: u64 = 7;

/// How many kinds there are. They count from 1.
pub(crate) const KINDS: usize = 7;

/// An attribute of one of these kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(crate) struct Attribute {
    pub(crate) kind: u64,
    pub(crate) value: i64,
}

impl Attribute {
    /// Whether setting it affects every process that shares the memory.
    pub(crate) fn is_of_memory(&self) -> bool {
        self.kind >= THP_DISABLE
    }

    /// Sets it for the calling process.
    pub(crate) fn set(&self) -> Result<()> {
        const PR_SET_TIMERSLACK: usize = 29;
        const PR_SET_THP_DISABLE: usize = 41;
        const PR_SET_MDWE: usize = 65;
        const IOPRIO_WHO_PROCESS: usize = 1;
        let value = self.value as usize;
        let (number, args) = match self.kind {
            IO_PRIORITY => (nr::IOPRIO_SET, [IOPRIO_WHO_PROCESS, 0, value, 0, 0, 0]),
            PERSONALITY => (nr::PERSONALITY, [value, 0, 0, 0, 0, 0]),
            TIMER_SLACK => (nr::PRCTL, [PR_SET_TIMERSLACK, value, 0, 0, 0, 0]),
            THP_DISABLE => (nr::PRCTL, [PR_SET_THP_DISABLE, value & 1, value & !1, 0, 0, 0]),
            WRITE_XOR_EXECUTE => (nr::PRCTL, [PR_SET_MDWE, value, 0, 0, 0, 0]),
            OOM_SCORE_ADJ => return self.write(c"/proc/self/oom_score_adj"),
            COREDUMP_FILTER => return self.write(c"/proc/self/coredump_filter"),
            _ => return Err(Errno::BADMSG),
        };
        // SAFETY: no pointer is passed.
        unsafe { syscall(number, args) }.map(drop)
    }

    fn write(&self, file: &CStr) -> Result<()> {
        let file = syscall::openat(CWD, file, O_WRONLY)?;
        let sign: &[u8] = if self.value < 0 { b"-" } else { b"" };
        let text = CStrBuf::new().text(sign).number(self.value as i32);
        syscall::write(file, text.as_c_str().to_bytes()).map(drop)
    }
}
