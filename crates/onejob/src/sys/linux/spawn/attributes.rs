//! What a child inherits of its parent's scheduling and memory settings, to be compared with the guard's.
//!
//! What cannot be read here is not passed on: a kernel without such a setting, or a seccomp filter.

use crate::sys::linux::{
    file::read_proc,
    nostd::{
        exec::attributes::{
            Attribute, COREDUMP_FILTER, IO_PRIORITY, KINDS, OOM_SCORE_ADJ, PERSONALITY,
            THP_DISABLE, TIMER_SLACK, WRITE_XOR_EXECUTE,
        },
        syscall::{
            SCHED_DEADLINE, SCHED_FIFO, SCHED_FLAG_RESET_ON_FORK, SCHED_RR, SchedAttr,
            raw::{nr, syscall},
        },
    },
};

/// What a child of a process has of these settings.
#[derive(PartialEq, Eq, Default)]
pub(crate) struct Attributes {
    /// As `/proc/PID/status` shows them.
    cpus: String,
    scheduling: Option<SchedAttr>,
    /// By their kind, which counts from 1.
    others: [Option<i64>; KINDS],
}

/// Where a child is to differ from the guard that starts it.
#[derive(Clone, Default)]
pub(crate) struct Changed {
    pub(crate) cpus: Vec<u64>,
    pub(crate) scheduling: Vec<u64>,
    pub(crate) others: Vec<Attribute>,
}

impl Attributes {
    /// Those that a child of the calling thread would have, or with a number those of the process called
    /// `entry` in `/proc`. `cpus` and `has_huge_pages` are what its status says.
    pub(crate) fn read(
        entry: &str,
        pid: i32,
        cpus: &str,
        has_huge_pages: Option<bool>,
    ) -> Attributes {
        let mut attributes = Attributes { cpus: cpus.to_owned(), ..Attributes::default() };
        attributes.scheduling = scheduling(pid);
        let process = if pid == 0 { "self" } else { entry };
        let file = |name: &str| read_proc(&format!("/proc/{process}/{name}")).ok();
        // SAFETY: the calls take numbers only.
        let number = |call: usize, args| unsafe { syscall(call, args) }.ok().map(|it| it as i64);
        let own = |call: usize, args| if pid == 0 { number(call, args) } else { None };
        const PR_GET_TIMERSLACK: usize = 30;
        const PR_GET_THP_DISABLE: usize = 42;
        const PR_GET_MDWE: usize = 66;
        const NOT_INHERITED: i64 = 2;
        const IOPRIO_WHO_PROCESS: usize = 1;
        const ASK: usize = 0xffff_ffff;
        let decimal = |text: String| text.trim().parse::<i64>().ok();
        let hexadecimal = |text: String| i64::from_str_radix(text.trim(), 16).ok();
        let huge_pages = match has_huge_pages {
            Some(true) => Some(0),
            Some(false) => own(nr::PRCTL, [PR_GET_THP_DISABLE, 0, 0, 0, 0, 0]),
            None => None,
        };
        let all = [
            (IO_PRIORITY, number(nr::IOPRIO_GET, [IOPRIO_WHO_PROCESS, pid as usize, 0, 0, 0, 0])),
            (PERSONALITY, own(nr::PERSONALITY, [ASK, 0, 0, 0, 0, 0])),
            // Realtime threads have none, which others cannot have: 0 would set the default.
            (TIMER_SLACK, own(nr::PRCTL, [PR_GET_TIMERSLACK, 0, 0, 0, 0, 0]).map(|ns| ns.max(1))),
            (THP_DISABLE, huge_pages),
            (
                WRITE_XOR_EXECUTE,
                own(nr::PRCTL, [PR_GET_MDWE, 0, 0, 0, 0, 0])
                    .map(|bits| if bits & NOT_INHERITED == 0 { bits } else { 0 }),
            ),
            (OOM_SCORE_ADJ, file("oom_score_adj").and_then(decimal)),
            (COREDUMP_FILTER, file("coredump_filter").and_then(hexadecimal)),
        ];
        for (kind, value) in all {
            if let Some(slot) = attributes.others.get_mut(kind as usize - 1) {
                *slot = value;
            }
        }
        attributes
    }

    /// Whether a process like this can have children at all.
    pub(crate) fn can_fork(&self) -> bool {
        self.scheduling.is_none_or(|attr| attr.policy != SCHED_DEADLINE)
    }

    /// What of these a process that has the others must be given.
    pub(crate) fn changed_from(&self, other: &Attributes) -> Changed {
        let mut changed = Changed::default();
        if self.cpus != other.cpus {
            changed.cpus = mask(&self.cpus);
        }
        if let Some(scheduling) = self.scheduling
            && self.scheduling != other.scheduling
        {
            changed.scheduling = scheduling.to_words().to_vec();
        }
        let pairs = self.others.iter().zip(&other.others);
        let differing = pairs.enumerate().filter(|(_, (ours, theirs))| ours != theirs);
        changed.others = differing
            .filter_map(|(at, (ours, _))| Some(Attribute { kind: at as u64 + 1, value: (*ours)? }))
            .collect();
        changed
    }
}

/// The scheduling of a child of this process (0: of the calling thread), see `sched(7)`.
fn scheduling(pid: i32) -> Option<SchedAttr> {
    let mut attr = SchedAttr::of(pid).ok()?;
    if attr.flags & SCHED_FLAG_RESET_ON_FORK != 0 {
        attr.flags &= !SCHED_FLAG_RESET_ON_FORK;
        if matches!(attr.policy, SCHED_FIFO | SCHED_RR | SCHED_DEADLINE) {
            attr = SchedAttr { flags: attr.flags, ..SchedAttr::default() };
        } else if attr.nice < 0 {
            (attr.nice, attr.priority) = (0, 0);
        }
    }
    Some(SchedAttr { size: SchedAttr::SIZE, ..attr })
}

fn word([first, second]: [u32; 2]) -> u64 {
    super::request::pair(first, second)
}

/// A set of CPUs as `/proc/PID/status` prints it: 32 in a group, the highest first.
fn mask(cpus: &str) -> Vec<u64> {
    let groups = cpus.trim().rsplit(',').map(|group| u32::from_str_radix(group, 16).unwrap_or(0));
    let groups: Vec<u32> = groups.collect();
    groups.chunks(2).map(|two| word([two[0], *two.get(1).unwrap_or(&0)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_of_cpus() {
        assert_eq!(mask("\t3\n"), [3]);
        assert_eq!(mask("1,80000000,0000000f\n"), [0x8000_0000_0000_000f, 1]);
    }

    #[test]
    fn a_thread_differs_in_nothing_from_itself() {
        let read = || Attributes::read("self", 0, "3", Some(true));
        let Changed { cpus, scheduling, others } = read().changed_from(&read());
        assert!(cpus.is_empty() && scheduling.is_empty() && others.is_empty());
        assert!(read().can_fork() && read().others[IO_PRIORITY as usize - 1].is_some());
    }
}
