//! The guarantees of a job on this host, as data.

use std::{fmt, str::FromStr};

use crate::{Error, Resources, Result, sys};

/// The feature of the operating system that holds a job together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// A cgroup of Linux' unified hierarchy (kernel documentation: "Control Group v2").
    Cgroup,
    /// A Linux child subreaper ([`PR_SET_CHILD_SUBREAPER(2const)`]) above the members.
    ///
    /// [`PR_SET_CHILD_SUBREAPER(2const)`]: https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html
    Subreaper,
    /// A Windows Job Object (Microsoft Learn: "Job Objects").
    JobObject,
}

impl Mechanism {
    /// The mechanisms that this operating system has, in the order in which
    /// [`Job::new`](crate::Job::new) tries them. [`probe_mechanisms`](crate::probe_mechanisms) reports
    /// whether this process can use them.
    pub fn of_this_system() -> impl Iterator<Item = Mechanism> {
        sys::MECHANISMS.iter().map(|entry| entry.mechanism)
    }

    /// The operating system that has this mechanism.
    pub fn system(self) -> &'static str {
        match self {
            Mechanism::Cgroup | Mechanism::Subreaper => "Linux",
            Mechanism::JobObject => "Windows",
        }
    }
}

/// How hard it is to leave the job. Stronger is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Containment {
    /// `setsid` or `setpgid` leaves.
    Grouped,
    /// A process does not leave by forking, `setsid`, daemonising or the death of its parent; only a
    /// deliberate act against the container can make it leave.
    Tracked,
    /// Not even a hostile member running as the owner's user can leave.
    Sealed,
}

/// How a kill reaches all members. Stronger is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kill {
    /// Every process that was found is killed.
    BestEffort,
    /// Repeated until the job is proven empty, or the survivors are reported.
    Converging,
    /// One kernel operation; no fork can slip through.
    Atomic,
}

/// The effect on the whole tree when the owner is killed. Stronger is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum OwnerDeath {
    /// Nothing: the members live on.
    None,
    /// A guard process kills the tree.
    Guard,
    /// The kernel kills the tree.
    Kernel,
}

/// How a job is frozen. Stronger is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Freeze {
    /// It cannot be frozen.
    None,
    /// Member by member with a stop signal, which their parents can see.
    Signals,
    /// By the kernel, invisibly to the members.
    Atomic,
}

/// The members that [`Job::stats`](crate::Job::stats) includes for a resource. More is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Accounting {
    /// Not accounted.
    None,
    /// Members that are alive at the time of the call.
    Live,
    /// Live members, and dead members that were waited for (the children of `getrusage(2)`): all but
    /// the children of a process that ignores `SIGCHLD`.
    Reaped,
    /// Every member, live or dead.
    All,
}

/// The guarantees of a job on this host.
///
/// ```
/// # fn main() -> onejob::Result<()> {
/// # #[cfg(target_os = "linux")] {
/// let job = onejob::Job::new()?;
/// println!("{}", job.guarantees());
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantees {
    /// The mechanism that holds the job together.
    pub mechanism: Mechanism,
    /// How hard it is for a process to leave the job.
    pub containment: Containment,
    /// How a kill reaches all members.
    pub kill: Kill,
    /// The effect of the owner's death on the tree.
    pub owner_death: OwnerDeath,
    /// Whether members that changed their user are killed too.
    pub crosses_setuid: bool,
    /// How the job is frozen.
    pub freeze: Freeze,
    /// Accounting of CPU time.
    pub cpu_accounting: Accounting,
    /// Accounting of memory.
    pub memory_accounting: Accounting,
    /// Accounting of bytes read from and written to devices.
    pub io_accounting: Accounting,
    /// The resources that can be limited for the whole job.
    pub limits: Resources,
    /// Whether members are started by the job's guard: they are its children, and in the session of
    /// the job's owner, not of the process that calls [`Job::spawn`](crate::Job::spawn).
    pub spawned_by_guard: bool,
    /// Whether members whose parent has ended become children of the guard, or of the owner of an
    /// enclosed job, instead of the host's next subreaper.
    pub reaps_orphans: bool,
}

