//! The controllers of a cgroup, and limits in its files.

use std::{fs, io, os::fd::BorrowedFd, path::Path};

use super::dir::{read_text, write_text};
use crate::{
    Error, Limits, OnOom, Resources, Result,
    sys::linux::{
        mounts::{self, Mount},
        spawn::local::ChildMemory,
    },
};

/// The resources that can be limited, each with its controller. The total CPU time needs none: every
/// cgroup counts it, and a guard watches the count.
const CONTROLLERS: [(Resources, &str); 6] = [
    (Resources::MEMORY, "memory"),
    (Resources::SWAP, "memory"),
    (Resources::CPU, "cpu"),
    (Resources::CPU_WEIGHT, "cpu"),
    (Resources::IO_WEIGHT, "io"),
    (Resources::PROCESSES, "pids"),
];

/// The resources that can be limited on some host.
pub(crate) const ALL: Resources = Resources::MEMORY
    .with(Resources::SWAP)
    .with(Resources::CPU)
    .with(Resources::CPU_WEIGHT)
    .with(Resources::IO_WEIGHT)
    .with(Resources::PROCESSES)
    .with(Resources::CPU_TIME);

/// The resources that this kernel can limit with these controllers, separated by spaces.
pub(crate) fn resources(controllers: &str) -> Resources {
    let has = |name: &str| controllers.split_whitespace().any(|word| word == name);
    let limited =
        CONTROLLERS.iter().filter(|(resource, name)| has(name) && is_effective(*resource));
    limited.fold(Resources::NONE, |all, (resource, _)| all.with(*resource))
}

/// The limits that need no other controllers than those in a file of a cgroup.
pub(crate) fn limits_in(dir: BorrowedFd<'_>, file: &str) -> Resources {
    resources(&read_text(dir, file).unwrap_or_default()).with(Resources::CPU_TIME)
}

/// The limits that cgroups below this one can have now, with the controllers that are enabled.
pub(crate) fn enabled_limits(dir: BorrowedFd<'_>) -> Resources {
    limits_in(dir, ENABLED)
}

/// Whether a controller is enabled for the cgroups below this one.
pub(crate) fn is_enabled(dir: BorrowedFd<'_>, controller: &str) -> bool {
    let enabled = read_text(dir, ENABLED).unwrap_or_default();
    enabled.split_whitespace().any(|name| name == controller)
}

/// Enables a controller for the cgroups below this one.
pub(crate) fn enable(dir: BorrowedFd<'_>, controller: &str) -> io::Result<()> {
    write_text(dir, ENABLED, &format!("+{controller}"))
}

/// The file that lists the controllers which are enabled for the cgroups below.
const ENABLED: &str = "cgroup.subtree_control";

/// The controllers for these resources, each once.
pub(crate) fn controllers(wanted: Resources) -> Vec<&'static str> {
    let needed = CONTROLLERS.iter().filter(|(resource, _)| wanted.contains(*resource));
    let mut names: Vec<_> = needed.map(|(_, name)| *name).collect();
    names.dedup();
    names
}

/// Whether a limit on this resource has an effect: the kernel accepts and ignores some.
fn is_effective(resource: Resources) -> bool {
    match resource {
        // Without swap support there is no such file. With it, swap is accounted from boot or never.
        Resources::SWAP => Path::new("/proc/swaps").exists(),
        Resources::IO_WEIGHT => has_weighing_device(),
        _ => true,
    }
}

/// Whether a device is scheduled by weights. The cost model (`io.cost.qos` in the root, kernel
/// documentation: "Control Group v2") does this, and is off by default. The scheduler bfq has a file of
/// its own instead of `io.weight`.
fn has_weighing_device() -> bool {
    let mounts = mounts::all().unwrap_or_default();
    mounts.iter().filter(|mount: &&Mount| mount.is_cgroup2()).any(|mount| {
        let qos = fs::read_to_string(mount.point.join("io.cost.qos")).unwrap_or_default();
        qos.split_whitespace().any(|word| word == "enable=1")
    })
}

