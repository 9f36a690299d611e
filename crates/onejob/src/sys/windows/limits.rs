//! Limits in the form of the kernel. Always the whole structure: the kernel clears omitted limits.

use std::{io, mem, time::Duration};

use windows_sys::Win32::System::JobObjects::{
    JOB_OBJECT_CPU_RATE_CONTROL_ENABLE, JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP,
    JOB_OBJECT_LIMIT_ACTIVE_PROCESS, JOB_OBJECT_LIMIT_AFFINITY, JOB_OBJECT_LIMIT_JOB_MEMORY,
    JOB_OBJECT_LIMIT_JOB_TIME, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_CPU_RATE_CONTROL_INFORMATION, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
};

use super::object::Object;
use crate::Limits;

/// The CPU time in user mode that the members have used. The kernel's CPU-time limit counts this time.
pub(super) fn user_time(object: &Object) -> io::Result<Duration> {
    let units = u64::try_from(object.accounting()?.TotalUserTime).unwrap_or(0);
    Ok(Duration::from_nanos(units.saturating_mul(100)))
}

/// `used` is the CPU time so far: the kernel counts a CPU-time limit from the moment it is set.
pub(super) fn extended(
    limits: &Limits,
    used: Duration,
    dies_with_us: bool,
) -> JOBOBJECT_EXTENDED_LIMIT_INFORMATION {
    // SAFETY: a structure of numbers, for which zero is a value: no limit.
    let mut whole: JOBOBJECT_EXTENDED_LIMIT_INFORMATION = unsafe { mem::zeroed() };
    let basic = &mut whole.BasicLimitInformation;
    if dies_with_us {
        basic.LimitFlags |= JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    }
    if let Some(count) = limits.processes_max {
        basic.LimitFlags |= JOB_OBJECT_LIMIT_ACTIVE_PROCESS;
        basic.ActiveProcessLimit = count;
    }
    if let Some(cpus) = limits.affinity {
        basic.LimitFlags |= JOB_OBJECT_LIMIT_AFFINITY;
        basic.Affinity = cpus as usize;
    }
    if let Some(time) = limits.cpu_time_max {
        basic.LimitFlags |= JOB_OBJECT_LIMIT_JOB_TIME;
        let left = time.saturating_sub(used).as_nanos() / 100;
        basic.PerJobUserTimeLimit = i64::try_from(left).unwrap_or(i64::MAX).max(1);
    }
    if let Some(bytes) = limits.memory_max {
        basic.LimitFlags |= JOB_OBJECT_LIMIT_JOB_MEMORY;
        whole.JobMemoryLimit = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    whole
}

/// The CPU limit as a share of all processors, in units of 0.01 %.
pub(super) fn cpu_rate(limits: &Limits, processors: u32) -> JOBOBJECT_CPU_RATE_CONTROL_INFORMATION {
    // SAFETY: a structure of numbers, for which zero is a value: not controlled.
    let mut rate: JOBOBJECT_CPU_RATE_CONTROL_INFORMATION = unsafe { mem::zeroed() };
    if let Some(cpus) = limits.cpu_max {
        rate.ControlFlags =
            JOB_OBJECT_CPU_RATE_CONTROL_ENABLE | JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP;
        let share = (cpus / f64::from(processors) * 10_000.0).round();
        rate.Anonymous.CpuRate = share.clamp(1.0, 10_000.0) as u32;
    }
    rate
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole structure is passed, no matter which limits are set.
    #[test]
    fn every_limit_passes_the_whole_structure() {
        let whole = extended(&Limits::new(), Duration::ZERO, true);
        assert_eq!(whole.BasicLimitInformation.LimitFlags, 0x2000);
        let limits = Limits::new().memory_max(1 << 30).processes_max(7);
        let limits = limits.cpu_time_max(Duration::from_secs(3)).affinity(0b110);
        let whole = extended(&limits, Duration::from_secs(1), true);
        assert_eq!(whole.BasicLimitInformation.LimitFlags, 0x2000 | 0x200 | 0x10 | 0x8 | 0x4);
        assert_eq!(whole.BasicLimitInformation.Affinity, 0b110);
        assert_eq!(whole.JobMemoryLimit, 1 << 30);
        assert_eq!(whole.BasicLimitInformation.ActiveProcessLimit, 7);
        assert_eq!(whole.BasicLimitInformation.PerJobUserTimeLimit, 20_000_000);
        let released = extended(&limits, Duration::from_secs(9), false);
        assert_eq!(released.BasicLimitInformation.LimitFlags, 0x200 | 0x10 | 0x8 | 0x4);
        assert_eq!(released.BasicLimitInformation.PerJobUserTimeLimit, 1, "used up, not unlimited");
    }

    #[test]
    fn a_cpu_rate_is_a_share_of_all_processors() {
        let rate = |cpus: f64, processors| {
            let rate = cpu_rate(&Limits::new().cpu_max(cpus), processors);
            // SAFETY: the member that was written.
            (rate.ControlFlags, unsafe { rate.Anonymous.CpuRate })
        };
        assert_eq!(rate(0.5, 2), (0x5, 2500));
        assert_eq!(rate(9.0, 2), (0x5, 10_000));
        assert_eq!(rate(0.000_001, 64), (0x5, 1));
        assert_eq!(cpu_rate(&Limits::new(), 2).ControlFlags, 0);
    }
}
