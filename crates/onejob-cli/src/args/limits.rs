//! The options that limit a tree.

use std::time::Duration;

use clap::Args;
use onejob::{Limits, OnOom};

use super::{
    LIMITS,
    values::{count, cpus, duration, size, size_or_zero, weight},
};

/// Limits on the whole process tree. A limit that cannot be enforced on all of it is an error.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct LimitOptions {
    /// Limit the memory of the whole job (512M, 0.5G, 2GiB; 2GB is 2000 MB); on out-of-memory the job is killed
    #[arg(long, help_heading = LIMITS, value_name = "SIZE", value_parser = size, allow_negative_numbers = true)]
    memory: Option<u64>,

    /// Limit the swap space of the whole job, in addition to its memory; 0 allows none
    #[arg(long, help_heading = LIMITS, value_name = "SIZE", value_parser = size_or_zero, allow_negative_numbers = true)]
    swap: Option<u64>,

    /// On out-of-memory, kill one process (the kernel chooses) instead of the whole job
    #[arg(long, help_heading = LIMITS, requires = "memory")]
    oom_kill_one: bool,

    /// Limit the CPU use of the whole job to N CPUs (examples: 0.5, 50%)
    #[arg(long, help_heading = LIMITS, value_name = "N", value_parser = cpus, allow_negative_numbers = true)]
    cpus: Option<f64>,

    /// Share of CPU time when CPUs are busy, relative to sibling cgroups: 1 to 10000, normally 100
    #[arg(long, help_heading = LIMITS, value_name = "N", value_parser = weight, allow_negative_numbers = true)]
    cpu_weight: Option<u32>,

    /// Share of a busy block device, relative to sibling cgroups: 1 to 10000, normally 100
    #[arg(long, help_heading = LIMITS, value_name = "N", value_parser = weight, allow_negative_numbers = true)]
    io_weight: Option<u32>,

    /// Limit the number of processes and threads that exist at the same time
    #[arg(long, help_heading = LIMITS, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    processes: Option<u32>,

    /// Limit the total CPU time of the whole job; at the limit it is killed, and the status is 124
    #[arg(long, help_heading = LIMITS, value_name = "DUR", value_parser = duration, allow_negative_numbers = true)]
    cpu_time: Option<Duration>,
}

impl LimitOptions {
    pub(crate) fn limits(&self) -> Limits {
        self.applied_to(Limits::new())
    }

    /// `limits` with the given ones replaced.
    pub(crate) fn applied_to(&self, mut limits: Limits) -> Limits {
        limits.memory_max = self.memory.or(limits.memory_max);
        limits.swap_max = self.swap.or(limits.swap_max);
        if self.memory.is_some() {
            limits.on_oom = if self.oom_kill_one { OnOom::KillOne } else { OnOom::KillAll };
        }
        limits.cpu_max = self.cpus.or(limits.cpu_max);
        limits.cpu_weight = self.cpu_weight.or(limits.cpu_weight);
        limits.io_weight = self.io_weight.or(limits.io_weight);
        limits.processes_max = self.processes.or(limits.processes_max);
        limits.cpu_time_max = self.cpu_time.or(limits.cpu_time_max);
        limits
    }
}
