//! Limits on the resources that a job may use.

use std::{fmt, str::FromStr, time::Duration};

use crate::{Error, Result};

/// Limits on the resources that all members of a job together may use; `None` means not limited.
///
/// Every limit applies to the whole job, including future members. A limit that cannot be enforced
/// on the whole job is an error: it is never ignored and never turned into a limit on each process.
/// [`Guarantees::limits`](crate::Guarantees::limits) returns the limits that a job supports.
///
/// ```
/// use onejob::Limits;
/// let limits = Limits::new().memory_max(2 << 30).cpu_max(1.5).processes_max(200);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Memory in bytes, including file caches. At the limit, the kernel first reclaims file caches,
    /// then moves memory to swap space ([`swap_max`](Limits::swap_max)), then kills members;
    /// [`on_oom`](Limits::on_oom) selects which members.
    ///
    /// On Linux, if all members are killed together, a child is started with a copy of the owner's
    /// memory instead of sharing it, because the kernel also kills every process that shares memory
    /// with a victim. This takes longer the more memory the owner uses.
    pub memory_max: Option<u64>,
    /// Swap space in bytes, in addition to [`memory_max`](Limits::memory_max); 0 means no swap, `None`
    /// means not limited.
    pub swap_max: Option<u64>,
    /// The members that the kernel kills when a member needs memory and none is free.
    pub on_oom: OnOom,
    /// CPU bandwidth, in CPUs: 1.5 is one and a half of them.
    pub cpu_max: Option<f64>,
    /// The share of CPU time relative to other processes when the CPUs are busy: 1 to 10000; the
    /// default of other groups of processes is 100.
    pub cpu_weight: Option<u32>,
    /// The share of device bandwidth when a device is busy, as [`cpu_weight`](Limits::cpu_weight).
    pub io_weight: Option<u32>,
    /// The number of live processes and threads, as the kernel counts them.
    pub processes_max: Option<u32>,
    /// Total CPU time of all members, live and dead. The job is killed when it is used up, and
    /// accepts no new members afterwards. Not available for an enclosed job, because the caller would
    /// be killed, too.
    pub cpu_time_max: Option<Duration>,
    /// The CPUs that members run on: bit N stands for CPU N. Windows only.
    pub affinity: Option<u64>,
}

/// The members that the kernel kills when a job is out of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnOom {
    /// All members together, because a job usually cannot go on with some members missing.
    #[default]
    KillAll,
    /// One member, which the kernel chooses.
    KillOne,
}

impl Limits {
    /// Nothing set.
    pub fn new() -> Limits {
        Limits::default()
    }

    /// Limits memory, in bytes.
    pub fn memory_max(mut self, bytes: u64) -> Limits {
        self.memory_max = Some(bytes);
        self
    }

    /// Limits swap space, in bytes; 0 means no swap.
    pub fn swap_max(mut self, bytes: u64) -> Limits {
        self.swap_max = Some(bytes);
        self
    }

    /// Selects the members that the kernel kills when the job is out of memory.
    pub fn on_oom(mut self, victims: OnOom) -> Limits {
        self.on_oom = victims;
        self
    }

    /// Limits CPU bandwidth, in CPUs.
    pub fn cpu_max(mut self, cpus: f64) -> Limits {
        self.cpu_max = Some(cpus);
        self
    }

    /// Sets the share of CPU time when the CPUs are busy, 1 to 10000.
    pub fn cpu_weight(mut self, weight: u32) -> Limits {
        self.cpu_weight = Some(weight);
        self
    }

    /// Sets the share of device bandwidth when a device is busy, 1 to 10000.
    pub fn io_weight(mut self, weight: u32) -> Limits {
        self.io_weight = Some(weight);
        self
    }

    /// Limits the number of live processes and threads.
    pub fn processes_max(mut self, count: u32) -> Limits {
        self.processes_max = Some(count);
        self
    }

    /// Limits the total CPU time.
    pub fn cpu_time_max(mut self, time: Duration) -> Limits {
        self.cpu_time_max = Some(time);
        self
    }

    /// Limits which CPUs members run on.
    pub fn affinity(mut self, cpus: u64) -> Limits {
        self.affinity = Some(cpus);
        self
    }

    /// The resources that have a limit.
    pub fn resources(&self) -> Resources {
        let set = [
            (self.memory_max.is_some(), Resources::MEMORY),
            (self.cpu_max.is_some(), Resources::CPU),
            (self.processes_max.is_some(), Resources::PROCESSES),
            (self.cpu_time_max.is_some(), Resources::CPU_TIME),
            (self.affinity.is_some(), Resources::AFFINITY),
            (self.swap_max.is_some(), Resources::SWAP),
            (self.cpu_weight.is_some(), Resources::CPU_WEIGHT),
            (self.io_weight.is_some(), Resources::IO_WEIGHT),
        ];
        let wanted = set.into_iter().filter(|(wanted, _)| *wanted);
        wanted.fold(Resources::NONE, |all, (_, resource)| all.with(resource))
    }

