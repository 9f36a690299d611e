//! The resources that a job has used.

use std::time::Duration;

use crate::Process;

/// The resources that the members of a job have used so far; `None` if the mechanism does not count
/// a resource.
///
/// The accounting fields of [`Guarantees`](crate::Guarantees) define which members are included. On
/// Linux the numbers come from the files of the cgroup (kernel documentation: "Control Group v2"),
/// and include members that a [kill](crate::Job::kill) ended. All numbers except CPU time need the
/// controller of the resource, see [`JobBuilder::accounting`](crate::JobBuilder::accounting).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// CPU time in user mode.
    pub cpu_user: Option<Duration>,
    /// CPU time in the kernel.
    pub cpu_system: Option<Duration>,
    /// Memory in use now, in bytes, including file caches.
    pub memory: Option<u64>,
    /// The peak of memory in use, in bytes. Linux 5.19.
    pub memory_peak: Option<u64>,
    /// Bytes read from devices. Data that was already in a cache is not counted.
    pub io_read: Option<u64>,
    /// Bytes written to devices.
    pub io_written: Option<u64>,
    /// Members alive now.
    pub processes: usize,
    /// The peak number of live processes and threads. Linux 6.1.
    pub processes_peak: Option<u64>,
    /// The number of processes that have ever been members. Windows only: Linux does not count them.
    pub processes_total: Option<u64>,
    /// The total time in which at least one runnable member waited for a CPU (kernel documentation:
    /// "Pressure Stall Information").
    pub stalled_on_cpu: Option<Duration>,
    /// The total time in which at least one member waited for memory to become free.
    pub stalled_on_memory: Option<Duration>,
    /// The total time in which at least one member waited for a device.
    pub stalled_on_io: Option<Duration>,
    /// The number of members that the kernel killed because the job or the host was out of memory.
    pub oom_kills: Option<u64>,
    /// How often a new process or thread was refused because the maximum number was reached.
    pub processes_refused: Option<u64>,
}

/// The members of a job and what they use, read in one pass by [`Job::snapshot`](crate::Job::snapshot).
/// `None` if the mechanism does not count it, it cannot be read, or it would take another pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The live members.
    pub processes: Vec<Process>,
    /// The CPU time that the job has used, as in [`Stats`].
    pub cpu_time: Option<Duration>,
    /// The memory of the live members that is resident, in bytes. Shared pages count for each of them.
    pub resident_memory: Option<u64>,
    /// Whether no member can run, because all are stopped or their cgroup is frozen.
    pub is_frozen: Option<bool>,
}
