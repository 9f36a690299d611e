//! What a job really promises on this host, as data.

use std::{fmt, str::FromStr};

use crate::{Error, Resources, Result};

/// What the operating system gives us to hold a job together.
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

/// How hard it is to leave the job. Stronger is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Containment {
    /// `setsid` or `setpgid` leaves.
    Grouped,
    /// Nothing leaves by forking, `setsid`, daemonising or its parent's death;
    /// only a deliberate act against the container can.
    Tracked,
    /// Not even a hostile member running as the owner's user can leave.
    Sealed,
}

/// How a kill reaches all members. Stronger is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kill {
    /// What could be found is killed.
    BestEffort,
    /// Repeated until provably empty, or the survivors are reported.
    Converging,
    /// One kernel operation; no fork can slip through.
    Atomic,
}

/// What happens to the whole tree when the owner is killed. Stronger is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum OwnerDeath {
    /// Nothing: the members live on.
    None,
    /// A guard process takes the tree down.
    Guard,
    /// The kernel takes the tree down.
    Kernel,
}

/// How a job is frozen. Stronger is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Freeze {
    /// It cannot be.
    None,
    /// Member by member with a stop signal, which their parents can see.
    Signals,
    /// By the kernel, invisibly to the members.
    Atomic,
}

/// Whose use of a resource [`Job::stats`](crate::Job::stats) includes. More is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Accounting {
    /// Not accounted.
    None,
    /// Members that are alive when asked.
    Live,
    /// The living, and the dead that were waited for, which is what `getrusage(2)` calls children:
    /// all but the children of a process that ignores `SIGCHLD`.
    Reaped,
    /// Every member there ever was.
    All,
}

/// What a job really promises on this host.
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
    /// What holds the job together.
    pub mechanism: Mechanism,
    /// How hard it is to leave.
    pub containment: Containment,
    /// How a kill reaches everybody.
    pub kill: Kill,
    /// What the owner's death does to the tree.
    pub owner_death: OwnerDeath,
    /// Whether members that changed their user are killed too.
    pub crosses_setuid: bool,
    /// How the job is frozen.
    pub freeze: Freeze,
    /// CPU time.
    pub cpu_accounting: Accounting,
    /// Memory.
    pub memory_accounting: Accounting,
    /// Bytes from and to devices.
    pub io_accounting: Accounting,
    /// What can be limited for the whole job.
    pub limits: Resources,
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
/// From a word: `tracked`, `kill=atomic`, `owner-death=guard`, `freeze=sweep`,
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

/// One table of the words, both ways: what is printed is what is understood.
macro_rules! words {
    ($type:ident, $what:literal, $($variant:ident => $word:literal),+) => {
        impl $type {
            const WORDS: &[(&str, $type)] = &[$(($word, $type::$variant)),+];
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
                    let words: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
                    Error::invalid(format!("unknown {} {text:?}", $what))
                        .with_hint(format!("one of: {}", words.join(", ")))
                })
            }
        }
    };
}

words!(Mechanism, "mechanism", Cgroup => "cgroup", Subreaper => "subreaper", JobObject => "job-object");
words!(Containment, "containment", Grouped => "grouped", Tracked => "tracked", Sealed => "sealed");
words!(Kill, "kill", BestEffort => "best-effort", Converging => "converging", Atomic => "atomic");
words!(OwnerDeath, "owner-death", None => "none", Guard => "guard", Kernel => "kernel");
words!(Freeze, "freeze", None => "none", Signals => "sweep", Atomic => "atomic");
words!(Accounting, "accounting", None => "none", Live => "living", Reaped => "waited", All => "everyone");

impl FromStr for Requirement {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = text.split_once('=').unwrap_or(("containment", text));
        match (name, level) {
            ("containment", "crosses-setuid") => Ok(Requirement::CrossesSetuid),
            ("containment", level) => level.parse().map(Requirement::Containment),
            ("kill", level) => level.parse().map(Requirement::Kill),
            ("owner-death", level) => level.parse().map(Requirement::OwnerDeath),
            ("freeze", level) => level.parse().map(Requirement::Freeze),
            ("limits", resources) => resources.parse().map(Requirement::Limits),
            _ => Err(Error::invalid(format!("unknown guarantee {name:?}")).with_hint(
                "one of: containment=…, kill=…, owner-death=…, freeze=…, limits=…, \
                       crosses-setuid",
            )),
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

    /// An unknown word is answered with the known ones.
    #[test]
    fn unknown_word_error_lists_the_known_ones() {
        let error = "kill=hard".parse::<Requirement>().unwrap_err().to_string();
        assert!(error.contains("best-effort, converging, atomic"), "{error}");
    }
}
