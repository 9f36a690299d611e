//! What a job has used.

use std::time::Duration;

/// What the members of a job have used so far; `None` where the mechanism cannot tell.
///
/// Whose use is included says [`Guarantees`](crate::Guarantees). On Linux the numbers are those of
/// the kernel's own files (kernel documentation: "Control Group v2"), those of members that a
/// [kill](crate::Job::kill) ended included; beside CPU time they need the resource's controller,
/// see [`JobBuilder::account`](crate::JobBuilder::account).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// CPU time in user mode.
    pub cpu_user: Option<Duration>,
    /// CPU time in the kernel.
    pub cpu_system: Option<Duration>,
    /// Memory in use now, in bytes, caches of files included.
    pub memory: Option<u64>,
    /// The most memory in use at one time, in bytes. Linux 5.19.
    pub memory_peak: Option<u64>,
    /// Bytes read from devices: what was in a cache already is not among them.
    pub io_read: Option<u64>,
    /// Bytes written to devices.
    pub io_written: Option<u64>,
    /// Members alive now.
    pub processes: usize,
    /// The most processes and threads alive at one time. Linux 6.1.
    pub processes_peak: Option<u64>,
    /// How many processes there have been. Windows only: Linux does not count them.
    pub processes_total: Option<u64>,
    /// For how long some member that could have run waited for a CPU (kernel documentation:
    /// "Pressure Stall Information").
    pub stalled_on_cpu: Option<Duration>,
    /// For how long some member waited for memory to become free.
    pub stalled_on_memory: Option<Duration>,
    /// For how long some member waited for a device.
    pub stalled_on_io: Option<Duration>,
    /// Members that the system killed because memory was out: the job's own limit, or the host's.
    pub oom_kills: Option<u64>,
    /// How often a new process or thread was refused because of a limit on them.
    pub processes_refused: Option<u64>,
}
