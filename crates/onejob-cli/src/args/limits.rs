//! The options that limit a tree.

use std::time::Duration;

use clap::Args;
use onejob::{Limits, OnOom};

use super::values::{count, cpus, duration, size, size_or_none, weight};

/// What the whole tree may use. A limit that cannot be enforced on all of it is an error.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct LimitArgs {
    /// Limit the memory of the whole tree (bytes, or with K, M, G, T); over it, all of it ends
    #[arg(long, value_name = "SIZE", value_parser = size, allow_negative_numbers = true)]
    memory: Option<u64>,

    /// Limit its swap space, on top of the memory; 0 is none
    #[arg(long, value_name = "SIZE", value_parser = size_or_none, allow_negative_numbers = true)]
    swap: Option<u64>,

    /// Out of memory, let only one process end, the system's choice
    #[arg(long, requires = "memory")]
    oom_kill_one: bool,

    /// Limit the whole tree to the power of N CPUs (like 0.5)
    #[arg(long, value_name = "N", value_parser = cpus, allow_negative_numbers = true)]
    cpus: Option<f64>,

    /// Its share of a busy CPU against what runs beside it: 1 to 10000, usually 100
    #[arg(long, value_name = "N", value_parser = weight, allow_negative_numbers = true)]
    cpu_weight: Option<u32>,

    /// Its share of a busy device, likewise
    #[arg(long, value_name = "N", value_parser = weight, allow_negative_numbers = true)]
    io_weight: Option<u32>,

    /// Limit how many processes and threads of the tree live at once
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    processes: Option<u32>,

    /// Limit the CPU time that the whole tree uses in all; then it is killed, and the status is 124
    #[arg(long, value_name = "DUR", value_parser = duration, allow_negative_numbers = true)]
    cpu_time: Option<Duration>,
}

impl LimitArgs {
    pub(crate) fn limits(&self) -> Limits {
        self.on_top_of(Limits::new())
    }

    /// Those that are given, and of the others what is set already.
    pub(crate) fn on_top_of(&self, mut limits: Limits) -> Limits {
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
