//! The interface between a job and the mechanism that holds it together.
//!
//! A mechanism is one file with an implementation of [`Backend`] and one [`MechanismEntry`]; the
//! entries of a system are in its `MECHANISMS`, strongest default first. Code outside of that file
//! never checks which mechanism a job has: it checks for a capability, or reads the [`Guarantees`].

use std::time::Instant;

use super::Record;
use crate::{
    Command, Error, Guarantees, Limits, Mechanism, MechanismReport, Process, ProcessId, Result,
    Signal, Snapshot, Stats,
    name::Name,
    spec::{Enclosure, JobSpec, allows_next},
    stop::Stoppable,
};

/// One job, or a view of a job of another process. `terminate`, `kill` and `wait` come with
/// [`Stoppable`]. No method acts on the calling process.
pub(crate) trait Backend: Stoppable + Send + Sync {
    /// The guarantees of the job at this moment.
    fn guarantees(&self) -> Guarantees;
    /// Starts a process as a member, before its first instruction. `command` has been checked.
    fn spawn(&self, command: &mut Command) -> Result<crate::Child>;
    /// The live members; the caller is marked if it is one.
    fn processes(&self) -> Result<Vec<Process>>;
    /// The pids of the live members, the caller included.
    fn pids(&self) -> Result<Vec<u32>>;
    /// Sends a signal to every member but the caller; returns the number of processes reached.
    fn signal(&self, signal: Signal) -> Result<usize>;
    /// The resources that the members have used.
    fn stats(&self) -> Result<Stats>;
    /// The members and what they use, in one pass where the mechanism has one.
    fn snapshot(&self) -> Result<Snapshot> {
        let (processes, stats) = (self.processes()?, self.stats().ok());
        let cpu_time = stats.and_then(|stats| Some(stats.cpu_user? + stats.cpu_system?));
        Ok(Snapshot { processes, cpu_time, resident_memory: None, is_frozen: None })
    }
    /// Gives the job up: its members live on, and `close` leaves them alone.
    fn release(&mut self) -> Result<()>;
    /// Kills the members unless the job was released or is a view, and frees its resources. Called
    /// once, last.
    fn close(&mut self);

    // Capabilities that not every mechanism has.

    /// Makes a std command join the job between `fork` and `exec`.
    fn join_on_exec(&self, _: &mut std::process::Command) -> Result<()> {
        Err(Error::unsupported(format!(
            "the {} mechanism cannot start a std::process::Command inside a job",
            self.guarantees().mechanism
        ))
        .with_hint("use onejob::Command and Job::spawn"))
    }
    /// Makes a running process a member. It is not the caller.
    fn adopt(&self, _: &ProcessId) -> Result<()> {
        Err(Error::unsupported(format!(
            "the {} mechanism cannot adopt a running process",
            self.guarantees().mechanism
        )))
    }
    /// The record through which other processes find the job, if it is listed.
    fn record(&self) -> Option<&dyn JobRecord> {
        None
    }
    /// Limits on all members together.
    fn limits(&self) -> Option<&dyn LimitControl> {
        None
    }
    /// Pausing all members.
    fn freezer(&self) -> Option<&dyn Freezer> {
        None
    }
}

/// Limits on all members together.
pub(crate) trait LimitControl {
    /// The limits that are set.
    fn get(&self) -> Result<Limits>;
    /// Replaces them. Nothing changes if it fails.
    fn set(&self, limits: &Limits) -> Result<()>;
}

/// Pausing all members.
pub(crate) trait Freezer {
    /// Returns when no member runs.
    fn freeze(&self) -> Result<()>;
    /// Lets the members that `freeze` has paused run again.
    fn thaw(&self) -> Result<()>;
}

/// The record through which other processes find a listed job.
pub(crate) trait JobRecord {
    /// An id that is unique among all jobs of this boot.
    fn id(&self) -> &str;
    /// Its name, if it has one.
    fn name(&self) -> Option<&Name>;
    /// The last note of the owner.
    fn note(&self) -> Result<Option<String>>;
    /// Adds a note. Only the owner can.
    fn set_note(&self, note: &str) -> Result<()>;
    /// Waits until the owner has closed the job; returns whether it did before the deadline.
    fn wait_closed(&self, deadline: Option<Instant>) -> Result<bool>;
}

/// One mechanism of this system.
pub(crate) struct MechanismEntry {
    pub(crate) mechanism: Mechanism,
    /// The guarantees of a job, if it can be made.
    pub(crate) guarantees_of: fn(Enclosure) -> Guarantees,
    /// Makes a job, or returns the reason why it cannot be made on this host.
    pub(crate) create: fn(&JobSpec) -> Result<Box<dyn Backend>>,
    /// Makes a view of a live job of another process.
    #[cfg_attr(not(onejob_linux), allow(dead_code, reason = "one mechanism needs no choice"))]
    pub(crate) open: fn(Record) -> Result<Box<dyn Backend>>,
    /// Why the mechanism is available and how to get stronger guarantees, for a job that was made; may
    /// correct the guarantees.
    pub(crate) explain: fn(&mut Guarantees) -> Explanation,
    /// Properties of the record of a listed job.
    #[cfg_attr(not(onejob_linux), expect(dead_code, reason = "records are files on Linux only"))]
    pub(crate) record: RecordTraits,
}

/// Why a mechanism is available.
pub(crate) struct Explanation {
    pub(crate) reason: String,
    /// How to get stronger guarantees.
    pub(crate) hint: Option<String>,
}

/// The files beside the record of a listed job, and the entries that are added to it later.
#[cfg_attr(not(onejob_linux), expect(dead_code, reason = "records are files on Linux only"))]
pub(crate) struct RecordTraits {
    /// Whether a guard socket and a list of the processes that a freeze has stopped are beside it.
    pub(crate) has_files: bool,
    /// Whether the guards are entered in it only when the first member is started.
    pub(crate) names_guards_late: bool,
}

impl MechanismEntry {
    /// Makes an empty job and closes it again. The flag is true if a new job would try the next
    /// mechanism after this result.
    pub(crate) fn probe(&self) -> (MechanismReport, bool) {
        let mechanism = self.mechanism;
        match (self.create)(&JobSpec::plain(Enclosure::None)) {
            Ok(mut job) => {
                let mut guarantees = job.guarantees();
                let Explanation { reason, hint } = (self.explain)(&mut guarantees);
                job.close();
                (MechanismReport { mechanism, guarantees: Some(guarantees), reason, hint }, true)
            }
            Err(error) => (self.unavailable(&error), allows_next(&error)),
        }
    }

    /// The report of a mechanism that is not available.
    pub(crate) fn unavailable(&self, error: &Error) -> MechanismReport {
        MechanismReport {
            mechanism: self.mechanism,
            guarantees: None,
            hint: error.hint().map(str::to_owned),
            reason: error.reason(),
        }
    }
}
