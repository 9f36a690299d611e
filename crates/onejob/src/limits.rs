//! What a job may use at most.

use std::{fmt, str::FromStr, time::Duration};

use crate::{Error, Result};

/// What the members of a job may use at most, all together; `None` where nothing is set.
///
/// Every limit is one on the whole job, the members it will have included. A limit that cannot be
/// enforced so is an error, never ignored and never turned into one on each process: which ones can
/// be had, a job says itself ([`Guarantees::limits`](crate::Guarantees::limits)).
///
/// ```
/// use onejob::Limits;
/// let limits = Limits::new().memory_max(2 << 30).cpu_max(1.5).processes_max(200);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Memory in bytes, caches of files included. What does not fit is taken from those caches
    /// first, then moved to swap space ([`swap_max`](Limits::swap_max)); then members are killed,
    /// [`on_oom`](Limits::on_oom) says which.
    ///
    /// On Linux, where all of them end together, a child is started with a copy of the owner's
    /// memory rather than in it, which takes longer the larger the owner is: whoever shares memory
    /// with a victim is killed, too.
    pub memory_max: Option<u64>,
    /// Swap space in bytes, on top of [`memory_max`](Limits::memory_max); 0 is none. Unset, it is
    /// not limited.
    pub swap_max: Option<u64>,
    /// Whom the system kills when a member needs memory and there is none.
    pub on_oom: OnOom,
    /// CPU bandwidth, in CPUs: 1.5 is one and a half of them.
    pub cpu_max: Option<f64>,
    /// The share of a busy CPU against others beside the job: 1 to 10000, of which others have 100
    /// unless told otherwise.
    pub cpu_weight: Option<u32>,
    /// The share of a busy device, as [`cpu_weight`](Limits::cpu_weight).
    pub io_weight: Option<u32>,
    /// Live processes and threads, as the system counts them.
    pub processes_max: Option<u32>,
    /// CPU time in all, of the living and the dead; the job is killed when it is used up, and takes
    /// no new members then. Not to be had by an enclosed job, whose caller would be killed, too.
    pub cpu_time_max: Option<Duration>,
    /// The CPUs that members run on: bit N of it is CPU N. Windows only.
    pub affinity: Option<u64>,
}

/// Whom the system kills when a job is out of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnOom {
    /// All members together: half a job is of no use.
    #[default]
    KillAll,
    /// The one that the system chooses.
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

    /// Limits swap space, in bytes; 0 is none.
    pub fn swap_max(mut self, bytes: u64) -> Limits {
        self.swap_max = Some(bytes);
        self
    }

    /// Chooses whom the system kills when memory is out.
    pub fn on_oom(mut self, whom: OnOom) -> Limits {
        self.on_oom = whom;
        self
    }

    /// Limits CPU bandwidth, in CPUs.
    pub fn cpu_max(mut self, cpus: f64) -> Limits {
        self.cpu_max = Some(cpus);
        self
    }

    /// Sets the share of a busy CPU, 1 to 10000.
    pub fn cpu_weight(mut self, weight: u32) -> Limits {
        self.cpu_weight = Some(weight);
        self
    }

    /// Sets the share of a busy device, 1 to 10000.
    pub fn io_weight(mut self, weight: u32) -> Limits {
        self.io_weight = Some(weight);
        self
    }

    /// Limits how many live at once.
    pub fn processes_max(mut self, count: u32) -> Limits {
        self.processes_max = Some(count);
        self
    }

    /// Limits CPU time in all.
    pub fn cpu_time_max(mut self, time: Duration) -> Limits {
        self.cpu_time_max = Some(time);
        self
    }

    /// Limits which CPUs members run on.
    pub fn affinity(mut self, cpus: u64) -> Limits {
        self.affinity = Some(cpus);
        self
    }

    /// Which resources are limited here.
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

    /// Refuses what no job can live with.
    pub(crate) fn check(&self) -> Result<()> {
        const LEAST_CPUS: f64 = 0.001;
        let zero = |what: &str| Err(Error::invalid(format!("a limit of 0 for {what}")));
        let weights = [self.cpu_weight, self.io_weight];
        if let Some(weight) = weights.into_iter().flatten().find(|w| !(1..=10_000).contains(w)) {
            return Err(Error::invalid(format!("{weight} is no weight")).with_hint("1 to 10000"));
        }
        match self {
            Limits { affinity: Some(0), .. } => zero("CPUs"),
            Limits { memory_max: Some(0), .. } => zero("memory"),
            Limits { processes_max: Some(0), .. } => zero("processes"),
            Limits { cpu_time_max: Some(Duration::ZERO), .. } => zero("CPU time"),
            Limits { cpu_max: Some(cpus), .. } if !(cpus.is_finite() && *cpus > 0.0) => {
                Err(Error::invalid(format!("{cpus} is no number of CPUs"))
                    .with_hint("a number above 0, like 0.5 or 2"))
            }
            Limits { cpu_max: Some(cpus), .. } if *cpus < LEAST_CPUS => {
                Err(Error::invalid(format!("{cpus} CPUs are too few to run on"))
                    .with_hint(format!("at least {LEAST_CPUS}")))
            }
            _ => Ok(()),
        }
    }
}

/// A set of resources that a job can be limited in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Resources(u8);

impl Resources {
    /// None of them.
    pub const NONE: Resources = Resources(0);
    /// Memory.
    pub const MEMORY: Resources = Resources(1);
    /// CPU bandwidth.
    pub const CPU: Resources = Resources(2);
    /// Processes and threads alive at once.
    pub const PROCESSES: Resources = Resources(4);
    /// CPU time in all.
    pub const CPU_TIME: Resources = Resources(8);
    /// Swap space.
    pub const SWAP: Resources = Resources(16);
    /// The share of a busy CPU.
    pub const CPU_WEIGHT: Resources = Resources(32);
    /// The share of a busy device.
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

    /// Both sets together.
    pub const fn with(self, other: Resources) -> Resources {
        Resources(self.0 | other.0)
    }

    /// What is in this set and not in the other.
    pub const fn without(self, other: Resources) -> Resources {
        Resources(self.0 & !other.0)
    }

    /// Whether all of another set are in this one.
    pub const fn contains(self, other: Resources) -> bool {
        other.without(self).is_empty()
    }

    /// Whether there is none.
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

/// From words with commas between them: `memory,cpu`.
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
    fn a_limit_that_lets_nobody_live_is_refused() {
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