/// Writes the limits that differ between `old` and `new`. After an error all are as before.
pub(crate) fn write(dir: BorrowedFd<'_>, old: &Limits, new: &Limits) -> Result<()> {
    let changes = changes(old, new);
    for (done, change) in changes.iter().enumerate() {
        if let Err(error) = change.write(dir, new) {
            for undone in changes.iter().take(done + 1) {
                let _ = write_text(dir, undone.file, &undone.was);
            }
            return Err(error);
        }
    }
    Ok(())
}

/// A new text for a file, and the text before.
struct Change {
    file: &'static str,
    was: String,
    text: String,
}

impl Change {
    fn write(&self, dir: BorrowedFd<'_>, limits: &Limits) -> Result<()> {
        let Change { file, text, .. } = self;
        if let ("memory.max", Some(bytes)) = (*file, limits.memory_max) {
            reclaim_memory(dir, bytes)?;
        }
        write_text(dir, file, text).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::unsupported(format!(
                "cannot set a limit of the job ({file} = {text}): this kernel has no such file"
            )),
            _ => Error::os(format!("set a limit of the job ({file} = {text})"), e),
        })
    }
}

/// Whether a job with these limits is killed as a whole when it runs out of memory.
pub(crate) fn is_oom_group(limits: &Limits) -> bool {
    limits.memory_max.is_some() && limits.on_oom == OnOom::KillAll
}

fn changes(old: &Limits, new: &Limits) -> Vec<Change> {
    let number = |value: Option<u64>| value.map_or("max".to_owned(), |value| value.to_string());
    let weight = |value: Option<u32>| format!("default {}", value.unwrap_or(100));
    let oom_group = |limits: &Limits| u32::from(is_oom_group(limits));
    let texts = |limits: &Limits| {
        [
            // Before `memory.max`, so that it is set when memory runs out.
            ("memory.oom.group", oom_group(limits).to_string()),
            ("memory.swap.max", number(limits.swap_max)),
            ("memory.max", number(limits.memory_max)),
            ("cpu.max", bandwidth(limits.cpu_max)),
            ("cpu.weight", limits.cpu_weight.unwrap_or(100).to_string()),
            ("io.weight", weight(limits.io_weight)),
            ("pids.max", number(limits.processes_max.map(u64::from))),
        ]
    };
    let pairs = texts(old).into_iter().zip(texts(new)).filter(|(was, is)| was != is);
    pairs.map(|((file, was), (_, text))| Change { file, was, text }).collect()
}

/// Quota and period in microseconds. The kernel requires a quota of at least 1 ms and a period of at
/// most 1 s. A longer period means longer pauses, so it is as short as the quota allows.
fn bandwidth(cpus: Option<f64>) -> String {
    const LEAST_QUOTA: f64 = 1_000.0;
    let period = match cpus {
        Some(cpus) => (LEAST_QUOTA / cpus).clamp(100_000.0, 1_000_000.0).ceil(),
        None => 100_000.0,
    };
    match cpus {
        Some(cpus) => format!("{} {period}", (cpus * period).clamp(LEAST_QUOTA, 1e15) as u64),
        None => format!("max {period}"),
    }
}

