//! The resources that a cgroup has used and how often its limits were reached, from its files.

use std::{os::fd::BorrowedFd, time::Duration};

use super::dir::read_text;
use crate::{Error, Result, Stats, StopReason, sys::linux::nostd::syscall::Errno};

/// The text of a file of a cgroup; `None` if its controller is not enabled, the cgroup has been removed, or
/// pressure is switched off (`OPNOTSUPP`).
fn file(cgroup: BorrowedFd<'_>, name: &str) -> Result<Option<String>> {
    match read_text(cgroup, name) {
        Ok(text) => Ok(Some(text)),
        Err(e) => match e.raw_os_error().map(Errno) {
            Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
            _ => Err(Error::os(format!("read {name} of the job"), e)),
        },
    }
}

/// The resources that a cgroup has used, except the number of its processes.
pub(crate) fn usage(cgroup: BorrowedFd<'_>) -> Result<Stats> {
    let file = |name: &str| Ok::<_, Error>(file(cgroup, name)?.unwrap_or_default());
    let io = self::file(cgroup, "io.stat")?;
    Ok(Stats {
        memory: number(&file("memory.current")?),
        memory_peak: number(&file("memory.peak")?),
        io_read: io.as_ref().map(|text| sum_of(text, "rbytes=")),
        io_written: io.as_ref().map(|text| sum_of(text, "wbytes=")),
        processes: 0,
        processes_peak: number(&file("pids.peak")?),
        processes_total: None,
        stalled_on_cpu: stalled(&file("cpu.pressure")?),
        stalled_on_memory: stalled(&file("memory.pressure")?),
        stalled_on_io: stalled(&file("io.pressure")?),
        ..sum(cpu_usage(cgroup)?, events(cgroup)?)
    })
}

/// The CPU time that a cgroup has used, and nothing else.
pub(crate) fn cpu_usage(cgroup: BorrowedFd<'_>) -> Result<Stats> {
    let cpu = file(cgroup, "cpu.stat")?.unwrap_or_default();
    Ok(Stats {
        cpu_user: value(&cpu, "user_usec").map(Duration::from_micros),
        cpu_system: value(&cpu, "system_usec").map(Duration::from_micros),
        ..Stats::default()
    })
}

/// How often the limits of a cgroup were reached, and nothing else.
pub(crate) fn events(cgroup: BorrowedFd<'_>) -> Result<Stats> {
    let file = |name: &str| Ok::<_, Error>(file(cgroup, name)?.unwrap_or_default());
    Ok(Stats {
        oom_kills: value(&file("memory.events")?, "oom_kill"),
        processes_refused: value(&file("pids.events")?, "max"),
        ..Stats::default()
    })
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of a line `key value`.
fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

/// The values of this key of all lines `device key=value …`.
fn sum_of(text: &str, key: &str) -> u64 {
    text.split_whitespace().filter_map(|word| number(word.strip_prefix(key)?)).sum()
}

/// The total of the line `some avg10=… avg60=… avg300=… total=…`, in microseconds.
fn stalled(text: &str) -> Option<Duration> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let total = some.split(' ').find_map(|word| word.strip_prefix("total="))?;
    number(total).map(Duration::from_micros)
}

/// The sum for two cgroups that a job has had one after the other. Peaks are not added: the higher one
/// counts.
pub(crate) fn sum(a: Stats, b: Stats) -> Stats {
    fn add<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
        match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        }
    }
    Stats {
        cpu_user: add(a.cpu_user, b.cpu_user),
        cpu_system: add(a.cpu_system, b.cpu_system),
        memory: add(a.memory, b.memory),
        memory_peak: a.memory_peak.max(b.memory_peak),
        io_read: add(a.io_read, b.io_read),
        io_written: add(a.io_written, b.io_written),
        processes: a.processes + b.processes,
        processes_peak: a.processes_peak.max(b.processes_peak),
        processes_total: add(a.processes_total, b.processes_total),
        stalled_on_cpu: add(a.stalled_on_cpu, b.stalled_on_cpu),
        stalled_on_memory: add(a.stalled_on_memory, b.stalled_on_memory),
        stalled_on_io: add(a.stalled_on_io, b.stalled_on_io),
        oom_kills: add(a.oom_kills, b.oom_kills),
        processes_refused: add(a.processes_refused, b.processes_refused),
    }
}

/// The part that still counts when the cgroup has been removed: its memory and processes are free again.
pub(crate) fn past(used: Stats) -> Stats {
    Stats { memory: used.memory.map(|_| 0), processes: 0, ..used }
}

/// The total CPU time.
pub(crate) fn cpu_time(used: &Stats) -> Duration {
    used.cpu_user.unwrap_or_default() + used.cpu_system.unwrap_or_default()
}

/// The limit that was reached. The limit on the total CPU time is not among them: a guard enforces it.
pub(crate) fn limit_reached(used: &Stats) -> Option<StopReason> {
    if used.oom_kills.unwrap_or(0) > 0 {
        Some(StopReason::Memory)
    } else if used.processes_refused.unwrap_or(0) > 0 {
        Some(StopReason::Processes)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_as_documented() {
        let cpu = "usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_periods 0\n";
        assert_eq!(value(cpu, "user_usec"), Some(10));
        assert_eq!(value(cpu, "user"), None);
        let events = "low 0\nhigh 0\nmax 4\noom 1\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(value(events, "oom_kill"), Some(2));
        let io = "8:0 rbytes=90 wbytes=5 rios=1\n254:1 rbytes=10 wbytes=6 rios=2\n";
        assert_eq!((sum_of(io, "rbytes="), sum_of(io, "wbytes=")), (100, 11));
        let pressure =
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=150\nfull avg10=0.00 total=7\n";
        assert_eq!(stalled(pressure), Some(Duration::from_micros(150)));
        assert_eq!(stalled(""), None);
    }
}