impl Guarantees {
    /// The requirements among `wanted` that these guarantees do not meet.
    pub fn unmet<'a>(&self, wanted: &'a [Requirement]) -> Vec<&'a Requirement> {
        wanted.iter().filter(|requirement| !requirement.is_met_by(self)).collect()
    }
}

/// One guarantee that a job must have at least, for
/// [`JobBuilder::require`](crate::JobBuilder::require).
///
/// From a word: `tracked`, `kill=atomic`, `owner-death=guard`, `freeze=signals`,
/// `limits=memory,processes`, `crosses-setuid`. A bare level is a containment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Requirement {
    /// Containment at least this strong.
    Containment(Containment),
    /// A kill at least this strong.
    Kill(Kill),
    /// The owner's death handled at least this well.
    OwnerDeath(OwnerDeath),
    /// A freeze at least this strong.
    Freeze(Freeze),
    /// Members that changed their user are reached.
    CrossesSetuid,
    /// All of these can be limited for the whole job.
    Limits(Resources),
}

impl Requirement {
    /// Every guarantee that can be required, weakest level first; limits on one resource each.
    pub fn all() -> impl Iterator<Item = Requirement> {
        let levels = Containment::WORDS.iter().map(|(_, level)| Requirement::from(*level));
        let levels = levels
            .chain(Kill::WORDS.iter().map(|(_, level)| Requirement::from(*level)))
            .chain(OwnerDeath::WORDS.iter().map(|(_, level)| Requirement::from(*level)))
            .chain(Freeze::WORDS.iter().map(|(_, level)| Requirement::from(*level)))
            .chain([Requirement::CrossesSetuid]);
        levels.chain(Resources::each().map(Requirement::Limits))
    }

    /// The words of all guarantees, by their names: `kill=(best-effort|converging|atomic), …`.
    fn vocabulary() -> String {
        let mut names: Vec<(String, Vec<String>)> = Vec::new();
        for word in Requirement::all().map(|requirement| requirement.to_string()) {
            let (name, level) = word.split_once('=').unwrap_or((&word, ""));
            match names.last_mut() {
                Some((last, levels)) if last == name => levels.push(level.to_owned()),
                _ => names.push((name.to_owned(), vec![level.to_owned()])),
            }
        }
        let words = names.iter().map(|(name, levels)| match &levels.join("|")[..] {
            "" => name.clone(),
            levels => format!("{name}=({levels})"),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    fn is_met_by(&self, given: &Guarantees) -> bool {
        match *self {
            Requirement::Containment(least) => given.containment >= least,
            Requirement::Kill(least) => given.kill >= least,
            Requirement::OwnerDeath(least) => given.owner_death >= least,
            Requirement::Freeze(least) => given.freeze >= least,
            Requirement::CrossesSetuid => given.crosses_setuid,
            Requirement::Limits(resources) => given.limits.contains(resources),
        }
    }
}

/// One table of words for both directions: `from_str` reads exactly the words that `fmt` prints.
macro_rules! words {
    ($type:ident, $what:literal, $($variant:ident => $word:literal),+) => {
        impl $type {
            const WORDS: &[(&str, $type)] = &[$(($word, $type::$variant)),+];

            fn words() -> Vec<&'static str> {
                Self::WORDS.iter().map(|(word, _)| *word).collect()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($type::$variant => $word),+ })
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let found = Self::WORDS.iter().find(|(word, _)| *word == text);
                found.map(|(_, value)| *value).ok_or_else(|| {
                    Error::invalid(format!("unknown {} {text:?}", $what))
                        .with_hint(format!("one of: {}", Self::words().join(", ")))
                })
            }
        }
    };
}

words!(Mechanism, "mechanism", Cgroup => "cgroup", Subreaper => "subreaper", JobObject => "job-object");
words!(Containment, "containment", Grouped => "grouped", Tracked => "tracked", Sealed => "sealed");
words!(Kill, "kill", BestEffort => "best-effort", Converging => "converging", Atomic => "atomic");
words!(OwnerDeath, "owner-death", None => "none", Guard => "guard", Kernel => "kernel");
words!(Freeze, "freeze", None => "none", Signals => "signals", Atomic => "atomic");
words!(Accounting, "accounting", None => "none", Live => "live", Reaped => "reaped", All => "all");