/// Makes the kernel reclaim memory until the cgroup uses no more than this. A `memory.max` below the
/// memory in use would kill members otherwise.
fn reclaim_memory(dir: BorrowedFd<'_>, bytes: u64) -> Result<()> {
    let in_use = || {
        let text = read_text(dir, "memory.current")
            .map_err(|e| Error::os("read how much memory the job uses", e))?;
        Ok(text.trim().parse::<u64>().unwrap_or(0))
    };
    if in_use()? <= bytes {
        return Ok(());
    }
    // The kernel reclaims when `memory.high` is written, and kills no process.
    let reclaim = |text: &str| {
        write_text(dir, "memory.high", text).map_err(|e| Error::os("reclaim memory of the job", e))
    };
    let left = reclaim(&bytes.to_string()).and_then(|()| in_use());
    reclaim("max")?;
    match left? {
        left if left <= bytes => Ok(()),
        left => Err(Error::limit_reached(
            format!(
                "limit the memory of the job to {}: its members use {} that the kernel cannot \
                 reclaim",
                mebibytes(bytes),
                mebibytes(left)
            ),
            None,
        )
        .with_hint("set a higher limit, or end some members first")),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Whether a child that is started in this cgroup may share the memory of its parent: an out-of-memory
/// kill of the whole cgroup would also kill the parent.
pub(crate) fn child_memory(cgroup: BorrowedFd<'_>) -> ChildMemory {
    match read_text(cgroup, "memory.oom.group") {
        Ok(text) if text.trim() != "1" => ChildMemory::Shared,
        Err(e) if e.kind() == io::ErrorKind::NotFound => ChildMemory::Shared,
        // If it cannot be read, a copy is slower but always safe.
        _ => ChildMemory::Copied,
    }
}

/// The limits of a cgroup. `set` are those that this process has set; other processes can have changed
/// them.
pub(crate) fn effective_limits(dir: BorrowedFd<'_>, set: &Limits) -> Result<Limits> {
    let read = Limits { cpu_time_max: set.cpu_time_max, ..read(dir)? };
    // The kernel rounds. Limits that are unchanged are returned as they were set.
    Ok(if changes(set, &read).is_empty() { *set } else { read })
}

/// The limits in the files of a cgroup, without that on the total CPU time, which has no file.
pub(crate) fn read(dir: BorrowedFd<'_>) -> Result<Limits> {
    let file = |name: &str| match read_text(dir, name) {
        Ok(text) => Ok(text),
        // The controller is not enabled.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::os(format!("read {name} of the job"), e)),
    };
    let number = |name: &str| Ok::<_, Error>(file(name)?.trim().parse::<u64>().ok());
    let weight = |text: &str| {
        let last = text.split_whitespace().find_map(|word| word.parse().ok());
        last.filter(|weight| *weight != 100)
    };
    let memory_max = number("memory.max")?;
    let kills_one = memory_max.is_some() && file("memory.oom.group")?.trim() == "0";
    Ok(Limits {
        affinity: None,
        memory_max,
        swap_max: number("memory.swap.max")?,
        on_oom: if kills_one { OnOom::KillOne } else { OnOom::KillAll },
        cpu_max: cpus(&file("cpu.max")?),
        cpu_weight: weight(&file("cpu.weight")?),
        io_weight: weight(&file("io.weight")?),
        processes_max: number("pids.max")?.and_then(|count| u32::try_from(count).ok()),
        cpu_time_max: None,
    })
}

fn cpus(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bandwidth_is_within_the_kernels_bounds() {
        assert_eq!(bandwidth(Some(0.5)), "50000 100000");
        assert_eq!(bandwidth(Some(3.0)), "300000 100000");
        assert_eq!(bandwidth(Some(0.004)), "1000 250000");
        assert_eq!(bandwidth(Some(0.001)), "1000 1000000");
        assert_eq!(bandwidth(None), "max 100000");
        assert_eq!(cpus("50000 100000\n"), Some(0.5));
        assert_eq!(cpus("max 100000\n"), None);
    }

    #[test]
    fn only_what_differs_is_written() {
        let files = |old: &Limits, new: &Limits| {
            changes(old, new).iter().map(|change| change.file).collect::<Vec<_>>()
        };
        let none = Limits::new();
        let some = Limits::new().memory_max(1 << 20).processes_max(2);
        assert_eq!(files(&none, &none), [""; 0]);
        assert_eq!(files(&none, &some), ["memory.oom.group", "memory.max", "pids.max"]);
        assert_eq!(files(&some, &some.on_oom(OnOom::KillOne)), ["memory.oom.group"]);
        assert_eq!(files(&some, &some.cpu_weight(50)), ["cpu.weight"]);
    }

    #[test]
    fn each_controller_is_enabled_once() {
        let wanted = Resources::MEMORY.with(Resources::SWAP).with(Resources::PROCESSES);
        assert_eq!(controllers(wanted), ["memory", "pids"]);
        assert_eq!(controllers(Resources::CPU_TIME), [""; 0]);
    }
}