    /// Refuses values with which no process could run.
    pub(crate) fn check(&self) -> Result<()> {
        const LEAST_CPUS: f64 = 0.001;
        let zero = |what: &str| {
            Err(Error::invalid(format!("invalid limit 0 for {what}: no process could run")))
        };
        let weights = [self.cpu_weight, self.io_weight];
        if let Some(weight) = weights.into_iter().flatten().find(|w| !(1..=10_000).contains(w)) {
            return Err(Error::invalid(format!("invalid weight {weight}"))
                .with_hint("a weight is a number from 1 to 10000"));
        }
        match self {
            Limits { affinity: Some(0), .. } => zero("CPUs"),
            Limits { memory_max: Some(0), .. } => zero("memory"),
            Limits { processes_max: Some(0), .. } => zero("processes"),
            Limits { cpu_time_max: Some(Duration::ZERO), .. } => zero("CPU time"),
            Limits { cpu_max: Some(cpus), .. } if !(cpus.is_finite() && *cpus > 0.0) => {
                Err(Error::invalid(format!("invalid number of CPUs {cpus}"))
                    .with_hint("a number above 0, for example 0.5 or 2"))
            }
            Limits { cpu_max: Some(cpus), .. } if *cpus < LEAST_CPUS => {
                Err(Error::invalid(format!("the limit of {cpus} CPUs is too low"))
                    .with_hint(format!("the minimum is {LEAST_CPUS}")))
            }
            _ => Ok(()),
        }
    }
}

/// A set of resources that a job can limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Resources(u8);

impl Resources {
    /// The empty set.
    pub const NONE: Resources = Resources(0);
    /// Memory.
    pub const MEMORY: Resources = Resources(1);
    /// CPU bandwidth.
    pub const CPU: Resources = Resources(2);
    /// Processes and threads alive at once.
    pub const PROCESSES: Resources = Resources(4);
    /// Total CPU time.
    pub const CPU_TIME: Resources = Resources(8);
    /// Swap space.
    pub const SWAP: Resources = Resources(16);
    /// The share of CPU time when the CPUs are busy.
    pub const CPU_WEIGHT: Resources = Resources(32);
    /// The share of device bandwidth when a device is busy.
    pub const IO_WEIGHT: Resources = Resources(64);
    /// The CPUs that members run on.
    pub const AFFINITY: Resources = Resources(128);

    const WORDS: &[(&str, Resources)] = &[
        ("memory", Resources::MEMORY),
        ("cpu", Resources::CPU),
        ("processes", Resources::PROCESSES),
        ("cpu-time", Resources::CPU_TIME),
        ("affinity", Resources::AFFINITY),
        ("swap", Resources::SWAP),
        ("cpu-weight", Resources::CPU_WEIGHT),
        ("io-weight", Resources::IO_WEIGHT),
    ];

    /// Each resource, in a set of its own.
    pub fn each() -> impl Iterator<Item = Resources> {
        Self::WORDS.iter().map(|(_, resource)| *resource)
    }

    /// The union of both sets.
    pub const fn with(self, other: Resources) -> Resources {
        Resources(self.0 | other.0)
    }

    /// The resources in this set that are not in the other.
    pub const fn without(self, other: Resources) -> Resources {
        Resources(self.0 & !other.0)
    }

    /// Whether this set contains every resource of the other.
    pub const fn contains(self, other: Resources) -> bool {
        other.without(self).is_empty()
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Self::WORDS.iter().filter(|(_, resource)| self.contains(*resource));
        let words: Vec<_> = words.map(|(word, _)| *word).collect();
        f.pad(&if words.is_empty() { "none".to_owned() } else { words.join(",") })
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// From words separated by commas: `memory,cpu`.
impl FromStr for Resources {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Resources::NONE);
        }
        text.split(',').try_fold(Resources::NONE, |all, word| {
            let found = Self::WORDS.iter().find(|(known, _)| *known == word);
            found.map(|(_, resource)| all.with(*resource)).ok_or_else(|| {
                let words: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
                Error::invalid(format!("unknown resource {word:?}"))
                    .with_hint(format!("one of: {}", words.join(", ")))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_read_back_as_they_print() {
        for text in
            ["none", "memory", "cpu,cpu-time", "memory,cpu,processes,cpu-time,swap,io-weight"]
        {
            assert_eq!(text.parse::<Resources>().unwrap().to_string(), text);
        }
        assert!("memory,bananas".parse::<Resources>().unwrap_err().is_invalid_input());
    }

    #[test]
    fn limits_with_which_nothing_can_run_are_refused() {
        let refused = [
            Limits::new().memory_max(0),
            Limits::new().processes_max(0),
            Limits::new().cpu_time_max(Duration::ZERO),
            Limits::new().cpu_max(0.0),
            Limits::new().cpu_max(-1.0),
            Limits::new().cpu_max(f64::NAN),
            Limits::new().cpu_max(f64::INFINITY),
            Limits::new().cpu_max(0.0001),
            Limits::new().affinity(0),
            Limits::new().cpu_weight(0),
            Limits::new().io_weight(10_001),
        ];
        assert!(refused.iter().all(|limits| limits.check().is_err()));
        assert!(Limits::new().check().is_ok() && Limits::new().cpu_max(0.1).check().is_ok());
    }
}
