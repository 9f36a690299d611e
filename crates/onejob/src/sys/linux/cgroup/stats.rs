//! What a cgroup has used and what its limits have done, as the kernel's files say.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use super::root::read_text;
use crate::{
    Error, ProcessId, Result, Stats, StopReason,
    sys::linux::{
        file::read_proc,
        nostd::syscall::{self, Errno},
        process::identity,
    },
};

/// What a file of a cgroup says. One of a controller that the cgroup does not have is not there, and of a
/// cgroup that is gone there is nothing to read; pressure can be switched off (`OPNOTSUPP`).
fn file(cgroup: BorrowedFd<'_>, name: &str) -> Result<Option<String>> {
    match read_text(cgroup, name) {
        Ok(text) => Ok(Some(text)),
        Err(e) => match e.raw_os_error().map(Errno) {
            Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
            _ => Err(Error::os(format!("read {name} of the job"), e)),
        },
    }
}

/// Microseconds of user and system time of a process and of the children it has waited for. Nothing of one
/// that is gone: its parent has waited for it, or will.
pub(crate) fn times(process: &ProcessId) -> io::Result<[u64; 2]> {
    let pid = process.pid;
    let Some(pidfd) = identity::find(process).map_err(io::Error::other)? else {
        return Ok([0; 2]);
    };
    let text = match read_proc(&format!("/proc/{pid}/stat")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok([0; 2]),
        Err(e) if e.raw_os_error() == Some(Errno::SRCH.0) => return Ok([0; 2]),
        text => text?,
    };
    // The number was its own until now.
    if syscall::pidfd_send_signal(pidfd.as_raw_fd(), 0) == Err(Errno::SRCH) {
        return Ok([0; 2]);
    }
    let fields: Vec<u64> = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split(' ').skip(12).take(4).filter_map(|f| f.parse().ok()).collect())
        .unwrap_or_default();
    match fields[..] {
        [user, system, children_user, children_system] => {
            let tick = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
            Ok([(user + children_user) * tick, (system + children_system) * tick])
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What the files of a cgroup say.
pub(crate) fn usage(cgroup: BorrowedFd<'_>) -> Result<Stats> {
    let file = |name: &str| Ok::<_, Error>(file(cgroup, name)?.unwrap_or_default());
    let cpu = file("cpu.stat")?;
    let io = self::file(cgroup, "io.stat")?;
    Ok(Stats {
        cpu_user: value(&cpu, "user_usec").map(Duration::from_micros),
        cpu_system: value(&cpu, "system_usec").map(Duration::from_micros),
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
        ..events(cgroup)?
    })
}

/// What its limits have done, alone.
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

/// Of two cgroups that the same job had, one after the other: what flows is added, and of peaks the
/// higher one counts.
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

/// What is left to say of a cgroup that is gone: what was in use then is in use no more.
pub(crate) fn past(used: Stats) -> Stats {
    Stats { memory: used.memory.map(|_| 0), processes: 0, ..used }
}

/// CPU time in all.
pub(crate) fn cpu_time(used: &Stats) -> Duration {
    used.cpu_user.unwrap_or_default() + used.cpu_system.unwrap_or_default()
}

/// What limits have done, but for the one of CPU time, which is ours and not the kernel's.
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
    fn times_of_another_process_with_the_number() {
        let us = identity::identify(std::process::id()).unwrap();
        let start = std::time::Instant::now();
        while times(&us).expect("readable") == [0; 2] {
            assert!(start.elapsed() < Duration::from_secs(60), "we use time");
        }
        let before = ProcessId { inode: us.inode.wrapping_add(1), start: us.start + 1, ..us };
        assert_eq!(times(&before).expect("gone"), [0; 2]);
    }

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
