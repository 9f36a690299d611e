//! The seam between the job and the operating system.
//!
//! Each system provides, with identical names and signatures:
//!
//! | item | what |
//! |---|---|
//! | `MECHANISMS` | its mechanisms, strongest default first |
//! | `promise(mechanism, around)` | what a job of it promises if it can be made |
//! | `Job` | a job of any of its mechanisms: `Job::new(mechanism, spec)` and the [`Mechanism`] contract |
//! | `open(name)` | a second view of a living job, by name or beginning of its id |
//! | `jobs()` | this user's living jobs |
//! | `Record` | how others find a job that is listed: `id`, `name`, `note`, `set_note`, `wait_over(deadline)` |
//! | `Child` | a process started into a job: `id`, `pid`, `wait(deadline)`, `signal`, on Unix `signal_group` and `AsFd`, on Windows `AsHandle` |
//! | `tree(root)` | a [`Stoppable`](crate::stop::Stoppable) for the processes below any process |
//! | `descendants(root)` | a process and all that are below it, to be looked at |
//! | `identify(pid)` | the [`ProcessId`](crate::ProcessId) behind a number |
//! | `survey()` | every mechanism probed for real |
//! | `leftovers()`, `runtime_dir()` | what is left of jobs that nobody holds, and where records are |
//! | `limit_hint(errno)` | the remedy where a limit of this process may be why a call failed |
//! | `ProcessToken` | tells the process that made a job from its forked copies |
//!
//! Operating systems are named here and below, and nowhere else. A mechanism is one file below its
//! system's folder; adding one touches that folder and the enum [`crate::Mechanism`].

use crate::{
    Command, Guarantees, Limits, Process, ProcessId, Result, Signal, Stats, stop::Stoppable,
};

/// What a mechanism provides. `kill`, `ask` and `wait` come with [`Stoppable`], and like every
/// method here they spare the calling process.
pub(crate) trait Mechanism: Stoppable + Send + Sync {
    /// What the job promises at this moment.
    fn guarantees(&self) -> Guarantees;
    /// Starts a member, inside from birth. `command` has been checked.
    fn spawn(&self, command: &mut Command) -> Result<crate::Child>;
    /// Makes a std command join the job between `fork` and `exec`.
    fn join_on_exec(&self, command: &mut std::process::Command) -> Result<()>;
    /// Makes a running process a member; it is not the caller.
    fn adopt(&self, process: &ProcessId) -> Result<()>;
    /// The living members, with the caller marked if it is one.
    fn processes(&self) -> Result<Vec<Process>>;
    /// Their numbers alone.
    fn pids(&self) -> Result<Vec<u32>>;
    /// Sends a signal to every member but the caller.
    fn signal(&self, signal: Signal) -> Result<usize>;
    /// How others find it, if they can.
    fn record(&self) -> Option<&Record>;
    /// The limits that are set.
    fn limits(&self) -> Result<Limits>;
    /// Replaces them; all of them are among the guaranteed ones, or it is an error.
    fn set_limits(&self, limits: &Limits) -> Result<()>;
    /// Returns when no member runs.
    fn freeze(&self) -> Result<()>;
    /// The opposite.
    fn thaw(&self) -> Result<()>;
    /// What the members have used.
    fn stats(&self) -> Result<Stats>;
    /// From now on the members live on without us; `close` must then leave them alone.
    fn release(&mut self) -> Result<()>;
    /// Kills the members unless released or opened, and gives everything back. Called once, last.
    fn close(&mut self);
}

/// Every public operation on an enum of mechanisms is the chosen one's own.
macro_rules! delegate {
    ($enum:ident { $($variant:ident),+ }) => {
        impl $enum {
            fn get(&self) -> &dyn Mechanism {
                match self { $($enum::$variant(job) => job),+ }
            }
            fn get_mut(&mut self) -> &mut dyn Mechanism {
                match self { $($enum::$variant(job) => job),+ }
            }
        }

        impl Stoppable for $enum {
            fn terminate(&self, signal: Signal) -> Result<usize> {
                self.get().terminate(signal)
            }
            fn wait(&self, deadline: Option<std::time::Instant>) -> Result<bool> {
                self.get().wait(deadline)
            }
            fn kill(&self) -> Result<()> {
                self.get().kill()
            }
            fn reason(&self) -> crate::StopReason {
                self.get().reason()
            }
        }

        impl Mechanism for $enum {
            fn guarantees(&self) -> Guarantees {
                self.get().guarantees()
            }
            fn spawn(&self, command: &mut Command) -> Result<crate::Child> {
                self.get().spawn(command)
            }
            fn join_on_exec(&self, command: &mut std::process::Command) -> Result<()> {
                self.get().join_on_exec(command)
            }
            fn adopt(&self, process: &ProcessId) -> Result<()> {
                self.get().adopt(process)
            }
            fn processes(&self) -> Result<Vec<Process>> {
                self.get().processes()
            }
            fn pids(&self) -> Result<Vec<u32>> {
                self.get().pids()
            }
            fn signal(&self, signal: Signal) -> Result<usize> {
                self.get().signal(signal)
            }
            fn record(&self) -> Option<&Record> {
                self.get().record()
            }
            fn limits(&self) -> Result<Limits> {
                self.get().limits()
            }
            fn set_limits(&self, limits: &Limits) -> Result<()> {
                self.get().set_limits(limits)
            }
            fn freeze(&self) -> Result<()> {
                self.get().freeze()
            }
            fn thaw(&self) -> Result<()> {
                self.get().thaw()
            }
            fn stats(&self) -> Result<Stats> {
                self.get().stats()
            }
            fn release(&mut self) -> Result<()> {
                self.get_mut().release()
            }
            fn close(&mut self) {
                self.get_mut().close();
            }
        }
    };
}

// Set by the build script for what `linux` is written for.
#[cfg(onejob_linux)]
mod linux;
#[cfg(all(onejob_linux, fuzzing))]
pub use linux::fuzz;
#[cfg(onejob_linux)]
pub(crate) use linux::{
    Child, Job, MECHANISMS, ProcessToken, Record, abandoned_jobs, descendants, guarantees_of,
    identify, jobs, limit_hint, open, probe_mechanisms, runtime_dir, tree,
};

#[cfg(all(windows, not(onejob_unsupported)))]
mod windows;
#[cfg(all(windows, not(onejob_unsupported)))]
pub(crate) use windows::{
    Child, Job, LADDER, Record, abandoned_jobs, descendants, guarantees_of, identify, jobs, open,
    probe_mechanisms, runtime_dir, tree,
};

#[cfg(not(any(onejob_linux, all(windows, not(onejob_unsupported)))))]
mod unsupported;
#[cfg(not(any(onejob_linux, all(windows, not(onejob_unsupported)))))]
pub(crate) use unsupported::{
    Child, Job, LADDER, Record, descendants, identify, jobs, leftovers, open, promise, runtime_dir,
    survey, tree,
};

/// No limit of this process is known here.
#[cfg(not(onejob_linux))]
pub(crate) fn limit_hint(_: i32) -> Option<String> {
    None
}

#[cfg(not(onejob_linux))]
mod token;
#[cfg(not(onejob_linux))]
pub(crate) use token::ProcessToken;