impl FromStr for Requirement {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = |name: &str| {
            Error::invalid(format!("unknown guarantee {name:?}"))
                .with_hint(format!("one of: {}", Requirement::vocabulary()))
        };
        let Some((name, level)) = text.split_once('=') else {
            let containment = text.parse().map(Requirement::Containment);
            return match text {
                "crosses-setuid" => Ok(Requirement::CrossesSetuid),
                _ => containment.map_err(|_| unknown(text)),
            };
        };
        match (name, level) {
            ("containment", level) => level.parse().map(Requirement::Containment),
            ("kill", level) => level.parse().map(Requirement::Kill),
            ("owner-death", level) => level.parse().map(Requirement::OwnerDeath),
            ("freeze", level) => level.parse().map(Requirement::Freeze),
            ("limits", resources) => resources.parse().map(Requirement::Limits),
            _ => Err(unknown(name)),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Requirement::Containment(level) => write!(f, "containment={level}"),
            Requirement::Kill(level) => write!(f, "kill={level}"),
            Requirement::OwnerDeath(level) => write!(f, "owner-death={level}"),
            Requirement::Freeze(level) => write!(f, "freeze={level}"),
            Requirement::CrossesSetuid => f.write_str("crosses-setuid"),
            Requirement::Limits(resources) => write!(f, "limits={resources}"),
        }
    }
}

impl fmt::Display for Guarantees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Guarantees { mechanism, containment, kill, owner_death, crosses_setuid, .. } = self;
        let setuid = if *crosses_setuid { "yes" } else { "no" };
        write!(
            f,
            "{mechanism}: containment={containment} kill={kill} owner-death={owner_death} \
             crosses-setuid={setuid} freeze={} cpu={} memory={} io={} limits={}",
            self.freeze,
            self.cpu_accounting,
            self.memory_accounting,
            self.io_accounting,
            self.limits
        )
    }
}

impl From<Containment> for Requirement {
    fn from(level: Containment) -> Self {
        Requirement::Containment(level)
    }
}

impl From<Kill> for Requirement {
    fn from(level: Kill) -> Self {
        Requirement::Kill(level)
    }
}

impl From<OwnerDeath> for Requirement {
    fn from(level: OwnerDeath) -> Self {
        Requirement::OwnerDeath(level)
    }
}

impl From<Freeze> for Requirement {
    fn from(level: Freeze) -> Self {
        Requirement::Freeze(level)
    }
}

impl From<Resources> for Requirement {
    fn from(resources: Resources) -> Self {
        Requirement::Limits(resources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_reads_back_as_it_prints() {
        for text in [
            "containment=sealed",
            "kill=atomic",
            "owner-death=guard",
            "freeze=none",
            "limits=memory",
        ] {
            assert_eq!(text.parse::<Requirement>().unwrap().to_string(), text);
        }
        assert_eq!("tracked".parse::<Requirement>().unwrap(), Containment::Tracked.into());
        assert_eq!("crosses-setuid".parse::<Requirement>().unwrap(), Requirement::CrossesSetuid);
    }

    /// Every guarantee is listed once, reads back as it prints, and is in the error for an unknown one.
    #[test]
    fn all_requirements() {
        let all: Vec<_> = Requirement::all().map(|one| one.to_string()).collect();
        for word in &all {
            assert_eq!(word.parse::<Requirement>().unwrap().to_string(), *word);
            assert_eq!(all.iter().filter(|other| *other == word).count(), 1, "{word}");
        }
        assert_eq!(all.len(), 3 + 3 + 3 + 3 + 1 + 8);
        for unknown in ["foo", "foo=atomic", ""] {
            let error = unknown.parse::<Requirement>().unwrap_err();
            let hint = error.hint().unwrap();
            for name in
                ["containment=(grouped|", "kill=(best-effort|", "crosses-setuid", "limits=(memory|"]
            {
                assert!(hint.contains(name), "{hint}");
            }
        }
    }

    /// The error for an unknown word lists the known words.
    #[test]
    fn unknown_word_error_lists_the_known_ones() {
        let error = "kill=hard".parse::<Requirement>().unwrap_err().to_string();
        assert!(error.contains("best-effort, converging, atomic"), "{error}");
    }
}
